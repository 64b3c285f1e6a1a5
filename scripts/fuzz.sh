#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# Runs the tests marked `fuzz` (tests/conftest.py marks them) again and again with new seeds until the time is up or
# one fails. Usage: scripts/fuzz.sh SECONDS [pytest arguments]
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
