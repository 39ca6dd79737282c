#!/bin/sh
# Builds the op tests with the CUDA column emulated on the CPU (one fibre a thread), for machines without a GPU:
#   tests/cuda_emulator/build.sh [compiler flags]     programs in $EMU_OUT (build/cuda_emulator); then check.sh
# It checks indices, reductions and races of order, not tensor-core rounding or speed: a GPU has the last word.
set -e
emu=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$emu/../.." && pwd)
here=$root/kernels
out=${EMU_OUT:-$root/build/cuda_emulator}
mkdir -p "$out"
flags="-O1 -g -fno-strict-aliasing $*"
c="-std=c11 -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE -DP4_BUILDING -DP4_VERSION=\"x\" -DP4_CUDA -I$root/src -I$root/kernels -I$root/tests -fopenmp"
cpp="-std=gnu++17 -w -I$emu -I$here -I$root/src -I$root/kernels -isystem ${CUDA_HOME:-/usr/local/cuda}/include -include $emu/emu.h"
for header in "$here"/*_cuda.cuh "$here"/cuda.cuh; do
    python3 "$emu/translate.py" "$header" "$out/$(basename "$header")"
done
objects=""
for f in "$here"/*_cuda.cu "$here"/*_cuda_90a.cu; do
    name=$(basename "$f" .cu)
    case $name in *_import_cuda) continue ;; esac # the emulator is the library
    if [ ! -f "$out/$name.o" ] || [ "$f" -nt "$out/$name.o" ] || [ "$here/cuda.cuh" -nt "$out/$name.o" ] || [ -n "$EMU_ALL" ]; then
        python3 "$emu/translate.py" "$f" "$out/$name.cpp"
        g++ $flags $(echo "$cpp" | sed "s#-I$here #-I$out -I$here #") -c "$out/$name.cpp" -o "$out/$name.o"
    fi
    objects="$objects $out/$name.o"
done
g++ $flags $cpp -c "$emu/emu.cpp" -o "$out/emu.o"
for f in "$root"/kernels/*.c "$root"/src/base.c "$root"/src/progress.c "$root"/src/tensor.c "$root"/src/arena.c "$root"/src/rng.c "$root"/src/import.c; do
    name=$(basename "$f" .c)
    gcc $flags $c -c "$f" -o "$out/$name.o"
    objects="$objects $out/$name.o"
done
for f in ${EMU_TESTS:-"$root"/tests/test_ops*.c}; do
    name=$(basename "$f" .c)
    gcc $flags $c -c "$f" -o "$out/$name.o"
    g++ $flags "$out/$name.o" $objects "$out/emu.o" -fopenmp -ldl -lm -lpthread -o "$out/$name"
done
