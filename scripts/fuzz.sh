#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# Runs the tests marked `fuzz` (tests/conftest.py marks them) again and again, file by file in another order and with new
# seeds, until the time is up or one fails; then each fuzz target in C with libFuzzer for as long. A file that runs when
# the time is up is interrupted. Usage: scripts/fuzz.sh SECONDS [pytest arguments]
set -eu
cd "$(dirname "$0")/.."
seconds=$1
shift
end=$(($(date +%s) + seconds))
files=$(.venv/bin/pytest --collect-only -q -m fuzz "$@" | sed -n 's/::.*//p' | sort -u)
[ -n "$files" ] || { echo 'fuzz: no test has the mark' >&2; exit 1; }
run=0
whole=0
while [ "$(date +%s)" -lt "$end" ]; do
    for file in $(printf '%s\n' $files | shuf); do
        left=$((end - $(date +%s)))
        [ "$left" -gt 0 ] || break
        run=$((run + 1))
        seed=$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')
        printf 'fuzz: run %d, %s --hypothesis-seed=%s\n' "$run" "$file" "$seed"
        status=0
        VSCSI_FUZZ=long timeout --foreground --preserve-status -s INT -k 60 "$left" \
            .venv/bin/pytest -q -x --timeout=0 -m fuzz --hypothesis-seed="$seed" "$file" || status=$?
        case $status in
        0) whole=$((whole + 1)) ;;
        2) [ "$(date +%s)" -ge "$end" ] || exit 2 ;; # interrupted, but not by us
        *) exit "$status" ;;
        esac
    done
done
printf 'fuzz: %d runs of test files in %d s, %d of them whole, nothing broke\n' "$run" "$seconds" "$whole"

# clang is big, and nothing else needs it: installed here and not by scripts/setup.sh.
missing=
for package in $(awk '$1 !~ /^#/ && $2 == "fuzz" { print $1 }' scripts/packages.txt); do
    dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' || missing="$missing $package"
done
if [ -n "$missing" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update || echo 'fuzz: apt-get update failed; trying with the lists as they are'
    # shellcheck disable=SC2086 # a list of words
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing || true
fi
PYTHONPATH=tests .venv/bin/python -P -m fuzz "$seconds"
PYTHONPATH=tests .venv/bin/python -P -m fuzz.python "$seconds"
