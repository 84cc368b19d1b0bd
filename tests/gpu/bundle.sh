#!/usr/bin/env bash
# Packs build/vlmd-bundle.tar.gz: the program and the tests' binaries for every GPU (code for 8.0 runs on 8.x),
# the libraries they are linked with but the C library's and the driver's, golden checkpoints, the bundled model, scripts and
# generators. Unpacked on a machine with a driver and Python it needs nothing else: make gpu-check, make gpu-bench.
# usage: bundle.sh BUILD PROGRAM...   (paths of binaries, all below BUILD)
set -euo pipefail
cd "$(dirname "$0")/../.."
B=$1
shift
to=build/bundle/vlmd-bundle
rm -rf build/bundle
mkdir -p $to/lib
for program in "$@"; do
    at=$to/build/${program#"$B"/}
    mkdir -p "$(dirname "$at")"
    strip -g -o "$at" "$program"
    ldd "$program"
done | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u |
    grep -Ev '/(ld-linux-x86-64|libc|libm|libdl|librt|libpthread|libresolv|libnsl|libutil|libcuda)\.so' |
    while read -r lib; do cp -L "$lib" $to/lib/; done
cp -r --parents tests/gpu tests/load tests/golden tests/e2e models/vlmd-tiny docs/pictures LICENSE README.md $to/
find $to -name __pycache__ -prune -exec rm -rf {} +
git describe --always --dirty 2>/dev/null >$to/COMMIT || echo unknown >$to/COMMIT
cat >$to/Makefile <<'MAKE'
gpu-check:
	@tests/gpu/check.sh $(GPU_ARGS)
gpu-bench:
	@python3 tests/gpu/bench.py $(GPU_ARGS)
.PHONY: gpu-check gpu-bench
MAKE
tar -C build/bundle -czf build/vlmd-bundle.tar.gz vlmd-bundle
echo "build/vlmd-bundle.tar.gz: $(du -h build/vlmd-bundle.tar.gz | cut -f1)"
