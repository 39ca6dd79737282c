#!/usr/bin/env bash
# What the command line can ask for besides a run, on 1 and on 2 ranks: one answer, however many ranks are started, and every
# rank ends with the same status.
set -eu
. "$(dirname "$0")/job.sh"
cd "$TMP"
cat >cfg.json <<JSON
{"model_path": "$FIXTURES/models/llama-gqa", "output_path": "out", "calibration_dataset": "custom", "calibration_files": ["ids.bin"]}
JSON

# answered STATUS WORDS RANKS COMMAND...: every rank ends with STATUS, and one line of what they print holds WORDS.
answered() {
    local expected=$1 words=$2 status=0
    shift 2
    cp "$TMP/cfg.json" .
    on_ranks "$@" || status=$?
    [ $status = "$expected" ] || complain "${*:3}, $1 ranks: status $status, expected $expected"
    [ "$(grep -cF -- "$words" log)" = 1 ] || complain "${*:3}, $1 ranks: expected \"$words\" in one line"
}

# --help has each exit status that the table of docs/running.md gives to the program.
statuses() { # statuses TEXT: those that --help lists
    awk '/^Exit status:/ {on = 1; next} on {print $1}' <<<"$1" | xargs
}
listed() { # listed PROGRAM STATUS...
    local found
    found=$(statuses "$("$1" --help)")
    [ "$found" = "${*:2}" ] || complain "$(basename "$1") --help lists the statuses $found, expected ${*:2}"
}
listed "$PHASE4_MPI" 0 1 2 3 4 75 130
listed "$PHASE4_BATCH" 0 1 2 3 4 5 75 130
listed "$PHASE4_EVALUATE" 0 1 2 3
listed "$PHASE4_GENERATE" 0 1 2
listed "$PHASE4_EXPORT" 0 1 2
listed "$PHASE4_INSPECT" 0 1 2 5

for ranks in 1 2; do
    asked=("$ranks" "$PHASE4_MPI")
    spawn answered 0 'Usage: phase4_mpi' "${asked[@]}" --help
    spawn answered 0 '  seed  ' "${asked[@]}" --help seed
    spawn answered 2 'phase4: error: --help: unknown key "sede", the nearest known key is "seed"' "${asked[@]}" --help sede
    spawn answered 0 'phase4_mpi ' "${asked[@]}" --version
    spawn answered 0 '  llama ' "${asked[@]}" --families
    spawn answered 0 'cfg.json: valid' "${asked[@]}" --validate cfg.json
    spawn answered 2 'phase4: error: command line: key "seed": found "many"' "${asked[@]}" --validate cfg.json seed=many
    spawn answered 2 'phase4: error' "${asked[@]}" --validate cfg.json seed=many
    spawn answered 2 'phase4: error: unknown option' "${asked[@]}" --valdate cfg.json
    # No verdict can be given: refused before the work.
    no_verdict='phase4: error: --strict asks for a verdict, but eval_samples is 0'
    spawn answered 0 'cfg.json: valid' "${asked[@]}" --validate --strict cfg.json
    spawn answered 2 "$no_verdict" "${asked[@]}" --validate --strict cfg.json eval_samples=0
    spawn answered 2 "$no_verdict" "${asked[@]}" --strict cfg.json eval_samples=0
done

# The first rank reads the configuration, for a run as for --validate: a file that it alone sees is enough, one that it does not
# see is not.
seen_by() { # seen_by RANK ARGUMENT...: runs the program where the other ranks do not see cfg.json
    local rank=$1
    shift
    mkdir -p apart
    [ "$OMPI_COMM_WORLD_RANK" = "$rank" ] || cd apart
    "$PHASE4_MPI" "$@"
}
export -f seen_by
spawn answered 0 'cfg.json: valid' 2 bash -c 'seen_by 0 "$@"' seen_by --validate cfg.json
spawn answered 2 'phase4: error: cfg.json: cannot be opened' 2 bash -c 'seen_by 1 "$@"' seen_by --validate cfg.json

# Another rank than the first fails.
rank_1_fails() {
    P4_INJECT_FAILURE=1,1 answered 1 'phase4: error' 2 "$PHASE4_MPI" --validate cfg.json
}
spawn rank_1_fails

# Without a launcher --validate does not start MPI: an MPI that cannot start changes nothing.
no_mpi() {
    OMPI_MCA_pml=none "$PHASE4_MPI" --validate "$TMP/cfg.json" >log 2>&1 || complain '--validate without MPI'
    [ "$(cat log)" = "$TMP/cfg.json: valid" ] || complain '--validate without MPI'
}
spawn no_mpi
join
