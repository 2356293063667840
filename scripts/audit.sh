#!/usr/bin/env bash
# Known vulnerabilities of everything that is installed. Skipped, with a line, only where the database of them cannot be
# reached: for no package at all is there an answer then. A package that alone has none fails the audit.
set -u
bin=$1
total=$(grep -c == constraints.txt)
out=$("$bin/pip-audit" --disable-pip --no-deps --progress-spinner off --requirement constraints.txt 2>&1)
status=$?
unanswered=$(grep -c 'could not be audited' <<<"$out")
if grep -qiE 'found [0-9]+ known vulnerabilit' <<<"$out"; then
    echo "$out" >&2
    exit 1
elif [ "$unanswered" = "$total" ] || grep -qE 'ConnectionError|ConnectTimeout|Max retries exceeded|[Cc]ould not connect' <<<"$out"; then
    echo "pip-audit: skipped, the vulnerability database cannot be reached"
elif [ "$status" != 0 ] || [ "$unanswered" != 0 ]; then
    echo "$out" >&2
    exit 1
else
    echo "pip-audit: no known vulnerabilities in $total packages"
fi
