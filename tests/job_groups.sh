#!/usr/bin/env bash
# Two groups of ranks side by side in one mpirun, each with its own model and output directory, write the bytes that two runs
# of their own write; an error in one group ends that group's run alone.
set -eu
cd "$TMP"
"$PHASE4_DEMO" demo --stories 120 >/dev/null
common='"init": "random", "wandb_enabled": false, "calibration_dataset": "custom", "eval_samples": 4,
  "calibration_files": ["demo/stories-train.jsonl"], "eval_files": ["demo/stories-valid.jsonl"], "calibration_samples": 8,
  "calibration_batch_size": 2, "calibration_sequence_length": 32, "global_batch_tokens": 128, "fine_tune_threshold": 0,
  "fine_tune_max_steps": 4, "fine_tune_lr": 3e-3, "warmup_steps": 1, "log_every": 1, "threads_per_rank": 1, "num_workers": 1'
mkdir deep # another model than the demo's
cp demo/model/tokenizer* deep/
sed 's/"num_hidden_layers": 6/"num_hidden_layers": 9/' demo/model/config.json >deep/config.json
cfg() { # cfg FILE MODEL OUTPUT [key=value, as JSON members]
    echo "{\"model_path\": \"$2\", \"output_path\": \"$3\", ${4:-} $common}" >"$1"
}
cfg a.json demo/model out_a
cfg b.json deep out_b '"seed": 7, "zero_stage": 0,'
cfg a_alone.json demo/model alone_a
cfg b_alone.json deep alone_b '"seed": 7, "zero_stage": 0,'
"$MPIRUN" -n 4 "$TOOL_GROUPS" a.json b.json >groups.log 2>&1 || { cat groups.log; exit 1; }
for name in a b; do
    "$MPIRUN" -n 2 "$PHASE4_MPI" --quiet ${name}_alone.json >$name.log 2>&1 || { cat $name.log; exit 1; }
    cmp out_$name/dequantized_fp16/model.safetensors alone_$name/dequantized_fp16/model.safetensors
    "$TOOL_COMPARE" out_$name alone_$name bits 0
    "$TOOL_COMPARE" out_$name alone_$name losses 0
done
if cmp -s out_a/dequantized_fp16/model.safetensors out_b/dequantized_fp16/model.safetensors; then
    echo "both groups wrote the same model"
    exit 1
fi

# Group b's model is not there: its run fails with one message, group a's goes on to its end.
cfg b.json missing out_c
rm -rf out_a
status=0
"$MPIRUN" -n 4 "$TOOL_GROUPS" a.json b.json >failed.log 2>&1 || status=$?
if [ $status -ne 2 ] || ! grep -q 'tool_groups: b.json.*missing' failed.log || grep -q 'tool_groups: a.json' failed.log; then
    echo "status $status, expected 2 and the message of group b alone:"
    cat failed.log
    exit 1
fi
cmp out_a/dequantized_fp16/model.safetensors alone_a/dequantized_fp16/model.safetensors
