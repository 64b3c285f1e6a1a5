#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# Runs the tests marked `fuzz` (tests/conftest.py marks them) again and again with new seeds until the time is up or
# one fails; then each fuzz target in C with libFuzzer for as long. Usage: scripts/fuzz.sh SECONDS [pytest arguments]
set -eu
cd "$(dirname "$0")/.."
seconds=$1
shift
end=$(($(date +%s) + seconds))
round=0
while [ "$(date +%s)" -lt "$end" ]; do
    round=$((round + 1))
    seed=$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')
    printf 'fuzz: round %d, --hypothesis-seed=%s\n' "$round" "$seed"
    VSCSI_FUZZ=long .venv/bin/pytest -q --timeout=0 -m fuzz --hypothesis-seed="$seed" "$@"
done

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
PYTHONPATH=tests .venv/bin/python -m fuzz "$seconds"
