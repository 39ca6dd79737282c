#!/usr/bin/env bash
# The demo job on GPUs against the same job on the CPU. Skipped where there is no GPU; a failure there with P4_NEED_GPU=1.
#
# Stated bounds. The codes after quantizing are the CPU's bit for bit, in fp32 and in bf16: both quantize the fp32 weights.
# Loss of the original and after 12 steps, relative to the CPU's: fp32 1e-5 and 1e-3, bf16 1e-3 and 1e-2; fp32 with AdamW 1e-2:
# its first steps move a weight by the learning rate however small its gradient is; activation_bits 8 5e-3: rounding makes a whole
# step of int8 out of a last digit. (Sums in another order turn single codes,
# and which ones depends on the CPU's kernels: 1e-5 on one processor, 1.2e-4 on another.) The same run twice gives the same bits. With two GPUs: the same codes as one, and every loss of 200 steps within 2 % of the run on one GPU,
# for both gradient paths: sums in another order turn single codes, and training amplifies that.
set -eu
cd "$TMP"
need=${P4_NEED_GPU:-}
# The seed is one with which quantizing these random weights raises the perplexity: else nothing would be fine-tuned.
"$PHASE4_DEMO" demo --stories 400 >/dev/null
cat >cfg.json <<JSON
{
  "model_path": "demo/model", "output_path": "unset", "init": "random", "wandb_enabled": false,
  "calibration_dataset": "custom", "calibration_files": ["demo/stories-train.jsonl"],
  "train_files": ["demo/stories-train.jsonl"], "fine_tune_epochs": 100,
  "eval_files": ["demo/stories-valid.jsonl"], "eval_samples": 12, "calibration_samples": 12,
  "calibration_batch_size": 3, "calibration_sequence_length": 64, "global_batch_tokens": 448, "micro_batch_size": 2,
  "fine_tune_max_steps": 12, "fine_tune_threshold": 0, "fine_tune_lr": 3e-3, "warmup_steps": 2, "log_every": 1, "optimizer": "mugrokfast", "quantizer": "exact",
  "weight_decay": 0, "lr_final_fraction": 0.1,
  "threads_per_rank": 1, "num_workers": 2, "seed": 5
}
JSON
fail() {
    echo "$*"
    exit 1
}
start() { # start NAME RANKS [key=value ...]: its status; all it says is in NAME.out
    local name=$1 ranks=$2
    shift 2
    "$MPIRUN" -n "$ranks" "$PHASE4_MPI" cfg.json output_path="$name" "$@" >"$name.out" 2>&1
}
run() {
    start "$@" || { cat "$1.out"; exit 1; }
}
# curves A B BOUND: every step's training loss agrees within BOUND (relative).
curves() {
    local worst
    paste <(losses "$1") <(losses "$2") >curves
    worst=$(awk '{d = ($1 - $2) / $1; d = d < 0 ? -d : d; if (NF != 2 || d != d) d = 1e9; if (d > w) w = d} END {print w + 0}' curves)
    echo "$1 and $2: the losses of $(wc -l <curves) steps differ by at most $worst of their value"
    awk -v worst="$worst" -v bound="$3" 'BEGIN {exit !(worst <= bound)}' || fail "$1 and $2: $3 is allowed"
}
losses() {
    sed -n '/"kind":"train"/s/.*"loss":\([^,]*\),.*/\1/p' "$1/metrics.jsonl"
}

if ! start probe 1 device=cuda enable_fine_tuning=false; then
    why=$(grep 'phase4: error' probe.out) || fail "$(cat probe.out)"
    grep -q 'found "cuda", but .*\(no NVIDIA GPU\|no CUDA backend\)' <<<"$why" || fail "device cuda: $why"
    [ -z "$need" ] || fail "P4_NEED_GPU is set: $why"
    run auto 1 enable_fine_tuning=false # without a GPU auto is the CPU, and says so where there is a driver
    grep -q '^1 rank, CPU' auto.out || fail "device auto: $(head -3 auto.out)"
    [ ! -e /proc/driver/nvidia ] || grep -q 'no GPU is used: ' auto.out ||
        fail "device auto does not say why it takes the CPU: $(head -3 auto.out)"
    echo "skipped: $why"
    exit 77
