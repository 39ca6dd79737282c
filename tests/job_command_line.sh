#!/usr/bin/env bash
# What the command line asks for beside a run, on 1 and on 2 ranks: one answer, however many are started, and every rank ends with
# the same status.
set -u
cd "$TMP"
failures=0
cat >cfg.json <<JSON
{"model_path": "$FIXTURES/models/llama-gqa", "output_path": "out", "calibration_dataset": "custom", "calibration_files": ["ids.bin"]}
JSON
mkdir apart

# asked RANKS STATUS LINES WORDS ARGUMENT...: every rank ends with STATUS, and LINES lines of all they say hold WORDS. WHERE is
# the command that a rank runs first.
asked() {
    local ranks=$1 status=$2 lines=$3 words=$4 rank
    shift 4
    rm -f "$TMP"/status.*
    # shellcheck disable=SC2016
    timeout 60 "$MPIRUN" -n "$ranks" bash -c "${WHERE:-:}"'; "$PHASE4_MPI" "$@"; echo $? >"$TMP/status.$OMPI_COMM_WORLD_RANK"' \
        rank "$@" >log 2>&1
    for ((rank = 0; rank < ranks; rank++)); do
        if [ "$(cat "$TMP/status.$rank" 2>/dev/null)" != "$status" ]; then
            echo "$*: rank $rank of $ranks ends with $(cat "$TMP/status.$rank"), expected $status; all said:"
            cat log
            failures=$((failures + 1))
        fi
    done
    if [ "$(grep -cF -- "$words" log)" != "$lines" ]; then
        echo "$*, $ranks ranks: expected \"$words\" in $lines lines of:"
        cat log
        failures=$((failures + 1))
    fi
}

for ranks in 1 2; do
    asked $ranks 0 1 'Usage: phase4_mpi' --help
    asked $ranks 0 1 'phase4_mpi ' --version
    asked $ranks 0 1 'cfg.json: valid' --validate cfg.json
    asked $ranks 2 1 'phase4: error: command line: key "seed": found "many"' --validate cfg.json seed=many
    asked $ranks 2 1 'phase4: error' --validate cfg.json seed=many
    asked $ranks 2 1 'phase4: error: unknown option' --valdate cfg.json
    # No verdict to be strict about: refused before the work.
    asked $ranks 0 1 'cfg.json: valid' --validate --strict cfg.json
    asked $ranks 2 1 'phase4: error: --strict asks for a verdict, but eval_samples is 0' --validate --strict cfg.json eval_samples=0
    asked $ranks 2 1 'phase4: error: --strict asks for a verdict, but eval_samples is 0' --strict cfg.json eval_samples=0
done
# The first rank reads the configuration, for a run and for its check: a file that only it sees will do, one that it does not
# see will not.
# shellcheck disable=SC2016
WHERE='[ $OMPI_COMM_WORLD_RANK = 0 ] || cd apart' asked 2 0 1 'cfg.json: valid' --validate cfg.json
# shellcheck disable=SC2016
WHERE='[ $OMPI_COMM_WORLD_RANK = 1 ] || cd apart' asked 2 2 1 'phase4: error: cfg.json: cannot be opened' --validate cfg.json
# Another rank than the first fails.
P4_INJECT_FAILURE=1,1 asked 2 1 1 'phase4: error' --validate cfg.json

# Without a launcher there is no MPI in it: one that cannot start changes nothing.
said=$(OMPI_MCA_btl=none "$PHASE4_MPI" --validate cfg.json 2>&1) && [ "$said" = 'cfg.json: valid' ] || {
    echo "--validate without MPI: $said"
    failures=$((failures + 1))
}

echo "$failures failures"
[ $failures = 0 ]
