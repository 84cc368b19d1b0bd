# Sourced by tests/run.sh and tests/cuda_emu/run.sh: programs side by side, as many as there are cores; what one says is printed when it
# is done. python: one that has pytest.
python=python3
"$python" -c 'import pytest' 2>/dev/null || python=/usr/bin/python3 # Debian's belongs to Debian's Python; another may come first
cores=$(nproc) failed=0 running=0

# ended: waits for one
ended() {
    wait -n || failed=1
    ((--running))
}
# job NAME COMMAND...
job() {
    ((running < cores)) || ended
    {
        out=$("${@:2}" 2>&1) || { echo "$out"; echo "FAILED: $1"; exit 1; }
        echo "$out" | sed -nE '/^\[  PASSED|passed/s|^|'"$1"': |p'
    } &
    ((++running))
}
all_ended() {
    while ((running > 0)); do ended; done
}
