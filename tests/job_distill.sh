#!/usr/bin/env bash
# Distillation from the original: the teacher is the same wherever it lives and on any number of ranks, the model comes closer to
# it, and what cannot work or has no effect is said.
# Stated bounds: the losses and the gradient's norm of the first step agree within 1e-6, relative; the loss after four steps within
# 5e-3, as a weight that a last bit moves over the threshold of its row changes all that follows.
set -eu
cd "$TMP"
model=$(readlink -f "$FIXTURES/../../jobs/demo/model") # trained, so that KL to it says something
"$PHASE4_DEMO" demo --stories 400 >/dev/null
cat >cfg.json <<JSON
{
  "model_path": "$model", "output_path": "unset", "wandb_enabled": false,
  "calibration_dataset": "custom", "calibration_files": ["demo/stories-train.jsonl"], "train_files": ["demo/stories-train.jsonl"],
  "eval_files": ["demo/stories-valid.jsonl"], "eval_samples": 6, "calibration_samples": 6,
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
figure() { # figure NAME STEP KEY: of metrics.jsonl
    sed -n "${2}p" "$1/metrics.jsonl" | grep -o "\"$3\":[[:space:]]*[0-9.e+-]*" | sed 's/.*:[[:space:]]*//'
}
same() { # same RUN_A RUN_B: the first step, which compares with the same teacher, and roughly what comes of it
    local key
    for key in loss kl grad_norm; do
        awk -v a="$(figure "$1" 1 $key)" -v b="$(figure "$2" 1 $key)" \
            'BEGIN {exit !(a > 0 && (a - b) ^ 2 <= (1e-6 * a) ^ 2)}' ||
            fail "$1 and $2: $key of the first step: $(figure "$1" 1 $key) and $(figure "$2" 1 $key)" "$2.out"
    done
    "$TOOL_COMPARE" "$1" "$2" losses 5e-3
}
said() { grep -qF -- "$1" "$2.out" || fail "expected \"$1\"" "$2.out"; }

run one 1 distill_teacher=auto
said 'the original is resident' one
run resident2 2 distill_teacher=resident recompute=light
run resident3 3 distill_teacher=resident recompute=blocks zero_stage=0
run sharded2 2 distill_teacher=sharded zero_stage=1
run sharded4 4 distill_teacher=sharded micro_batch_size=1
for name in resident2 resident3 sharded2 sharded4; do
    same one $name
    said "the original is ${name%[0-9]}" $name
done

# A cached teacher that keeps everything is the same one. One that is cut says what it loses, and is the same on any number of ranks.
run all2 2 distill_teacher=cached distill_top_k=1024
same one all2
said 'they keep' all2
said '(100.00 %)' all2
run top1 1 distill_teacher=cached distill_top_k=16
run top3 3 distill_teacher=cached distill_top_k=16 zero_stage=1
same top1 top3
said 'the 16 largest of 1024 probabilities hold' top3
[ ! -e top3/teacher_top_k ] || fail 'the cache is left behind' top3.out
awk "BEGIN {exit !($(figure top1 1 kl) < $(figure one 1 kl) && $(figure top1 1 kl) > 0.95 * $(figure one 1 kl))}" ||
    fail "KL of the cut teacher $(figure top1 1 kl), of the whole one $(figure one 1 kl)" top1.out

# The model comes closer to the original.
run longer 2 fine_tune_max_steps=12
awk "BEGIN {exit !($(figure longer 12 kl) < 0.8 * $(figure longer 1 kl))}" ||
    fail "KL: $(figure longer 1 kl), then $(figure longer 12 kl)" longer.out

# Without distillation there is no KL, and the result is another.
run plain 1 distill=0 distill_temperature=2
grep -q '"kl":[[:space:]]*null' plain/metrics.jsonl || fail 'a KL without a teacher' plain/metrics.jsonl
if "$TOOL_COMPARE" one plain losses 5e-3 2>/dev/null; then fail 'distillation changed nothing' one.out; fi
said 'key "distill_temperature" has no effect while distill is 0' plain
run vain 1 enable_fine_tuning=false distill_top_k=16
said 'key "distill": 0.9 has no effect: enable_fine_tuning is false' vain
said 'key "distill_top_k" has no effect unless distill_teacher is "cached"' vain
status=0
"$PHASE4_MPI" --quiet cfg.json output_path=wide distill_teacher=cached distill_top_k=1025 >log 2>&1 || status=$?
[ $status = 2 ] && grep -qF 'key "distill_top_k": found 1025, expected at most the 1024 tokens' log || fail "status $status, expected 2"
