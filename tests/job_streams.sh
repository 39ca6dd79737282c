#!/usr/bin/env bash
# Standard streams that take nothing, and limits of the shell: the run goes on where it can, and says what it could not do.
set -u
. "$(dirname "$0")/held.sh"
cd "$TMP"
failures=0
for ((i = 0; i < 400; i++)); do printf "\\$(printf %o $((i % 40)))\\000"; done >ids.bin
cat >cfg.json <<JSON
{"model_path": "$FIXTURES/models/llama-gqa", "output_path": "out", "overwrite": true, "wandb_enabled": false,
 "calibration_dataset": "custom", "calibration_files": ["ids.bin"], "eval_files": ["ids.bin"], "calibration_sequence_length": 12,
 "eval_samples": 4, "calibration_samples": 4, "enable_fine_tuning": false, "threads_per_rank": 1}
JSON
# Open MPI's shared memory, and what it starts for a single process, are not what is limited here.
export OMPI_MCA_btl=self OMPI_MCA_pml=ob1 OMPI_MCA_ess_singleton_isolated=1

# ends NAME STATUS WORDS COMMAND: COMMAND, which ends with STATUS, leaves WORDS in the file log
ends() {
    local name=$1 expected=$2 words=$3 command=$4 status
    rm -rf out log
    timeout 600 bash -c "$command" # a hang
    status=$?
    if [ $status -ne "$expected" ] || ! grep -qF -- "$words" log; then
        echo "$name: status $status, expected $expected and \"$words\"; got:"
        cat log
        failures=$((failures + 1))
    fi
}
succeeded() {
    grep -q '"success":[[:space:]]*true' out/results.json && return
    echo "$1: the run did not go on to its end"
    failures=$((failures + 1))
}

unwritten='standard output did not take all that was written'
ends full 1 "$unwritten" '"$PHASE4_MPI" cfg.json >/dev/full 2>log'
succeeded full
ends closed 1 "$unwritten" '"$PHASE4_MPI" cfg.json 2>log >&-'
succeeded closed
ends 'closed input' 0 'Verdict' '"$PHASE4_MPI" -q cfg.json >log 2>&1 <&-'
ends help 1 "$unwritten" '"$PHASE4_MPI" --help >/dev/full 2>log'
# Who has read enough is no error, as behind head: the reader has ended before anything is written.
ends head 0 quiet 'exec 3> >(:); wait $!; "$PHASE4_MPI" --help >&3 2>log; status=$?; [ -s log ] || echo quiet >log; exit $status'
# The reader has ended when the run goes on behind its first evaluation.
hold_at 1 '"kind":"evaluation"' /metrics.jsonl
export held="${hold[*]}"
ends reader 0 '[1/' '$held "$PHASE4_MPI" cfg.json 2>&1 | { sed "/^\\[1\\//q" >log; exec <&-; : >go; }; exit ${PIPESTATUS[0]}'
succeeded reader
ends 'file size' 2 'File too large' 'ulimit -f 4; "$PHASE4_MPI" -q cfg.json 2>&1 | cat >log; exit ${PIPESTATUS[0]}'
[ $failures = 0 ]
