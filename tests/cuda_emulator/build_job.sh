#!/bin/sh
# Links whole programs of a build with the CUDA column emulated, for machines without a GPU:
#   EMU_TESTS=" " tests/cuda_emulator/build.sh        the emulated column
#   tests/cuda_emulator/build_job.sh BUILD [target...] phase4_mpi, test_net, ... of BUILD (Ninja, built with P4_CUDA) into $EMU_OUT
#   tests/cuda_emulator/check_job.sh                   and runs them, device memory closed to host code (EMU_GUARD)
set -e
emu=$(cd "$(dirname "$0")" && pwd)
build=$1
shift
out=${EMU_OUT:-$(cd "$emu/../.." && pwd)/build/cuda_emulator}
objects="$out/emu.o"
for f in "$out"/kernels/cuda/*.o "$out"/kernels/sm90/*.o "$out"/dist/*.o; do
    objects="$objects $f"
done
ninja -C "$build" ${*:-phase4_mpi phase4_batch test_net test_net_int8 test_api test_api_train} >/dev/null
for target in ${*:-phase4_mpi phase4_batch test_net test_net_int8 test_api test_api_train}; do
    # The build's own line, with the emulated objects before the libraries that hold the real ones, and no CUDA runtime.
    line=$(ninja -C "$build" -t commands "$target" | tail -n 1 | tr ' ' '\n' | grep -v -e cudart_static -e cudadevrt | tr '\n' ' ')
    line=$(echo "$line" | sed -e "s#-o [^ ]*$target#-o $out/$target#" -e "s#libp4_jobs.a#$objects libp4_jobs.a#" -e 's# && : *$# -lstdc++ \&\& :#')
    (cd "$build" && eval "$line")
done
