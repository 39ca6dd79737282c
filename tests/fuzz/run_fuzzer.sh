#!/usr/bin/env bash
# run_fuzzer.sh PROGRAM CORPUS SECONDS: runs a libFuzzer program over its kept corpus, then SECONDS on inputs of its
# own. What it finds new stays in a folder that is gone afterwards; an input that breaks it is printed and kept in
# ./fuzz-findings. A dictionary beside the corpus (CORPUS.dict) is used. P4_FUZZ_SEED=NUMBER: other inputs than those of seed 1.
set -eu
program=$1
corpus=$2
seconds=$3
[ -d "$corpus" ] && [ -n "$(ls -A "$corpus")" ] || { echo "no corpus in $corpus: a fuzzer needs seeds"; exit 1; }
found=$(mktemp -d "${TMPDIR:-/tmp}/phase4-fuzz.XXXXXX")
trap 'rm -rf "$found"' EXIT
mkdir -p fuzz-findings
options=("-seed=${P4_FUZZ_SEED:-1}" -timeout=100 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 -verbosity=0)
options+=("-artifact_prefix=$PWD/fuzz-findings/$(basename "$program")-")
[ ! -f "$corpus.dict" ] || options+=("-dict=$corpus.dict")
export ASAN_OPTIONS=${ASAN_OPTIONS:-allocator_may_return_null=1}
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
"$program" "${options[@]}" -runs=0 "$corpus"
"$program" "${options[@]}" "-max_total_time=$seconds" "$found" "$corpus"
