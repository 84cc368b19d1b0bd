#!/usr/bin/env bash
# Builds the CUDA backend for the host against the emulator, under ASan and UBSan, and runs the tests of ops and models on it:
# once forward, once with everything the other way round, once shuffled; then the goldens of the reference library, a few
# steps each; the server on it (tests/e2e/test_cuda.py), every family's goldens through the server, a few of each
# (tests/gpu/parity.py), and what is promised bit for bit by default (tests/gpu/default_bits.py). EMU_QUICK=1: ops at small sizes,
# forward and shuffled, the server's short tests, and two small checkpoints' goldens through it.
set -uo pipefail
cd "$(dirname "$0")/../.."
B=build/emu
more=()
ops=(tests/kernels/test_ops_*.c)
tests=(tests/cuda_emu/test_emu tests/cuda_emu/test_blas "${ops[@]%.c}" tests/kernels/test_sample tests/kernels/test_device_memory tests/engine/sched/test_device)
[ -n "${EMU_QUICK:-}" ] || more=(tests/engine/model/test_model tests/engine/model/test_dual tests/engine/model/test_lot)
make --no-print-directory -j"$(nproc)" BUILD=$B CUDA=emu SAN="-fsanitize=address,undefined -fno-sanitize-recover=undefined" \
    "$B/vlmd" "${tests[@]/#/$B/}" ${more[@]/#/$B/} || exit 1
failed=0
run() {
    for t in "${tests[@]}"; do
        out=$(VLMD_DEVICE=cuda ASAN_OPTIONS=detect_stack_use_after_return=0 "$@" "$B/$t" 2>&1) ||
            { failed=1; echo "$out" | tail -n 40; echo "FAILED: $* $t"; continue; }
        echo "$out" | grep -E '^\[  PASSED  \]' | sed "s|^|$(basename "$t") ($*): |"
    done
}
# server SCRIPT ARGUMENT...: a script that runs the program as a server on the emulated device.
server() {
    VLMD_BIN=$PWD/$B/vlmd ASAN_OPTIONS=detect_stack_use_after_return=0 EMU_MEMORY=600000000 EMU_STREAMS=lazy python3 "$@" \
        --max-num-batched-tokens 256 --image-memory 64M --image-cache-memory 16M || failed=1
}
run env EMU_ORDER=forward EMU_STREAMS=lazy EMU_SHARED=0xff ${EMU_QUICK:+VLMD_SHORT=1}
python=python3
"$python" -c 'import pytest' 2>/dev/null || python=/usr/bin/python3
VLMD_EMU_BIN=$PWD/$B/vlmd "$python" -m pytest -q -p no:cacheprovider tests/e2e/test_cuda.py -k "emulated${EMU_QUICK:+ and not long}" || failed=1
if [ -n "${EMU_QUICK:-}" ]; then
    run env EMU_ORDER=shuffle EMU_STREAMS=eager EMU_SHARED=0x3f VLMD_SHORT=1
    EMU_ORDER=reverse server tests/gpu/parity.py --smoke --steps 1 --only clip_llama,linear_join -- --max-num-seqs 2
else
    run env EMU_ORDER=reverse EMU_STREAMS=eager EMU_SHARED=0
    run env EMU_ORDER=shuffle EMU_STREAMS=lazy EMU_SHARED=0x3f
    tests=("${more[@]}")
    run env EMU_ORDER=shuffle EMU_STREAMS=lazy VLMD_SHORT=1
    EMU_ORDER=shuffle server tests/gpu/parity.py --smoke --steps 2 -- --max-num-seqs 2
    EMU_ORDER=shuffle server tests/gpu/default_bits.py --smoke --
fi
exit $failed
