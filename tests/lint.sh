#!/usr/bin/env bash
# Formatting, static checks, and the walls of the house (tests/lint.py).
set -uo pipefail
cd "$(dirname "$0")/.."
tests/deps.sh lint || exit 1
failed=0
mapfile -t files < <(git ls-files '*.c' '*.h')
format=clang-format-14
command -v $format >/dev/null || format=clang-format
$format --dry-run -Werror "${files[@]}" || { failed=1; echo "lint: run make format"; }
python3 tests/lint.py || failed=1
mapfile -t sources < <(git ls-files 'kernels/*.c' 'engine/*.c' 'server/*.c')
cppcheck --quiet --std=c11 --enable=warning,performance,portability --inline-suppr -j "$(nproc)" \
    --suppress=missingIncludeSystem --suppress=unknownMacro --suppress=unknownEvaluationOrder --suppress=normalCheckLevelMaxBranches \
    --library=posix --library=tests/cppcheck.cfg -D__GNUC__ -I. --error-exitcode=1 "${sources[@]}" || failed=1
[ $failed = 0 ] && echo "lint: clean"
exit $failed
