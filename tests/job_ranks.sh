#!/usr/bin/env bash
# The result does not depend on the number of ranks: 1, 2, 3 and 4 ranks quantize to the same bits and fine-tune to the same loss,
# and so do all paths that gradients take (zero_stage 0, 1 and 2). The model has 6 layers; one of 18 layers has more than the host
# queues ahead (AHEAD in jobs/train/trainer_sums.c), one of 1 layer has fewer than there are ranks.
#
# Bounds, relative. Step 1 starts from the same bits on any number of ranks: its loss and its gradient norm differ by the order
# of fp32 sums alone, 1e-6 is allowed (1e-8 is usual). A path that scales a gradient, leaves one out or adds one twice fails
# here; losses might hide it, because the optimizer normalizes gradients. From step 2 on a weight whose master lies within those
# last digits of a threshold may get another code: 1e-5 is allowed for losses, 1e-4 for gradient norms.
set -eu
. "$(dirname "$0")/job.sh"
cd "$TMP"
demo 400
model six "${SMALL[@]}"
model deep hidden_size=32 intermediate_size=64 head_dim=8 num_hidden_layers=18
model shallow "${SMALL[@]}" num_hidden_layers=1 tie_word_embeddings=false # its sums are the first and the last of a step
# A seed with which quantizing the random weights raises the perplexity: otherwise nothing would be fine-tuned.
cat >cfg.json <<JSON
{
  "model_path": "$TMP/six", "output_path": "unset", "init": "random", "wandb_enabled": false,
  "calibration_dataset": "custom", "calibration_files": ["$TMP/demo/stories-train.jsonl"],
  "eval_files": ["$TMP/demo/stories-valid.jsonl"], "eval_samples": 11, "calibration_samples": 12,
  "calibration_batch_size": 3, "calibration_sequence_length": 64, "global_batch_tokens": 448, "micro_batch_size": 2,
  "fine_tune_epochs": 10, "fine_tune_max_steps": 3, "fine_tune_threshold": 0, "fine_tune_lr": 3e-3, "warmup_steps": 2, "log_every": 1,
  "threads_per_rank": 1, "num_workers": 2, "seed": 8
}
JSON
steps=3

run() { # run NAME RANKS [key=value ...]
    local name=$1 ranks=$2
    shift 2
    plan "on_$ranks" "$TMP/runs/$name" - --quiet "$TMP/cfg.json" output_path="$TMP/$name" "$@"
    echo "$name $ranks" >>all
}
for ranks in 1 2 3 4; do
    run bits$ranks $ranks enable_fine_tuning=false
    run tuned$ranks $ranks
done
run plain1 1 zero_stage=0
run plain3 3 zero_stage=0
run once2 2 zero_stage=1
run once3 3 zero_stage=1
part='preserve_layers=["*k_proj*","*.1.*up_proj*"]' # slots of which a part is replicated
run part1 1 "$part"
run part3 3 "$part"
run part_once1 1 "$part" zero_stage=1
run part_once3 3 "$part" zero_stage=1
run grok1 1 enable_grokfast=true recompute=true
run grok3 3 enable_grokfast=true recompute=light
run half1 1 enable_grokfast=true optimizer_state=bf16
run half3 3 enable_grokfast=true optimizer_state=bf16
# Without an evaluation fine-tuning always runs.
run deep1 1 model_path="$TMP/deep" eval_samples=0
run shallow1 1 model_path="$TMP/shallow" eval_samples=0
for stage in 0 1 2; do
    run deep_$stage 2 model_path="$TMP/deep" eval_samples=0 zero_stage=$stage
    run shallow_$stage 4 model_path="$TMP/shallow" eval_samples=0 zero_stage=$stage
