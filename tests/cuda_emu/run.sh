#!/usr/bin/env bash
# The CUDA backend on this machine's CPU: built for the host against the emulator, then the tests of ops and models, forward,
# reversed and shuffled, each over another pattern in shared memory; the server on it (tests/e2e/test_cuda.py), the goldens of
# every family through that server, a few of each (tests/gpu/parity.py), and what is promised bit for bit by default
# (tests/gpu/default_bits.py). All of it under ASan and UBSan, at all sizes.
# EMU_QUICK=1, for `make test`: small sizes; ops forward under ASan, all else without a sanitizer; not what is promised by
# default, not the server's long tests.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit
. tests/jobs.sh
export ASAN_OPTIONS=detect_stack_use_after_return=0
ops=(tests/kernels/test_ops_*.c)
tests=(tests/cuda_emu/test_emu tests/cuda_emu/test_blas "${ops[@]%.c}" tests/kernels/test_sample tests/kernels/test_device_memory tests/engine/sched/test_device)
models=(tests/engine/model/test_dual tests/engine/model/test_lot)

# build DIR SANITIZER PROGRAM...
build() {
    make --no-print-directory -j"$cores" BUILD="$1" CUDA=emu SAN="$2" "${@:3}" || exit 1
}
# pass DIR SETTINGS PROGRAM...: each as a job
pass() {
    for t in "${@:3}"; do
        # shellcheck disable=SC2086
        job "$(basename "$t") ($2)" env VLMD_DEVICE=cuda $2 "$1/$t"
    done
}
# e2e DIR TESTS
e2e() {
    job "test_cuda.py" env VLMD_EMU_BIN="$PWD/$1/vlmd" "$python" -m pytest -q -p no:cacheprovider tests/e2e/test_cuda.py -k "$2"
}
# server DIR ORDER SCRIPT ARGUMENT...: a script that runs the program as a server on the emulated device
server() {
    VLMD_BIN=$PWD/$1/vlmd EMU_MEMORY=600000000 EMU_STREAMS=lazy EMU_ORDER=$2 python3 "${@:3}" \
        --max-num-batched-tokens 256 --image-memory 64M --image-cache-memory 16M || failed=1
}

if [ -n "${EMU_QUICK:-}" ]; then
    B=build/emu A=build/emu-asan
    build $B "" $B/vlmd "${tests[@]/#/$B/}" "${models[@]/#/$B/}"
    build $A "-fsanitize=address,alignment -fno-sanitize-recover=alignment -O1" "${tests[@]/#/$A/}"
    e2e $B "emulated and not long"
    pass $A "EMU_ORDER=forward EMU_STREAMS=lazy EMU_SHARED=0xff VLMD_SHORT=1" "${tests[@]}"
    pass $B "EMU_ORDER=reverse EMU_STREAMS=eager EMU_SHARED=0 VLMD_SHORT=1" "${tests[@]}"
    pass $B "EMU_ORDER=shuffle EMU_STREAMS=lazy EMU_SHARED=0x3f VLMD_SHORT=1" "${models[@]}" "${tests[@]}"
    all_ended
    server $B reverse tests/gpu/parity.py --smoke --steps 2 --jobs "$cores" -- --max-num-seqs 2
else
    B=build/emu-san
    models+=(tests/engine/model/test_model)
    build $B "-fsanitize=address,undefined -fno-sanitize-recover=undefined" $B/vlmd "${tests[@]/#/$B/}" "${models[@]/#/$B/}"
    e2e $B emulated
    pass $B "EMU_ORDER=forward EMU_STREAMS=lazy EMU_SHARED=0xff" "${tests[@]}"
    pass $B "EMU_ORDER=reverse EMU_STREAMS=eager EMU_SHARED=0" "${tests[@]}"
    pass $B "EMU_ORDER=shuffle EMU_STREAMS=lazy EMU_SHARED=0x3f" "${tests[@]}"
    pass $B "EMU_ORDER=shuffle EMU_STREAMS=lazy VLMD_SHORT=1" "${models[@]}"
    all_ended
    server $B shuffle tests/gpu/parity.py --smoke --steps 2 --jobs "$cores" -- --max-num-seqs 2
    server $B shuffle tests/gpu/default_bits.py --smoke --
fi
exit $failed
