#!/bin/sh
# Builds the op tests with the CUDA column emulated on the CPU (one fibre a thread), for machines without a GPU:
#   tests/cuda_emulator/build.sh [compiler flags]     programs in $EMU_OUT (build/cuda_emulator); then check.sh
# It checks indices, reductions and races of order, not tensor-core rounding or speed: a GPU has the last word.
set -e
emu=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$emu/../.." && pwd)
out=${EMU_OUT:-$root/build/cuda_emulator}
mkdir -p "$out/kernels/cuda" "$out/kernels/sm90"
flags="-O1 -g -fno-strict-aliasing $*"
c="-std=c11 -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE -DP4_BUILDING -DP4_VERSION=\"x\" -DP4_CUDA -I$root -I$root/src -I$root/tests -fopenmp"
# The emulator's own headers come first, then the translated ones, then the tree's.
cpp="-std=gnu++17 -w -I$emu -I$out -I$root -isystem ${CUDA_HOME:-/usr/local/cuda}/include -include $emu/emu.h"
for header in "$root"/kernels/cuda/*.cuh "$root"/kernels/sm90/*.cuh; do
    name=${header#"$root"/}
    [ -f "$emu/$name" ] || python3 "$emu/translate.py" "$header" "$out/$name"
done
objects=""
for f in "$root"/kernels/cuda/*.cu "$root"/kernels/sm90/*.cu; do
    name=${f#"$root"/}
    case $name in *_import.cu) continue ;; esac # the emulator is the library
    object=$out/${name%.cu}.o
    if [ ! -f "$object" ] || [ "$f" -nt "$object" ] || [ "$root/kernels/cuda/cuda.cuh" -nt "$object" ] || [ -n "$EMU_ALL" ]; then
        python3 "$emu/translate.py" "$f" "$out/${name%.cu}.cpp"
        g++ $flags $cpp -c "$out/${name%.cu}.cpp" -o "$object"
    fi
    objects="$objects $object"
done
g++ $flags $cpp -c "$emu/emu.cpp" -o "$out/emu.o"
for f in "$root"/kernels/*.c "$root"/kernels/cpu/*.c "$root"/src/leaf/*.c; do
    object=$out/host_$(basename "$f" .c).o
    gcc $flags $c -c "$f" -o "$object"
    objects="$objects $object"
done
for f in ${EMU_TESTS:-"$root"/tests/test_ops*.c}; do
    name=$(basename "$f" .c)
    gcc $flags $c -c "$f" -o "$out/$name.o"
    g++ $flags "$out/$name.o" $objects "$out/emu.o" -fopenmp -ldl -lm -lpthread -o "$out/$name"
done