done
# Activations rounded to 8 bits: a last digit of a weight moves some of them to the next value, 1/127 of their row's largest
# away, and further steps amplify that. So one step is compared. It takes micro-batches of one sequence: in larger ones the
# kernels may add in another order, which moves activations before anything has been summed over ranks.
eight='activation_bits=8 micro_batch_size=1 fine_tune_max_steps=1 warmup_steps=0'
# shellcheck disable=SC2086
{
    run eight1 1 $eight
    run eight2 2 $eight
    run eight3 3 $eight zero_stage=0
}
for ranks in 1 2 3 4; do
    spawn run_planned $ranks "$TMP/on_$ranks"
done
join
while read -r name ranks; do
    (cd "runs/$name" && { outcome "$ranks" || complain "$name failed"; })
done <all

failures=0
field() { # field NAME RUN: its values, one a step
    grep '"kind":"train"' "$2/metrics.jsonl" | grep -o "\"$1\":[[:space:]]*[0-9.e+-]*" | sed 's/.*:[[:space:]]*//'
}
# same_steps STEPS RUN_A RUN_B...: loss and gradient norm of every step are A's within the bounds above.
same_steps() {
    local count=$1 a=$2 b
    shift 2
    for b in "$@"; do
        paste -d ' ' <(field loss "$a") <(field grad_norm "$a") <(field loss "$b") <(field grad_norm "$b") | awk -v runs="$a and $b" -v count="$count" '
            function differ(x, y, bound) {return !((x - y) ^ 2 <= (bound * x) ^ 2)}
            NF != 4 || differ($1, $3, NR == 1 ? 1e-6 : 1e-5) || differ($2, $4, NR == 1 ? 1e-6 : 1e-4) {
                print runs ", step " NR ": loss and gradient norm of both: " $0
                bad = 1
            }
            END {
                if (NR != count) print runs ": " NR " steps, expected " count
                exit bad || NR != count
            }' || failures=$((failures + 1))
    done
}
# same bits|losses BOUND RUN_A RUN_B...
same() {
    local what=$1 bound=$2 a=$3 b
    shift 3
    for b in "$@"; do
        "$TOOL_COMPARE" "$a" "$b" "$what" "$bound" || failures=$((failures + 1))
    done
}
same bits 1e-6 bits1 bits2 bits3 bits4
same_steps $steps tuned1 tuned2 tuned3 tuned4 plain1 plain3 once2 once3
same losses 1e-5 tuned1 tuned2 tuned3 tuned4 plain1 plain3 once2 once3
same_steps $steps part1 part3 part_once1 part_once3
same losses 1e-5 part1 part3 part_once1 part_once3
same_steps $steps deep1 deep_0 deep_1 deep_2
same_steps $steps shallow1 shallow_0 shallow_1 shallow_2
same_steps $steps grok1 grok3
same losses 1e-5 grok1 grok3
same losses 1e-4 half1 half3 # a last digit moves few elements of the state by a step of bf16
same_steps 1 eight1 eight2 eight3
same losses 1e-4 eight1 eight2 eight3 # the step itself moves the loss by 5e-3
# Intervals, whose documents are resampled alike on any number of ranks.
python3 - bits1 bits2 bits3 bits4 <<'END' || failures=$((failures + 1))
import json, math, sys
runs = [json.load(open(run + "/results.json")) for run in sys.argv[1:]]
first = runs[0]["final"]
assert first["documents"] >= 10 and first["perplexity_low"] < first["perplexity"] < first["perplexity_high"], first
quality = runs[0]["quality"]
assert quality["degradation_low"] < quality["degradation_ratio"] < quality["degradation_high"], quality
for run in runs[1:]:
    for name in "pre_compression", "post_compression", "final", "quality":
        for key, value in runs[0][name].items():
            if value is None or isinstance(value, bool):
                assert run[name][key] == value, (name, key)
            else:
                assert math.isclose(run[name][key], value, rel_tol=1e-6, abs_tol=1e-6), (name, key, run[name][key], value)
END
# Comparisons that cannot fail would prove nothing.
if "$TOOL_COMPARE" bits1 tuned1 bits 1e-6 2>/dev/null; then
    echo "fine-tuning changed nothing"
    failures=$((failures + 1))
fi
echo "$failures comparisons failed"
[ $failures = 0 ]
