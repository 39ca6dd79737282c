#!/usr/bin/env bash
# check.sh [WORK_DIR]: dist/coll_nccl*.c and what trains through them, with CUDA and NCCL emulated on the CPU
# (emu*.c), for machines without a GPU: the test of the collectives, the runs on 1 to 4 ranks that must agree, a rank that is lost,
# with sums by copy engines and by NCCL. It checks order and deadlines: an array that is overwritten before its sum is done gives
# other results. Speed and NCCL itself: a GPU has the last word.
set -eu
here=$(dirname "$(readlink -f "$0")")
root=$(readlink -f "$here/../..")
work=${1:-$root/build/nccl_emulator}
mkdir -p "$work"
cmake -S "$root" -B "$work" -G Ninja -DCMAKE_BUILD_TYPE=Release -DP4_CUDA=OFF >/dev/null
cmake --build "$work" --target phase4_mpi mpi_coll mpi_reconstruct phase4_demo tool_cases tool_compare tool_groups | tail -n 1

flags=(-O2 -std=gnu11 -DP4_LANDING_BYTES=65536 -DP4_BUILDING -DP4_VERSION='"emulated"' -D_DEFAULT_SOURCE -D_POSIX_C_SOURCE=200809L -I"$root"
       -isystem "${CUDA_HOME:-/usr/local/cuda}/include")
objects=()
for source in "$here"/emu*.c "$root"/dist/coll_nccl*.c; do
    object=$work/emu/$(basename "$source" .c).o
    mkdir -p "$work/emu"
    cc "${flags[@]}" -c "$source" -o "$object"
    objects+=("$object")
done
relink() { # relink TARGET OUTPUT: the target's link command with the emulator's objects before the libraries
    local command
    command=$(ninja -C "$work" -t commands "$1" | tail -n 1)
    command=${command#: && }
    command=${command% && :}
    command=$(sed "s#-o $1 #-o $2 ${objects[*]} -pthread #" <<<"$command")
    (cd "$work" && eval "$command")
}
relink phase4_mpi "$work/emu/phase4_mpi"
relink tests/mpi_coll "$work/emu/mpi_coll"
relink tests/mpi_reconstruct "$work/emu/mpi_reconstruct"
relink tests/tool_groups "$work/emu/tool_groups"

export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 \
    OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_mpi_yield_when_idle=1 \
    OMPI_MCA_btl_vader_single_copy_mechanism=none FIXTURES=$root/tests/fixtures MPIRUN=${MPIRUN:-mpirun} \
    PHASE4_MPI=$work/emu/phase4_mpi MPI_COLL=$work/emu/mpi_coll TOOL_GROUPS=$work/emu/tool_groups PHASE4_DEMO=$work/phase4_demo TOOL_COMPARE=$work/tests/tool_compare \
    TOOL_CASES=$work/tests/tool_cases
failed=0
run() { # run NAME COMMAND...
    local name=$1
    shift
    if "$@" >"$work/emu/$name.log" 2>&1; then
        echo "$name passed"
    else
        echo "$name FAILED: $work/emu/$name.log"
        failed=1
    fi
}
for sums in copies nccl; do
    export P4_GPU_SUMS=$sums
    for ranks in 2 3 4; do
        run collectives.$sums.$ranks timeout 300 "$MPIRUN" -n $ranks "$MPI_COLL"
        run reconstruct.$sums.$ranks timeout 900 "$MPIRUN" -n $ranks "$work/emu/mpi_reconstruct"
    done
    run lost_rank.$sums bash "$root/tests/with_tmp.sh" bash "$root/tests/job_lost_rank.sh"
    run groups.$sums bash "$root/tests/with_tmp.sh" bash "$root/tests/job_groups.sh"
    run ranks.$sums bash "$root/tests/with_tmp.sh" bash "$root/tests/job_ranks.sh"
done
exit $failed
