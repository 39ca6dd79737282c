#!/usr/bin/env bash
# Two groups of ranks side by side in one mpirun, each with its own model and output directory, write the bytes that two runs
# of their own write; an error in one group ends that group's run alone.
set -eu
. "$(dirname "$0")/job.sh"
cd "$TMP"
demo
model six "${SMALL[@]}"
model nine "${SMALL[@]}" num_hidden_layers=9
cfg() { # cfg FILE MODEL OUTPUT [key=value, as JSON members]
    cat >"$1" <<JSON
{
  "model_path": "$TMP/$2", "output_path": "$TMP/$3", ${4:-} "init": "random", "wandb_enabled": false,
  "calibration_dataset": "custom", "calibration_files": ["$TMP/demo/stories-train.jsonl"],
  "eval_files": ["$TMP/demo/stories-valid.jsonl"], "eval_samples": 4, "calibration_samples": 8, "calibration_batch_size": 2,
  "calibration_sequence_length": 32, "global_batch_tokens": 128, "fine_tune_threshold": 0, "quantizer": "exact", "fine_tune_max_steps": 4,
  "fine_tune_lr": 3e-3, "warmup_steps": 1, "log_every": 1, "threads_per_rank": 1, "num_workers": 1
}
JSON
}
# Seeds with which quantizing the random weights raises the perplexity: otherwise nothing would be fine-tuned.
cfg a.json six out_a '"seed": 2,'
cfg b.json nine out_b '"seed": 8, "zero_stage": 0,'
cfg a_alone.json six alone_a '"seed": 2,'
cfg b_alone.json nine alone_b '"seed": 8, "zero_stage": 0,'
# Group a as above; group b's model is not there.
cfg a_again.json six again_a '"seed": 2,'
cfg b_missing.json missing out_c

run() { # run RANKS COMMAND...
    "$MPIRUN" -n "$@" >log 2>&1 || complain "$*: failed"
}
b_fails() {
    local status=0
    "$MPIRUN" -n 4 "$TOOL_GROUPS" "$TMP/a_again.json" "$TMP/b_missing.json" >log 2>&1 || status=$?
    [ $status = 2 ] && grep -q 'tool_groups: .*b_missing.json.*missing' log && ! grep -q 'tool_groups: .*a_again.json' log ||
        complain "status $status, expected 2 and the message of group b alone"
}
spawn run 4 "$TOOL_GROUPS" "$TMP/a.json" "$TMP/b.json"
spawn run 2 "$PHASE4_MPI" --quiet "$TMP/a_alone.json"
spawn run 2 "$PHASE4_MPI" --quiet "$TMP/b_alone.json"
spawn b_fails
join

for name in a b; do
    cmp out_$name/dequantized_fp16/model.safetensors alone_$name/dequantized_fp16/model.safetensors
    "$TOOL_COMPARE" out_$name alone_$name bits 0
    "$TOOL_COMPARE" out_$name alone_$name losses 0
    grep -q '"steps":[[:space:]]*4,' out_$name/results.json || { echo "group $name did not fine-tune"; exit 1; }
done
cmp again_a/dequantized_fp16/model.safetensors alone_a/dequantized_fp16/model.safetensors
if cmp -s out_a/dequantized_fp16/model.safetensors out_b/dequantized_fp16/model.safetensors; then
    echo "both groups wrote the same model"
    exit 1
fi
