#!/usr/bin/env bash
# With exact_sums, 1, 2, 3 and 4 ranks give the same bytes: the codes, the fp16 model, the loss and gradient norm of every step, the
# errors of reconstruction. 3 divides neither the micro-batches of a step nor its windows. zero_stage, threads and recompute vary
# along with the ranks, and a training that is stopped on 2 ranks is continued on 3. Without exact_sums they differ, or nothing would be compared.
set -eu
. "$(dirname "$0")/job.sh"
. "$(dirname "$0")/held.sh"
cd "$TMP"
awk 'BEGIN {srand(3); for (i = 0; i < 4800; i++) printf "\\%o\\000", (i * 7 + int(rand() * 9)) % 40}' >octal
printf "$(cat octal)" >ids.bin # 400 windows of 12 token ids
cp -r "$FIXTURES/models/llama-gqa" model
cat >cfg.json <<JSON
{
  "model_path": "$TMP/model", "output_path": "unset", "wandb_enabled": false, "device": "cpu", "exact_sums": true,
  "calibration_dataset": "custom", "calibration_files": ["$TMP/ids.bin"], "eval_files": ["$TMP/ids.bin"], "train_files": ["$TMP/ids.bin"],
  "eval_samples": 20, "calibration_samples": 40, "calibration_batch_size": 3, "calibration_sequence_length": 12,
  "global_batch_tokens": 264, "fine_tune_max_steps": 200, "fine_tune_epochs": 100, "fine_tune_threshold": 0, "fine_tune_lr": 5e-3,
  "warmup_steps": 1, "reconstruct_steps": 20, "reconstruct_lr": 1e-2, "threads_per_rank": 1, "log_every": 1, "eval_every": 50
}
JSON
on=([1]='zero_stage=2' [2]='zero_stage=0 threads_per_rank=2 recompute=light' [3]='zero_stage=1 recompute=blocks' [4]='zero_stage=2')
cases=( # name, steps, keys; without an evaluation fine-tuning always runs
    'distill 200 quantizer=gptq optimizer=adamw eval_samples=0 learn_scales=true distill_blocks=1'
    'plain 200 quantizer=absmean sparsity_threshold=1.6 distill=0 optimizer=mugrokfast enable_grokfast=true reconstruct=false'
    'eight 50 eval_samples=0 quantizer=exact-diagonal optimizer=mugrokfast activation_bits=8 distill_teacher=cached distill_top_k=8 optimizer_state=bf16 micro_batch_size=5'
    'eight_plain 50 eval_samples=0 quantizer=absmean distill=0 optimizer=adamw activation_bits=8 reconstruct_window=1 gradient_clip=0.1'
    'learned 50 eval_samples=0 quantizer=absmean learn_scales=true distill=0 optimizer=mugrokfast enable_grokfast=true optimizer_state=bf16 preserve_embedding_precision=false reconstruct=false'
)
run() { # run NAME RANKS KEY=VALUE...
    local name=$1 ranks=$2
    # shellcheck disable=SC2086
    plan "on_$ranks" "$TMP/runs/$name" - --quiet "$TMP/cfg.json" output_path="$TMP/$name" ${on[ranks]} "${@:3}"
}
for ranks in 1 2 3 4; do
    for row in "${cases[@]}"; do
        read -r name steps keys <<<"$row"
        # shellcheck disable=SC2086
        run "$name$ranks" $ranks fine_tune_max_steps="$steps" $keys
    done
done
run loose1 1 exact_sums=false eval_samples=0 fine_tune_max_steps=50
run loose3 3 exact_sums=false eval_samples=0 fine_tune_max_steps=50
for ranks in 1 2 3 4; do
    spawn run_planned $ranks "$TMP/on_$ranks"
done
join

failures=0
bad() {
    echo "$*"
    failures=$((failures + 1))
}
curve() { # curve NAME: what metrics.jsonl says but for times, which needs every logged digit to agree
    sed -e 's/"tokens_per_s".*//' -e 's/"seconds".*//' "$1/metrics.jsonl" >"$1.curve"
}
differ() { # differ A B: what is not the same
    cmp "$1/dequantized_fp16/model.safetensors" "$2/dequantized_fp16/model.safetensors" || return 0
    "$TOOL_COMPARE" "$1" "$2" tensors 0 >compared 2>&1 || { cat compared && return 0; }
    curve "$1"
    curve "$2"
    cmp "$1.curve" "$2.curve"
}
for row in "${cases[@]}"; do
    read -r name steps keys <<<"$row"
    [ "$(grep -c '"kind":"train"' "${name}1/metrics.jsonl")" = "$steps" ] || bad "${name}1: another number of steps than $steps"
    for ranks in 2 3 4; do
        found=$(differ "${name}1" "$name$ranks")
        [ -z "$found" ] || bad "$name: 1 and $ranks ranks differ: $found"
    done
done
[ -n "$(differ loose1 loose3)" ] || bad 'without exact_sums nothing differs: these comparisons prove nothing'

# Stopped on 2 ranks, continued on 3.
keys=(cfg.json output_path=moved quantizer=gptq optimizer=adamw eval_samples=0 learn_scales=true distill_blocks=1)
mkdir -p moved
hold_at 60 '"kind":"train"' /metrics.jsonl
"$MPIRUN" -n 2 "${hold[@]}" "$PHASE4_MPI" "${keys[@]}" >log 2>&1 &
job=$!
is_held $job || bad "the run on 2 ranks has ended before step 60: $(tail -n 5 log)"
touch moved/stop
let_go
status=0
wait $job || status=$?
[ $status = 75 ] || bad "stopped on 2 ranks: status $status, expected 75: $(tail -n 5 log)"
rm moved/stop
"$MPIRUN" -n 3 "$PHASE4_MPI" "${keys[@]}" >log 2>&1 || bad "continued on 3 ranks: $(tail -n 5 log)"
grep -q 'continues after step' log || bad 'continued on 3 ranks: it began anew'
found=$(differ distill1 moved)
[ -z "$found" ] || bad "continued on 3 ranks: $found"

refused() { # refused WORDS KEY=VALUE...
    local words=$1
    shift
    status=0
    "$PHASE4_MPI" --validate cfg.json "$@" >log 2>&1 || status=$?
    [ $status = 2 ] && grep -qF -- "$words" log || bad "$*: status $status: $(cat log)"
}
refused 'key "device": found "cuda", expected "cpu" with exact_sums' device=cuda
refused 'key "distill_teacher": found "sharded", expected "resident" or "cached" with exact_sums' distill_teacher=sharded
echo "$failures comparisons failed"
[ $failures = 0 ]
