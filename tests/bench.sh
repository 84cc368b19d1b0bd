#!/usr/bin/env bash
# Runs the benchmark programs named as arguments one after the other; each prints its figures as ratios.
set -euo pipefail
cd "$(dirname "$0")/.."
grep -m1 'model name' /proc/cpuinfo | sed 's/.*: /cpu: /'
echo "cores: $(nproc)"
for b in "$@"; do "$b"; done
