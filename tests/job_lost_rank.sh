#!/usr/bin/env bash
# A rank that is lost ends the job, with a message: one that does not come to a sum or an agreement (the deadline ends the job),
# one that is killed in a step of fine-tuning or of reconstruction, and one that stops in a step but lives, wherever it was. With
# P4_TEST_DEVICE=cuda on two GPUs, through NCCL; skipped where there are fewer.
set -eu
. "$(dirname "$0")/job.sh"
cd "$TMP"
device=${P4_TEST_DEVICE:-cpu} backend=mpi
SLOTS=4 # these runs wait most of the time
[ "$device" = cpu ] || backend=nccl SLOTS=1 # each takes both GPUs

lost() { # lost sum|reach|agreement: the last rank sleeps for good instead of coming to it
    local status=0
    timeout -k 5 "$HANG_S" "$MPIRUN" -n 2 "$MPI_COLL" lost $backend "$1" >log 2>&1 || status=$?
    if grep -m1 "^$backend is skipped" log; then
        : >"$TMP/skipped"
        return
    fi
    case $status in 0 | 124 | 137) complain "$backend $1: status $status" ;; esac
    grep -q 'rank 0 on .*: .*no answer from the other ranks within 2 s (collective_timeout_s)' log || complain "$backend $1: no message"
}

demo
trained=$(cd "$(dirname "$0")/../jobs/demo/model" && pwd)
cat >reconstruct.json <<JSON
{
  "model_path": "$trained", "output_path": "out", "wandb_enabled": false, "device": "$device", "collective_timeout_s": 10,
  "calibration_dataset": "custom", "calibration_files": ["$TMP/demo/stories-train.jsonl"],
  "eval_files": [], "eval_samples": 0, "calibration_samples": 64, "calibration_batch_size": 4, "calibration_sequence_length": 32,
  "reconstruct_steps": 100000000, "enable_fine_tuning": false, "threads_per_rank": 1, "num_workers": 2
}
JSON
cat >train.json <<JSON
{
  "model_path": "$TMP/demo/model", "output_path": "out", "init": "random", "quantizer": "none", "wandb_enabled": false,
  "device": "$device", "collective_timeout_s": 10,
  "calibration_dataset": "custom", "calibration_files": ["$TMP/demo/stories-train.jsonl"],
  "eval_files": [], "eval_samples": 0, "calibration_samples": 0,
  "calibration_batch_size": 4, "calibration_sequence_length": 64, "fine_tune_epochs": 10000, "log_every": 1,
  "threads_per_rank": 1, "num_workers": 2
}
JSON
trains() { # trains train|reconstruct: has the first step begun?
    case $1 in
    train) grep -qs '"kind":"train"' out/metrics.jsonl ;;
    reconstruct) grep -qs 'steps per ' log ;;
    esac
}
# lose SIGNAL MESSAGE train|reconstruct: the last rank of a run gets the signal once it trains; the job ends, and one line holds MESSAGE
# (a pattern).
lose() {
    local job victim started=$SECONDS status=0
    "$MPIRUN" -n 2 "$PHASE4_MPI" "$TMP/$3.json" >log 2>&1 &
    job=$!
    end_job() { pkill -9 -P "$job" || true; kill -9 "$job" || true; }
    ranks() { pgrep -P "$job" -f "$PHASE4_MPI" || true; }
    until trains "$3" && [ "$(ranks | wc -l)" = 2 ]; do
        kill -0 "$job" 2>/dev/null || complain "the run that was to get $1 has ended"
        [ $((SECONDS - started)) -lt "$HANG_S" ] || { end_job; complain "no training within $HANG_S s"; }
        sleep 0.1
    done
    victim=$(ranks | tail -n 1)
    [ "$device" = cpu ] || grep -q 'GiB' log || complain 'no GPU is used'
    kill "-$1" "$victim"
    started=$SECONDS
    while kill -0 "$job" 2>/dev/null; do
        [ $((SECONDS - started)) -lt "$HANG_S" ] || { end_job; complain "the job has not ended $HANG_S s after $1"; }
        sleep 0.1
    done
    wait "$job" || status=$?
    kill -9 "$victim" 2>/dev/null || true
    [ $status != 0 ] || complain "a run whose rank got $1 ended with status 0"
    [ ! -e out/model.h5 ] || complain "the run whose rank got $1 left a model.h5"
    grep -qi "$2" log || complain "$1: no line with \"$2\""
    echo "a rank that got $1: the job ended after $((SECONDS - started)) s with status $status"
}
for what in sum reach agreement; do
    spawn lost $what
done
join
[ ! -e skipped ] || exit 77

for stage in train reconstruct; do
    spawn lose KILL 'signal 9\|killed' $stage
    for _ in 1 2 3; do # each at another moment: the others wait for a sum of the step, or for an agreement behind it
        spawn lose STOP 'no answer from the other ranks within 10 s (collective_timeout_s)\|has not run for 10 s (collective_timeout_s)' $stage
    done
done
join
