#!/usr/bin/env bash
# Distillation from the original: the teacher is the same wherever it lives and on any number of ranks, the model comes closer to
# it, and what cannot work or has no effect is said.
# Stated bound of the fine-tuned loss between ranks and teachers: 1e-5 relative, as in job_ranks.sh, after four steps: a weight
# that a last bit moves over the threshold of its row changes all steps after it.
set -eu
cd "$TMP"
model=$(readlink -f "$FIXTURES/../../jobs/demo/model") # trained, so that KL to it says something
"$PHASE4_DEMO" demo --stories 400 >/dev/null
cat >cfg.json <<JSON
{
  "model_path": "$model", "output_path": "unset", "wandb_enabled": false,
  "calibration_dataset": "custom", "calibration_files": ["demo/stories-train.jsonl"], "train_files": ["demo/stories-train.jsonl"],
  "eval_files": ["demo/stories-valid.jsonl"], "eval_samples": 12, "calibration_samples": 12,
  "calibration_batch_size": 3, "calibration_sequence_length": 64, "global_batch_tokens": 448, "micro_batch_size": 2,
  "fine_tune_max_steps": 4, "fine_tune_threshold": 0, "fine_tune_lr": 3e-3, "warmup_steps": 2, "log_every": 1,
  "enable_grokfast": false, "quantizer": "absmean", "sparsity_threshold": 0.5,
  "threads_per_rank": 1, "num_workers": 2, "seed": 5, "distill": 0.9
}
JSON
fail() {
    echo "$1"
    cat "${2:-log}"
    exit 1
}
run() { # run NAME RANKS [key=value ...]
    local name=$1 ranks=$2
    shift 2
    "$MPIRUN" -n "$ranks" "$PHASE4_MPI" cfg.json output_path="$name" "$@" >"$name.out" 2>&1 || fail "$name: failed" "$name.out"
}
kl_of() { # kl_of NAME STEP: the KL that metrics.jsonl has of that step
    sed -n "${2}p" "$1/metrics.jsonl" | grep -o '"kl":[[:space:]]*[0-9.e+-]*' | sed 's/.*:[[:space:]]*//'
}

run one 1 distill_teacher=resident
grep -q 'the original is resident' one.out || fail 'the kind of teacher is not said' one.out
run longer 2 fine_tune_max_steps=12
awk "BEGIN {exit !($(kl_of longer 12) < 0.8 * $(kl_of longer 1))}" || fail "KL: $(kl_of longer 1), then $(kl_of longer 12)" longer.out
for stage in 0 1 2; do
    run resident3_$stage 3 distill_teacher=resident zero_stage=$stage
    "$TOOL_COMPARE" one resident3_$stage losses 1e-5
done
run light2 2 distill_teacher=resident recompute=light
run blocks2 2 distill_teacher=resident recompute=blocks
"$TOOL_COMPARE" one light2 losses 1e-5
"$TOOL_COMPARE" one blocks2 losses 1e-5
run sharded1 1 distill_teacher=sharded
run sharded2 2 distill_teacher=sharded
run sharded3 3 distill_teacher=sharded zero_stage=1
run sharded4 4 distill_teacher=sharded zero_stage=0 micro_batch_size=1
for name in sharded1 sharded2 sharded3 sharded4; do
    "$TOOL_COMPARE" one $name losses 1e-5
    grep -q 'the original is sharded' $name.out || fail 'the kind of teacher is not said' $name.out
done

# Without distillation there is no KL, and the result is another.
run plain 1 distill=0
grep -q '"kl":[[:space:]]*null' plain/metrics.jsonl || fail 'a KL without a teacher' plain/metrics.jsonl
if "$TOOL_COMPARE" one plain losses 1e-5 2>/dev/null; then fail 'distillation changed nothing' one.out; fi
