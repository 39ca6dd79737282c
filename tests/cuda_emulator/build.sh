#!/bin/bash
# Builds the op tests with the CUDA column emulated on the CPU (one fibre a thread), for machines without a GPU:
#   tests/cuda_emulator/build.sh [compiler flags]     programs in $EMU_OUT (build/cuda_emulator); then check.sh
# $EMU_TESTS: the tests to build (default: all tests/test_ops*.c and test_attention_choice.c; " ": the column alone). A
# source is compiled again when it, or any header, is newer than its object; EMU_ALL=1 compiles everything.
# The emulator checks indices, reductions and races of order, not tensor-core rounding or speed: a GPU has the last word.
set -e
emu=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$emu/../.." && pwd)
out=${EMU_OUT:-$root/build/cuda_emulator}
mkdir -p "$out/kernels/cuda" "$out/kernels/sm90" "$out/dist" "$out/host"
flags="-O1 -g -fno-strict-aliasing $*"
c="-std=c11 -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE -DP4_BUILDING -DP4_CUDA -I$root -I$root/src -I$root/tests -fopenmp"
# The emulator's own headers come first, then the translated ones, then the tree's.
cpp="-std=gnu++17 -w -Wno-psabi -I$emu -I$out -I$root -isystem ${CUDA_HOME:-/usr/local/cuda}/include -include $emu/emu.h"
for header in "$root"/kernels/cuda/*.cuh "$root"/kernels/sm90/*.cuh; do
    name=${header#"$root"/}
    [ -f "$emu/$name" ] || python3 "$emu/translate.py" "$header" "$out/$name"
done
newest=$(find "$root/kernels" "$root/src/leaf" "$root/src/phase4" "$emu" \( -name '*.cuh' -o -name '*.h' -o -name translate.py \) \
    -exec ls -t {} + | head -n 1)

# is_old OBJECT SOURCE
is_old() {
    [ -n "$EMU_ALL" ] || [ ! -f "$1" ] || [ "$2" -nt "$1" ] || [ "$newest" -nt "$1" ]
}
# Commands, one a line, for as many processors as there are.
commands=$out/commands
: >"$commands"
objects=""
for f in "$root"/kernels/cuda/*.cu "$root"/kernels/sm90/*.cu "$root"/dist/*.cu; do
    name=${f#"$root"/}
    case $name in *_import.cu) continue ;; esac # the emulator is the library
    object=$out/${name%.cu}.o
    if is_old "$object" "$f"; then
        python3 "$emu/translate.py" "$f" "$out/${name%.cu}.cpp"
        echo "g++ $flags $cpp -c $out/${name%.cu}.cpp -o $object" >>"$commands"
    fi
    objects="$objects $object"
done
is_old "$out/emu.o" "$emu/emu.cpp" && echo "g++ $flags $cpp -c $emu/emu.cpp -o $out/emu.o" >>"$commands"
for f in "$root"/kernels/*.c "$root"/kernels/cpu/*.c "$root"/src/leaf/*.c; do
    name=${f#"$root"/}
    object=$out/host/$(echo "${name%.c}" | tr / _).o
    is_old "$object" "$f" && echo "gcc $flags $c -c $f -o $object" >>"$commands"
    objects="$objects $object"
done
xargs -P "$(nproc)" -I{} sh -c '{} || { echo "failed: {}" >&2; exit 255; }' <"$commands"
for f in ${EMU_TESTS:-"$root"/tests/test_ops*.c "$root"/tests/test_attention_choice.c}; do
    name=$(basename "$f" .c)
    gcc $flags $c -c "$f" -o "$out/$name.o"
    g++ $flags "$out/$name.o" $objects "$out/emu.o" -fopenmp -ldl -lm -lpthread -o "$out/$name"
done
