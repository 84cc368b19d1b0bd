#!/usr/bin/env bash
# Builds every tests/fuzz/fuzz_*.c with clang's libFuzzer, ASan and UBSan, and runs each for FUZZ_SECONDS (60).
# A finding stays in build/fuzz/<name>/ as crash-*; starting inputs lie in tests/fuzz/corpus/<name>/; those
# of pictures are the decoders' goldens, one run a format. libFuzzer adds what it finds to build/fuzz/<name>/corpus.
# usage: run.sh [name ...]   (such as: run.sh tok image-jpg)
set -uo pipefail
cd "$(dirname "$0")/../.."
tests/deps.sh fuzz || exit 1
build=(make --no-print-directory -s -j"$(nproc)" CC=clang WARN=-w BUILD=build/fuzzlib OPT="-O1 -g -fno-omit-frame-pointer")
# No parser reaches the unrolled kernels, and clang takes many minutes to instrument them: these go without.
"${build[@]}" build/fuzzlib/kernels/cpu/simd_avx{2,512}.o || exit 1
"${build[@]}" build/fuzzlib/libvlmd.a \
    SAN="-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined" || exit 1
libs=$(pkg-config --libs libmicrohttpd jansson libjpeg libpng libwebp openblas libpcre2-8 libutf8proc nettle)
failed=0
# run NAME PROGRAM SEED...: one fuzzer over the seeds, files or folders
run() {
    local name=$1 program=$2 dir=build/fuzz/$1
    shift 2
    mkdir -p "$dir/corpus" "$dir/seeds"
    cp -r "$@" "$dir/seeds/"
    echo "fuzzing $name for ${FUZZ_SECONDS:-60} s"
    "$program" -max_total_time="${FUZZ_SECONDS:-60}" -timeout=20 -rss_limit_mb=4096 -print_final_stats=1 \
        -artifact_prefix="$dir/" "$dir/corpus" "$dir/seeds" >"$dir/log" 2>&1 ||
        { failed=1; tail -n 30 "$dir/log"; echo "FAILED: $name, see $dir"; }
    grep -E 'number_of_executed_units' "$dir/log"
}
wanted() { [ ${#names[@]} -eq 0 ] || [[ " ${names[*]} " == *" $1 "* ]]; }
names=("$@")
for src in tests/fuzz/fuzz_*.c; do
    name=$(basename "$src" .c)
    name=${name#fuzz_}
    runs=("$name")
    [ "$name" = image ] && runs=(image-jpg image-png image-webp image-gif)
    for r in "${runs[@]}"; do
        wanted "$r" || wanted "$name" || continue
        if [ ! "build/fuzz/fuzz_$name" -nt build/fuzzlib/libvlmd.a ] || [ ! "build/fuzz/fuzz_$name" -nt "$src" ]; then
            mkdir -p build/fuzz
            # shellcheck disable=SC2086
            clang -std=c11 -D_GNU_SOURCE -g -O1 -I. -fsanitize=fuzzer,address,undefined \
                -fno-sanitize-recover=undefined "$src" build/fuzzlib/libvlmd.a -o "build/fuzz/fuzz_$name" \
                $libs -lgif -lm -pthread || { failed=1; continue; }
        fi
        if [ "$name" = image ]; then
            run "$r" "build/fuzz/fuzz_$name" tests/golden/image/pictures/*."${r#image-}" tests/fuzz/corpus/image
        else
            run "$r" "build/fuzz/fuzz_$name" "tests/fuzz/corpus/$name"
        fi
    done
done
exit $failed
