#!/usr/bin/env bash
# Everything that must hold on a GPU, from the tree (make gpu-check) or from an unpacked bundle. Ends with 0 when every part
# passed, with 1 when one failed, with 2 when it was called in a wrong way; what each part did lies in build/gpu-check/.
# usage: check.sh [--device NAME] [--smoke] [--without-sanitizer]
#   --device  cuda (the default), cuda:1, cpu      --smoke  the same parts, as short as they can be
#   --without-sanitizer  compute-sanitizer, which takes longest, is left out; where it is not found that is a failure otherwise
# BUILD names the folder of the binaries (build).
set -uo pipefail
cd "$(dirname "$0")/../.."
device=cuda smoke= sanitizer=1
while [ $# -gt 0 ]; do
    case $1 in
    --device) device=$2; shift ;;
    --smoke) smoke=1 ;;
    --without-sanitizer) sanitizer= ;;
    *) sed -n 's/^# usage: /usage: /p' "$0" >&2; exit 2 ;;
    esac
    shift
done
B=$PWD/${BUILD:-build}
export VLMD_DEVICE=$device VLMD_BIN=$B/vlmd
[ -d lib ] && export LD_LIBRARY_PATH=$PWD/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
out=$PWD/build/gpu-check
# cuBLASLt of the Python that runs torch, unless another is named or lies in the bundle.
lt=$(python3 -c 'import glob, nvidia; print(*sorted(f for d in nvidia.__path__ for f in glob.glob(d + "/cu*/lib/libcublasLt.so.1[23]"))[-1:])' 2>/dev/null)
[ -n "${VLMD_CUBLASLT:-}" ] || [ -z "$lt" ] || ls lib/libcublasLt.so.1[23] >/dev/null 2>&1 || export VLMD_CUBLASLT=$lt
rm -rf "$out"
mkdir -p "$out"
failed=0 failures=() skipped=()
# fail NAME WHY: a part that failed.
fail() {
    failed=$((failed + 1))
    failures+=("$1")
    echo "FAILED  $1 $2"
}
# part NAME COMMAND...: runs it, keeps what it says, counts a failure.
part() {
    local name=$1 begin=$SECONDS
    shift
    if "$@" >"$out/$name.log" 2>&1; then
        echo "ok      $name ($((SECONDS - begin)) s)"
    else
        fail "$name" "($((SECONDS - begin)) s): $out/$name.log"
        tail -n 25 "$out/$name.log" | sed 's/^/        /'
    fi
}
skip() {
    echo "SKIPPED $1: $2"
    skipped+=("$1")
}

echo "commit $(cat COMMIT 2>/dev/null || git describe --always --dirty 2>/dev/null), $(date -u +%FT%TZ)"
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || echo "no nvidia-smi"
if ! "$VLMD_BIN" --version; then
    echo "the program does not start here (its C library may be newer than this machine's)"
    exit 1
fi

# ---- ops and models against references in double precision and of the reference library ----
ops=(test_sample test_device_memory)
for t in "$B"/tests/kernels/test_ops_*; do [ -x "$t" ] && ops+=("${t##*/}"); done
for t in "${ops[@]}"; do part "$t" "$B/tests/kernels/$t"; done
for t in test_model test_dual test_lot; do part $t ${smoke:+env VLMD_SHORT=1} "$B/tests/engine/model/$t"; done
part test_device "$B/tests/engine/sched/test_device" # the scheduler on a device: steps ahead, captured and not

# ---- the server: goldens; captured = eager; alone = together, by --deterministic and as far as promised by default ----
part parity python3 tests/gpu/parity.py --device "$device" ${smoke:+--smoke --steps 4}
MIXED_ARGS="--device $device --deterministic" MIXED_REQUESTS=${smoke:+150} MIXED_REQUESTS=${MIXED_REQUESTS:-600} \
    part alone_as_together python3 tests/load/mixed.py
part default_bits python3 tests/gpu/default_bits.py --device "$device" ${smoke:+--smoke}

# ---- a load run with clients that leave, its answers compared, no growth ----
SOAK_SECONDS=${smoke:+8} SOAK_SECONDS=${SOAK_SECONDS:-120} SOAK_CLIENTS=${smoke:+4} SOAK_CLIENTS=${SOAK_CLIENTS:-24} \
    SOAK_NO_RSS=$smoke part load python3 tests/load/soak.py --device "$device" --deterministic

# ---- compute-sanitizer over the ops ----
find_sanitizer() {
    local at
    for at in "$(command -v compute-sanitizer)" "${CUDA_HOME:-/none}"/{bin,compute-sanitizer}/compute-sanitizer \
        /usr/local/cuda*/{bin,compute-sanitizer}/compute-sanitizer; do
        [ -x "$at" ] && echo "$at" && return
    done
}
found=$(find_sanitizer)
if [ -z "$sanitizer" ]; then
    skip compute-sanitizer "--without-sanitizer"
elif [ "$device" = cpu ]; then
    skip compute-sanitizer "device cpu"
elif [ -z "$found" ]; then
    fail compute-sanitizer "it is neither on the path nor below CUDA_HOME or /usr/local/cuda*; --without-sanitizer leaves it out"
else
    for tool in memcheck racecheck synccheck; do
        for t in "${ops[@]}"; do
            part "$tool-$t" "$found" --tool "$tool" --error-exitcode 9 "$B/tests/kernels/$t"
        done
    done
fi
echo "$failed failed${failures[*]:+: ${failures[*]}}${skipped[*]:+; skipped: ${skipped[*]}}"
exit $((failed > 0))
