#!/usr/bin/env bash
# Runs the unit test programs named as arguments, as many at once as there are cores, then the end-to-end tests against the program
# beside them.
# VLMD_SUITE=tsan keeps to what threads share; VLMD_LONG=1 adds the long tests.
set -uo pipefail
cd "$(dirname "$0")/.."
. tests/jobs.sh
for t in "$@"; do
    if [ "${VLMD_SUITE:-}" = tsan ] && ! [[ $t =~ tests/(server|engine/sched|kernels/test_pool) ]]; then continue; fi
    job "$(basename "$t")" "$t"
done
all_ended
bin=$(dirname "${1:-build/tests/x}"); bin=${bin%%/tests*}/vlmd
VLMD_BIN=$PWD/$bin "$python" -m pytest -q -p no:cacheprovider tests/e2e ${VLMD_SUITE:+-m $VLMD_SUITE} || failed=1
exit $failed
