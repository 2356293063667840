#!/usr/bin/env bash
# Known vulnerabilities of the pinned dependencies; skipped, with a line, where the database cannot be reached.
set -u
bin=$1
if out=$("$bin/pip-audit" --disable-pip --no-deps --requirement requirements.txt 2>&1); then
    echo "pip-audit: no known vulnerabilities"
elif grep -qiE 'found [0-9]+ known vulnerabilit' <<<"$out"; then
    echo "$out"
    exit 1
else
    echo "pip-audit: skipped, the vulnerability database cannot be reached"
fi
