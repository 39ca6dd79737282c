#!/usr/bin/env bash
# A failure injected at every agreement of a whole run, on one rank and then on another: the job ends, with the status of a
# fault (1) and one message; nothing hangs. The run without an injection passes at the end, so every agreement was hit.
set -u
cd "$TMP"
"$PHASE4_DEMO" demo --stories 60 >/dev/null || exit 1
cat >cfg.json <<JSON
{
  "model_path": "demo/model", "output_path": "out", "init": "random", "overwrite": true, "wandb_enabled": false,
  "calibration_dataset": "custom", "calibration_files": ["demo/stories-train.jsonl"],
  "eval_files": ["demo/stories-valid.jsonl"], "eval_samples": 2, "calibration_samples": 4,
  "calibration_batch_size": 2, "calibration_sequence_length": 32, "fine_tune_threshold": 0,
  "fine_tune_max_steps": 1, "warmup_steps": 0, "log_every": 1, "threads_per_rank": 1, "num_workers": 1
}
JSON
ranks=3
agreement=1
while :; do
    rank=$((agreement % ranks))
    rm -rf out
    timeout 60 env P4_INJECT_FAILURE=$agreement,$rank "$MPIRUN" -n $ranks "$PHASE4_MPI" --quiet cfg.json >log 2>&1
    status=$?
    [ $status -ne 0 ] || break
    want="injected failure at agreement $agreement on rank $rank"
    if [ $status -ne 1 ] || [ "$(grep -c "phase4: error: $want" log)" != 1 ] || [ "$(grep -c 'phase4: error' log)" != 1 ]; then
        echo "agreement $agreement on rank $rank: status $status, expected 1 and one message \"$want\"; got:"
        cat log
        exit 1
    fi
    if [ -e out/model.h5.tmp ] || { [ -e out/results.json ] && ! grep -q '"success":[[:space:]]*false' out/results.json; }; then
        echo "agreement $agreement: something half-written is left:"
        ls -R out
        exit 1
    fi
    agreement=$((agreement + 1))
done
echo "$((agreement - 1)) agreements, each failed once"
[ $agreement -gt 20 ] || { echo "too few agreements to be the whole run"; cat log; exit 1; }
