#!/usr/bin/env bash
# Runs the unit test programs named as arguments, as many at once as there are cores, then the end-to-end tests against the program
# beside them.
# VLMD_SUITE=tsan keeps to what threads share; VLMD_LONG=1 adds the long tests.
set -uo pipefail
cd "$(dirname "$0")/.."
unit() {
    local out
    out=$("$1" 2>&1) || { echo "$out"; echo "FAILED: $1"; return 1; }
    echo "$out" | sed -n "s|^\[  PASSED  \]|$(basename "$1"): &|p"
}
failed=0 running=0
for t in "$@"; do
    if [ "${VLMD_SUITE:-}" = tsan ] && ! [[ $t =~ tests/(server|engine/sched|kernels/test_pool) ]]; then continue; fi
    if ((running == $(nproc))); then
        wait -n || failed=1
        ((running--))
    fi
    unit "$t" &
    ((++running))
done
for ((; running > 0; running--)); do wait -n || failed=1; done
bin=$(dirname "${1:-build/tests/x}"); bin=${bin%%/tests*}/vlmd
# Debian's pytest belongs to Debian's Python; another python3 may come first on the path.
python=python3
"$python" -c 'import pytest' 2>/dev/null || python=/usr/bin/python3
VLMD_BIN=$PWD/$bin "$python" -m pytest -q -p no:cacheprovider tests/e2e ${VLMD_SUITE:+-m $VLMD_SUITE} || failed=1
exit $failed