fi

# A GPU that is here and cannot be used as asked is an error of auto too, not a run on the CPU.
export P4_GRAPH=maybe
if start unusable 1 enable_fine_tuning=false; then
    fail "P4_GRAPH=maybe is taken"
fi
unset P4_GRAPH
grep -q 'a GPU was found, but cannot be used: P4_GRAPH: found "maybe"' unusable.out || fail "$(cat unusable.out)"

run cpu_bits 1 device=cpu enable_fine_tuning=false
run cpu 1 device=cpu
run auto_bits 1 enable_fine_tuning=false mixed_precision=false
grep -q 'GiB' auto_bits.out || fail "device auto does not say that it takes a GPU: $(head -3 auto_bits.out)"
run half_bits 1 device=cuda enable_fine_tuning=false mixed_precision=true
"$TOOL_COMPARE" cpu_bits auto_bits bits 1e-5
"$TOOL_COMPARE" cpu_bits half_bits bits 1e-3
for kind in single:false:1e-3 half:true:1e-2; do
    IFS=: read -r name mixed bound <<<"$kind"
    run "$name" 1 device=cuda mixed_precision="$mixed"
    run "$name.again" 1 device=cuda mixed_precision="$mixed"
    "$TOOL_COMPARE" "$name" "$name.again" bits 0
    curves "$name" "$name.again" 0
    "$TOOL_COMPARE" cpu "$name" losses "$bound"
done
for kind in activation_bits=8:5e-3 recompute=true:1e-3 "zero_stage=0 enable_grokfast=true:1e-3" \
    "optimizer=adamw quantizer=absmean:1e-2"; do
    IFS=: read -r keys bound <<<"$kind"
    # shellcheck disable=SC2086
    run cpu_other 1 overwrite=true device=cpu $keys
    # shellcheck disable=SC2086
    run gpu_other 1 overwrite=true device=cuda mixed_precision=false $keys
    echo "$keys:"
    "$TOOL_COMPARE" cpu_other gpu_other losses "$bound"
done

if ! start two_bits 2 device=cuda enable_fine_tuning=false mixed_precision=false; then
    [ "$(grep -c 'phase4: error: key "device": found "cuda", but a node has 2 ranks and 1 GPU for them' two_bits.out)" = 1 ] &&
        [ "$(grep -c 'phase4: error' two_bits.out)" = 1 ] || fail "more ranks than GPUs: $(cat two_bits.out)"
    run two_auto 2 enable_fine_tuning=false
    grep -q 'no GPU is used: a node has 2 ranks and 1 GPU for them' two_auto.out || fail "device auto: $(head -3 two_auto.out)"
    "$TOOL_COMPARE" cpu_bits two_auto bits 1e-6
    echo "one GPU on this machine: nothing to compare with two"
    exit 0
fi
"$TOOL_COMPARE" cpu_bits two_bits bits 1e-5
long="device=cuda mixed_precision=false fine_tune_max_steps=200 fine_tune_lr=1e-3"
# shellcheck disable=SC2086
{
    run one 1 $long
    run two 2 $long
    run two.again 2 $long
    run two_all 2 $long zero_stage=0
}
"$TOOL_COMPARE" two two.again bits 0
curves one two 0.02
curves one two_all 0.02
curves two two_all 0.02

# A model of more layers than the host queues ahead of the sums of their gradients (AHEAD in jobs/train/trainer_sums.c).
mkdir deep
cp demo/model/tokenizer* deep/
sed -e 's/"num_hidden_layers": 6/"num_hidden_layers": 18/' -e 's/"hidden_size": 128/"hidden_size": 32/' \
    -e 's/"intermediate_size": 384/"intermediate_size": 64/' -e 's/"head_dim": 32/"head_dim": 8/' demo/model/config.json >deep/config.json
run deep_one 1 device=cuda mixed_precision=false model_path=deep
run deep_two 2 device=cuda mixed_precision=false model_path=deep
run deep_all 2 device=cuda mixed_precision=false model_path=deep zero_stage=0
curves deep_one deep_two 0.02
curves deep_one deep_all 0.02
