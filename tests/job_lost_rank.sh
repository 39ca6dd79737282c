#!/usr/bin/env bash
# A rank that is lost ends the job, with a message, and soon: one that does not come to a sum (the deadline ends it), for each
# backend of the collectives, and one that is killed in a training step.
set -eu
cd "$TMP"
fail() { echo "job_lost_rank: $*"; exit 1; }

for backend in mpi nccl; do
    started=$SECONDS status=0
    timeout -k 5 180 "$MPIRUN" -n 2 "$MPI_COLL" lost $backend >lost.log 2>&1 || status=$?
    if grep -q "^$backend is skipped" lost.log; then
        grep -m1 "^$backend is skipped" lost.log
        continue
    fi
    [ "$status" != 0 ] && [ "$status" != 124 ] && [ "$status" != 137 ] || fail "$backend: status $status: $(cat lost.log)"
    grep -q 'rank 0: .*no answer from the other ranks within 2 s (collective_timeout_s)' lost.log ||
        fail "$backend: no message: $(cat lost.log)"
    [ "$((SECONDS - started))" -le 60 ] || fail "$backend: took $((SECONDS - started)) s"
done

"$PHASE4_DEMO" demo --stories 400 >/dev/null
cat >cfg.json <<JSON
{
  "model_path": "demo/model", "output_path": "killed", "init": "random", "quantizer": "none", "wandb_enabled": false,
  "calibration_dataset": "custom", "calibration_files": ["demo/stories-train.jsonl"],
  "eval_files": [], "eval_samples": 0, "calibration_samples": 0,
  "calibration_batch_size": 4, "calibration_sequence_length": 64, "fine_tune_epochs": 10000, "log_every": 1,
  "threads_per_rank": 1, "num_workers": 2
}
JSON
"$MPIRUN" -n 2 "$PHASE4_MPI" cfg.json >killed.log 2>&1 &
job=$!
ranks() { pgrep -P "$job" -f "$PHASE4_MPI" || true; }
for _ in $(seq 600); do
    [ -s killed/metrics.jsonl ] && [ "$(ranks | wc -l)" = 2 ] && break
    kill -0 "$job" 2>/dev/null || fail "the run to be killed has ended: $(cat killed.log)"
    sleep 0.1
done
victim=$(ranks | tail -n 1)
[ -n "$victim" ] || fail "no rank to kill: $(cat killed.log)"
kill -9 "$victim"
started=$SECONDS status=0
wait "$job" || status=$?
[ "$status" != 0 ] || fail "a run whose rank was killed ended with status 0"
[ "$((SECONDS - started))" -le 30 ] || fail "took $((SECONDS - started)) s to end after its rank was killed"
grep -qi 'signal 9\|killed' killed.log || fail "nobody says that a rank was killed: $(tail killed.log)"
[ ! -e killed/model.h5 ] || fail "the killed run left a model.h5"
