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

# build LOG TARGET...: builds in build/release and shows how far ninja is: on a terminal in one line, else every 15 s. The rest
# of its output goes to LOG.
build() {
    local log=$1 shown=-15 started=$SECONDS line
    shift
    while IFS= read -r line; do
        printf '%s\n' "$line" >>"$log"
        if [[ $line == \[*/*\]* ]]; then
            if [ -t 2 ]; then
                printf '\r\033[K  %s' "${line%%\]*}], $((SECONDS - started)) s" >&2
            elif [ $((SECONDS - shown)) -ge 15 ]; then
                shown=$SECONDS
                echo "  ${line%%\]*}], $((SECONDS - started)) s" >&2
            fi
        fi
    done < <(NINJA_STATUS='[%f/%t] ' cmake --build --preset release --target "$@" 2>&1 && echo 'built')
    [ ! -t 2 ] || printf '\r\033[K' >&2
    if [ "$(tail -n 1 "$log")" != built ]; then
        tail -n 40 "$log" >&2
        echo "failed: the build (all of its output is in $PWD/$log)" >&2
        return 1
    fi
    echo "  built in $((SECONDS - started)) s"
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
quietly build/demo/build.log cmake --preset release
if grep -q 'CUDA backend: on' build/demo/build.log; then
    echo 'building phase4 in build/release with the CUDA kernels: 10 minutes or more on 2 cores'
    echo '  the demo runs without them; to leave them out: Ctrl-C, cmake --preset release -DP4_CUDA=OFF, and the same command again'
else
    echo 'building phase4 in build/release: 2 minutes on 2 cores'
fi
build build/demo/build.log phase4_mpi phase4_demo phase4_generate
if ! [ build/demo/model/config.json -nt build/release/phase4_demo ]; then # the last file that it writes
    echo "making the demo's stories and tokenizer (build/demo)"
    build/release/phase4_demo build/demo
fi
