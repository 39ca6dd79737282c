# shellcheck shell=bash
# What the demo's scripts share; read with `.` from the project's folder. Installs what is missing, builds,
# makes the demo data in build/demo, and defines run_ranks.

# quietly LOG COMMAND...: shows the output only when the command fails.
quietly() {
    local log=$1
    shift
    if ! "$@" >>"$log" 2>&1; then
        tail -n 40 "$log" >&2
        echo "failed: $* (all of its output is in $PWD/$log)" >&2
        return 1
    fi
}

# run_ranks COUNT PROGRAM...: mpirun on this machine, also as root, also in a container, also on fewer cores.
run_ranks() {
    local count=$1
    shift
    if [ "$(id -u)" = 0 ]; then
        export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    fi
    export OMPI_MCA_btl_vader_single_copy_mechanism=none # containers forbid it and Open MPI would say so
    mpirun -n "$count" --oversubscribe --bind-to none "$@"
}

tests/setup.sh build
mkdir -p build/demo
: >build/demo/build.log
echo "building phase4 (build/release)"
quietly build/demo/build.log cmake --preset release
quietly build/demo/build.log cmake --build --preset release --target phase4_mpi phase4_demo
if ! [ build/demo/model/config.json -nt build/release/phase4_demo ]; then # the last file that it writes
    echo "making the demo's stories and tokenizer (build/demo)"
    build/release/phase4_demo build/demo
fi
