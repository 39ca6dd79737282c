#!/usr/bin/env bash
# Quantizing under the second moments of the inputs, on the demo's trained model: both rules come closer to the original
# than exact rounding, any number of ranks writes the same model, and training goes on from there.
set -eu
cd "$TMP"
"$PHASE4_DEMO" demo --stories 400 >/dev/null
cat >cfg.json <<JSON
{
  "model_path": "$FIXTURES/../../jobs/demo/model", "output_path": "unset", "wandb_enabled": false,
  "calibration_dataset": "custom", "calibration_files": ["demo/stories-train.jsonl"],
  "eval_files": ["demo/stories-valid.jsonl"], "eval_samples": 12, "calibration_samples": 30,
  "calibration_batch_size": 4, "calibration_sequence_length": 64, "threads_per_rank": 1, "fine_tune_threshold": 0,
  "fine_tune_max_steps": 3, "warmup_steps": 1, "enable_fine_tuning": false, "reconstruct": false
}
JSON
run() { # run NAME RANKS [key=value ...]
    local name=$1 ranks=$2
    shift 2
    "$MPIRUN" -n "$ranks" "$PHASE4_MPI" --quiet cfg.json output_path="$name" "$@" >"$name.out" 2>&1 || {
        cat "$name.out"
        exit 1
    }
}
# kl NAME: the mean KL to the original after quantizing.
kl() { awk '/"post_compression"/ {inside = 1} inside && /"kl"/ {gsub(/[",:]/, ""); print $2; exit}' "$1/results.json"; }

run exact 1 quantizer=exact
run gptq 1 quantizer=gptq
run gptq-cd 1 quantizer=gptq-cd
run gptq-cd3 3 quantizer=gptq-cd
cmp gptq-cd/dequantized_fp16/model.safetensors gptq-cd3/dequantized_fp16/model.safetensors
awk -v exact="$(kl exact)" -v gptq="$(kl gptq)" -v cd="$(kl gptq-cd)" 'BEGIN {
    if (!(cd > 0 && gptq < 0.8 * exact && cd < 0.8 * exact && cd != gptq)) {
        print "KL to the original: exact " exact ", gptq " gptq ", gptq-cd " cd
        exit 1
    }
}'
grep -q '"method":.*"gptq-cd"' gptq-cd/compression_metadata.json

# Nothing wanted of the widest projection, or of any.
run narrow 2 quantizer=gptq preserve_layers='["*down_proj*"]'
run kept 2 quantizer=gptq preserve_layers='["*proj*"]'
cmp narrow/dequantized_fp16/config.json gptq/dequantized_fp16/config.json

run tuned 2 quantizer=gptq enable_fine_tuning=true
grep -q '"steps":.*3,' tuned/results.json

status=0
"$PHASE4_MPI" --quiet cfg.json output_path=refused quantizer=gptq calibration_samples=0 >log 2>&1 || status=$?
[ $status = 2 ] && grep -q 'quantizer "gptq" needs the statistics of a calibration' log || {
    echo "status $status"
    cat log
    exit 1
}
