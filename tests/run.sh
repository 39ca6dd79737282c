#!/usr/bin/env bash
# Installs what is missing, builds phase4 with its tests and runs them. The last line is "N passed, N failed" (and
# "N skipped" where a test could not run here; it says why); the exit status is 0 when nothing failed.
#
#   tests/run.sh              everything but the clients
#   tests/run.sh -L clients   what a run writes, in the programs that read it, which are installed with pip
#   tests/run.sh -L unit      with options of CTest: one label (unit, mpi, job, gpu, slurm, package, source, fuzz), -R NAME, ...
#                             (the fuzzers are built only when an option names them)
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$(readlink -f "$0")")/.."
mkdir -p build
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
broken=0 # builds that failed

tests/setup.sh build test

# run_preset NAME [options of ctest]: configures, builds and tests; CTest's account goes to $results/NAME.xml.
run_preset() {
    local preset=$1 log=build/$1.log
    shift
    echo "== $preset: build"
    if ! { cmake --preset "$preset" && cmake --build --preset "$preset" -- -k 0; } >"$log" 2>&1; then
        grep -E -A 8 'error|undefined reference|CMake Error|^FAILED' "$log" | head -n 120
        echo "== $preset: the build failed; all of it is in $PWD/$log"
        broken=$((broken + 1))
        return
    fi
    echo "== $preset: tests"
    ctest --preset "$preset" -j "$(nproc)" --no-tests=ignore --output-junit "$results/$preset.xml" "$@" ||
        true # counted below, from the account
    if [ ! -s "$results/$preset.xml" ]; then
        echo "== $preset: ctest left no account of its tests"
        broken=$((broken + 1))
    fi
}

[ $# -gt 0 ] || set -- -LE clients
run_preset ci "$@"
case "$*" in
'-LE clients' | *fuzz*) run_preset fuzz "$@" ;;
esac

# count ATTRIBUTE: its sum over the <testsuite> elements; one attribute stands on each line.
count() {
    cat "$results"/*.xml 2>/dev/null | sed -n "s/^[[:space:]]*$1=\"\([0-9]*\)\".*/\1/p" | awk '{n += $1} END {print n + 0}'
}
skipped=$(($(count skipped) + $(count disabled)))
failed=$(($(count failures) + broken))
passed=$(($(count tests) - $(count failures) - skipped))
if [ "$passed" -eq 0 ] && [ "$failed" -eq 0 ]; then
    echo "no test was run"
    failed=1
fi
summary="$passed passed, $failed failed"
[ "$skipped" -eq 0 ] || summary="$summary, $skipped skipped"
echo "$summary"
[ "$failed" -eq 0 ]
