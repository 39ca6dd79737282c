#!/usr/bin/env bash
# Corners of a run, on the small fixtures: what is written is what was measured, whatever is ternary and however tensors lie in
# their files; windows held out; ranks without layers; settings that cannot work are refused.
set -eu
cd "$TMP"
awk 'BEGIN {srand(3); for (i = 0; i < 4800; i++) printf "\\%o\\000", (i * 7 + int(rand() * 9)) % 40}' >octal
printf "$(cat octal)" >ids.bin # 400 windows of 12 token ids
for copy in 1 2 3 4 5 6 7; do cat ids.bin ids.bin >twice.bin && mv twice.bin ids.bin; done # 51,200 windows
head -c 1200 ids.bin >few.bin # 50 windows
cat >cfg.json <<JSON
{
  "model_path": "unset", "output_path": "unset", "wandb_enabled": false,
  "calibration_dataset": "custom", "calibration_files": ["few.bin"], "eval_files": ["few.bin"], "train_files": ["few.bin"],
  "eval_samples": 7, "calibration_samples": 9, "calibration_batch_size": 2, "calibration_sequence_length": 12,
  "quantizer": "absmean", "sparsity_threshold": 1.6, "global_batch_tokens": 60, "fine_tune_max_steps": 4,
  "fine_tune_epochs": 1, "fine_tune_threshold": 0, "fine_tune_lr": 5e-3, "warmup_steps": 1, "threads_per_rank": 1
}
JSON
fail() {
    echo "$1"
    cat log
    exit 1
}
run() { # run NAME MODEL RANKS [key=value ...]
    local name=$1 model=$2 ranks=$3
    shift 3
    "$MPIRUN" -n "$ranks" "$PHASE4_MPI" cfg.json model_path="$model" output_path="$name" "$@" >log 2>&1 || fail "$name: failed"
}
refused() { # refused WORDS MODEL [key=value ...]
    local words=$1 model=$2 status=0
    shift 2
    rm -rf refused
    "$PHASE4_MPI" --quiet cfg.json model_path="$model" output_path=refused "$@" >log 2>&1 || status=$?
    [ $status = 2 ] && grep -qF -- "$words" log || fail "status $status, expected 2 and \"$words\""
    [ ! -e refused/model.h5 ] || fail "a refused run left a model.h5"
}
said() { grep -qF -- "$1" log || fail "expected the line \"$1\""; }

# The dequantised directory, read again, has the loss that the run ended with.
round_trip() { # round_trip MODEL [key=value ...]
    local model=$FIXTURES/models/$1
    shift
    rm -rf first again
    run first "$model" 3 "$@"
    run again first/dequantized_fp16 1 quantizer=none enable_fine_tuning=false
    "$TOOL_COMPARE" again first final 2e-6
}
for model in gpt2-plain gpt2-untied llama-gqa llama-bias llama-bf16; do
    round_trip $model
    round_trip $model preserve_embedding_precision=false preserve_output_precision=false
    round_trip $model 'preserve_layers=["*k_proj*","*.up_proj*","*attn.c_proj*"]' zero_stage=0
done

# An original that knows its text less than a guess does is worth a warning, one of random weights is not.
run guess "$FIXTURES/models/llama-gqa" 2 enable_fine_tuning=false
said 'above that of guessing among its'
run chance "$FIXTURES/models/llama-gqa" 1 enable_fine_tuning=false init=random
! grep -q 'guessing' log || fail 'random weights are warned of'

# Evaluation without files takes what calibration leaves, and neither gets more than was asked for.
run held "$FIXTURES/models/llama-gqa" 2 eval_files=[] enable_fine_tuning=false
said '9 to calibrate, 7 to evaluate'
run short "$FIXTURES/models/llama-gqa" 2 eval_files=[] enable_fine_tuning=false calibration_samples=1000
said '43 to calibrate, 7 to evaluate'
run alone "$FIXTURES/models/llama-gqa" 1 eval_files=[] enable_fine_tuning=false calibration_samples=0 eval_samples=50
said '0 to calibrate, 50 to evaluate'

# Two layers on four ranks: two ranks wait for the others' whole pass, which is longer than the bound of a single wait.
run idle "$FIXTURES/models/llama-gqa" 4 'eval_files=["ids.bin"]' eval_samples=50000 collective_timeout_s=1 \
    calibration_samples=0 enable_fine_tuning=false

# Settings that change nothing are spoken of, once and by their key; others are not.
run vain "$FIXTURES/models/llama-gqa" 2 enable_fine_tuning=false quantizer=exact 'preserve_layers=["*k_proj*","*no_such*"]'
said 'key "preserve_layers": "*no_such*" matches none'
said 'key "sparsity_threshold": 1.6 has no effect'
[ "$(grep -c 'warning: key' log)" = 2 ] || fail 'two warnings were expected'

# A run that is killed leaves no results.json that speaks of another run's success; the other's model stays where it was.
run killed "$FIXTURES/models/llama-gqa" 1 enable_fine_tuning=false
grep -q '"success":[[:space:]]*true' killed/results.json || fail 'a run that ended says otherwise'
"$PHASE4_MPI" cfg.json model_path="$FIXTURES/models/llama-gqa" output_path=killed overwrite=true eval_samples=0 fine_tune_epochs=100000 \
    fine_tune_max_steps=1000000 >log 2>&1 &
for try in $(seq 1 300); do
    [ ! -s killed/metrics.jsonl ] || break
    sleep 0.1
done
kill -9 $! && wait $! 2>/dev/null || true
grep -q '"success":[[:space:]]*false' killed/results.json && grep -q 'has not ended' killed/results.json || fail 'what was killed'
[ -e killed/model.h5 ] || fail "the earlier run's model is gone"
status=0
"$PHASE4_MPI" cfg.json model_path="$FIXTURES/models/llama-gqa" output_path=killed >log 2>&1 || status=$?
[ $status = 2 ] && grep -qF 'holds the results of another run (model.h5' log || fail "status $status: an earlier model was not protected"

refused 'k_proj' "$FIXTURES/models/llama-gqa" activation_bits=8 'preserve_layers=["*k_proj*"]'
refused 'whose scale fp16 cannot hold' "$FIXTURES/models/llama-gqa" eval_samples=0 optimizer=adamw fine_tune_lr=10 weight_decay=10 \
    warmup_steps=0 lr_final_fraction=1 preserve_embedding_precision=false preserve_output_precision=false
refused 'expected at least 10000000000' "$FIXTURES/models/llama-gqa" eval_samples=0 \
    fine_tune_max_steps=1000000000000 global_batch_tokens=120000000000
