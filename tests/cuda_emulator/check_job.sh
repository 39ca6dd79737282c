#!/bin/sh
# Runs what build_job.sh has linked, with device memory closed to host code: the tests of the network and of phase4.h (these
# run a whole job too), and lost_gpu.sh. Minutes.
set -e
emu=$(cd "$(dirname "$0")" && pwd)
out=${EMU_OUT:-$(cd "$emu/../.." && pwd)/build/cuda_emulator}
export EMU_GUARD=1 P4_NEED_GPU=1 P4_TEST_DEVICE=cuda OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
for t in ${*:-test_api test_api_train test_net test_net_int8 lost_gpu}; do
    echo "== $t"
    case $t in
    lost_gpu) bash "$emu/lost_gpu.sh" "$out" ;;
    *) "$out/$t" ;;
    esac
done
