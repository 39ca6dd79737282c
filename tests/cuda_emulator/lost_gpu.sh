#!/usr/bin/env bash
# phase4_batch whose GPU loses its context (EMU_BREAK_AT of emu.cpp) at places all over the work on two models: the job ends, no model is
# recorded as failed, and the same command without the fault ends with the bytes of a batch that nobody disturbed.
#
#   lost_gpu.sh OUT   with the phase4_batch that build_job.sh has linked there
set -eu
program=$(cd "$1" && pwd)/phase4_batch
models=$(cd "$(dirname "$0")/../fixtures/models" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
fail() {
    echo "lost_gpu: break at wait $at: $*; the program printed:"
    cat log
    exit 1
}
at=none
awk 'BEGIN {srand(3); for (i = 0; i < 960; i++) printf "\\%o\\000", (i * 7 + int(rand() * 9)) % 40}' >octal
printf "$(cat octal)" >ids.bin # 80 windows of 12 token ids
cat >cfg.json <<JSON
{
  "output_path": "unset", "wandb_enabled": false, "device": "cuda", "mixed_precision": false, "seed": 3,
  "calibration_dataset": "custom", "calibration_files": ["$work/ids.bin"], "eval_files": ["$work/ids.bin"],
  "train_files": ["$work/ids.bin"], "eval_samples": 8, "calibration_samples": 8, "calibration_batch_size": 4,
  "calibration_sequence_length": 12, "quantizer": "absmean", "sparsity_threshold": 1.6, "global_batch_tokens": 96,
  "fine_tune_max_steps": 4, "fine_tune_threshold": 0, "fine_tune_lr": 5e-3, "warmup_steps": 1, "threads_per_rank": 1,
  "log_every": 1, "checkpoint_every": 1
}
JSON
queue() { # queue NAME: the file NAME.json, whose models write to NAME/
    cat >"$1.json" <<JSON
[{"name": "one", "ranks": 1, "cfg": "cfg.json", "model_path": "$models/llama-gqa", "output_path": "$work/$1/one"},
 {"name": "two", "ranks": 1, "cfg": "cfg.json", "model_path": "$models/gpt2-plain", "output_path": "$work/$1/two"}]
JSON
}
batch() { # batch NAME [VARIABLE=VALUE]: sets $status
    status=0
    env ${2:+"$2"} "$program" "$1.json" >log 2>&1 || status=$?
}
queue whole
batch whole
[ $status = 0 ] || fail "status $status without a fault"
places=0 continued=0 second=0
for ((at = 8; ; at *= 2)); do
    rm -rf broken broken.batch
    queue broken
    batch broken "EMU_BREAK_AT=$at"
    [ $status != 0 ] || break # there are not so many waits
    [ $status != 5 ] || fail 'a model has failed, expected that the job ends'
    ! grep -qs '"event":"failed"' broken.batch/journal.jsonl || fail 'a model is recorded as failed'
    [ $status != 75 ] || fail 'the batch says that it was stopped'
    batch broken
    [ $status = 0 ] || fail "status $status of the command that continues"
    for name in one two; do
        cmp broken/$name/dequantized_fp16/model.safetensors whole/$name/dequantized_fp16/model.safetensors ||
            fail "$name: other bytes than those of a batch that nobody disturbed"
    done
    places=$((places + 1))
    ! grep -q 'continues after step' broken.batch/logs/*.log || continued=$((continued + 1))
    ! grep -q '2 complete (1 of them before)' log || second=$((second + 1))
done
[ $continued -gt 0 ] || fail "no training was continued, of $places places"
[ $second -gt 0 ] || fail "no GPU was lost with the first model complete, of $places places"
echo "a lost GPU at $places places of a batch: $continued trainings were continued, $second times the first model was complete"
