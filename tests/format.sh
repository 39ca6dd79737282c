#!/usr/bin/env bash
# format.sh [--check]: formats every C, C++ and CUDA file of the tree by .clang-format, or names the files that would change.
# The version is fixed: others break lines in other places.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
files=$(find src kernels dist io jobs tests -name cub -prune -o -type f \
    \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' -o -name '*.cpp' \) -print)
if [ "${1:-}" != --check ]; then
    # shellcheck disable=SC2086
    exec clang-format-14 -i $files
fi
# shellcheck disable=SC2086
if ! complaints=$(clang-format-14 --dry-run -Werror $files 2>&1); then
    { grep -o '^[^: ]*:[0-9]*:[0-9]*: error: code should be clang-formatted' <<<"$complaints" || echo "$complaints"; } | sort -t: -k1,1 -u
    echo "run tests/format.sh"
    exit 1
fi
