#!/usr/bin/env bash
# Known vulnerabilities of everything that is installed. Skipped, with a line, only where the database of them cannot be
# reached; whatever else keeps the audit from its end fails it.
set -u
bin=$1
out=$("$bin/pip-audit" --strict --disable-pip --no-deps --progress-spinner off --requirement constraints.txt 2>&1)
status=$?
unreachable='not found on PyPI and could not be audited|ConnectionError|ConnectTimeout|Max retries exceeded|[Cc]ould not connect'
if [ "$status" = 0 ]; then
    echo "pip-audit: no known vulnerabilities in $(grep -c == constraints.txt) packages"
elif grep -qE "$unreachable" <<<"$out" && ! grep -qiE 'found [0-9]+ known vulnerabilit' <<<"$out"; then
    echo "pip-audit: skipped, the vulnerability database cannot be reached"
else
    echo "$out" >&2
    exit 1
fi
