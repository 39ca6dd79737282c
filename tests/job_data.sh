#!/usr/bin/env bash
# The data of a run: tokens kept between runs, windows set aside from what is trained on, warnings about data that is too short
# or used twice, and nothing left behind.
set -eu
cd "$TMP"
"$PHASE4_DEMO" demo --stories 400 >/dev/null
head -n 30 demo/stories-train.jsonl >few.jsonl
mkdir small
cp demo/model/tokenizer* small/
sed -e 's/"num_hidden_layers": 6/"num_hidden_layers": 1/' -e 's/"hidden_size": 128/"hidden_size": 32/' \
    -e 's/"intermediate_size": 384/"intermediate_size": 64/' -e 's/"head_dim": 32/"head_dim": 8/' demo/model/config.json >small/config.json
cat >cfg.json <<JSON
{
  "model_path": "small", "output_path": "unset", "init": "random", "wandb_enabled": false,
  "calibration_dataset": "custom", "calibration_files": ["demo/stories-train.jsonl"], "train_files": ["demo/stories-train.jsonl"],
  "eval_files": ["demo/stories-valid.jsonl"], "eval_samples": 8, "calibration_samples": 8,
  "calibration_batch_size": 4, "calibration_sequence_length": 64, "micro_batch_size": 2,
  "fine_tune_max_steps": 3, "fine_tune_threshold": 0, "warmup_steps": 1, "log_every": 1, "threads_per_rank": 1, "num_workers": 2
}
JSON
fail() {
    echo "$1"
    cat log
    exit 1
}
run() { # run NAME RANKS [key=value ...]
    local name=$1 ranks=$2
    shift 2
    "$MPIRUN" -n "$ranks" "$PHASE4_MPI" cfg.json output_path="$name" "$@" >log 2>&1 || fail "$name: failed"
}
said() { grep -qF -- "$1" log || fail "expected the line \"$1\""; }
unsaid() { ! grep -qF -- "$1" log || fail "did not expect the line \"$1\""; }
once() { [ "$(grep -cF -- "$1" log)" = 1 ] || fail "expected one line \"$1\""; }

# The second run finds the first one's tokens and ends at the same losses; without a cache too.
run first 1 token_cache=cache/tokens
said 'tokenized into cache/tokens/tokens-'
[ "$(ls cache/tokens | wc -l)" = 1 ] || fail "$(ls cache/tokens): one file was expected"
before=$(stat -c '%i %y' cache/tokens/*)
run second 2 token_cache=cache/tokens
said 'of the text from cache/tokens/tokens-'
unsaid 'tokenized into'
[ "$before" = "$(stat -c '%i %y' cache/tokens/*)" ] || fail 'the cache was written again'
run without 3
said 'tokenized into without/training_tokens.tmp'
"$TOOL_COMPARE" first second losses 1e-5
"$TOOL_COMPARE" first without losses 1e-5
[ -z "$(find . -name '*.tmp')" ] || fail "$(find . -name '*.tmp'): left behind"

# A cache that was cut off is not used, and replaced.
truncate -s 1000 cache/tokens/*
run third 1 token_cache=cache/tokens
once 'is not used: '
said 'tokenized into cache/tokens/tokens-'
"$TOOL_COMPARE" first third losses 1e-6

# Token files and text make one set; the number of ranks decides nothing.
awk 'BEGIN {for (i = 0; i < 6000; i++) printf "\\%o\\%o", (i * 7 + int(i / 13)) % 256, int(i / 100) % 2}' >octal
printf "$(cat octal)" >ids.bin
for ranks in 1 2 3 4; do
    run mixed$ranks $ranks 'train_files=["few.jsonl","ids.bin"]' zero_stage=0
    [ $ranks = 1 ] || "$TOOL_COMPARE" mixed1 mixed$ranks losses 1e-5
done

# Windows to evaluate on are set aside from what is trained on, of calibration's windows and of a whole set.
run aside 2 eval_files=[] train_files=[]
said '8 to calibrate, 8 to evaluate, 8 to train on'
unsaid 'to evaluate on and to train on'
run whole 2 eval_files=[] train_files=[] calibration_samples=0 'calibration_files=["few.jsonl"]'
said '0 to calibrate, 8 to evaluate'
total=$("$PHASE4_MPI" cfg.json output_path=count eval_samples=0 calibration_samples=0 'train_files=["few.jsonl"]' 2>&1 |
    sed -n 's/.*to evaluate, \([0-9]*\) to train on.*/\1/p')
said ", $((total - 8)) to train on"

# What is asked for and not there is said once for each key; defaults ask for nothing.
run short 2 eval_samples=5000 calibration_samples=1000 'calibration_files=["few.jsonl"]'
once 'key "eval_samples": asked for 5000 windows of 64 tokens, but there are only'
once 'key "calibration_samples": asked for 1000 windows'
sed -i 's/"eval_samples": 8, //' cfg.json
run default 1
unsaid 'key "eval_samples"'

# Text that is evaluated and trained on under two names is found by its inode.
ln demo/stories-train.jsonl other-name.jsonl
run leak 2 'eval_files=["other-name.jsonl"]' eval_samples=4
once 'other-name.jsonl is among the files to evaluate on and to train on (as demo/stories-train.jsonl)'
run leak_calibration 1 'eval_files=["other-name.jsonl"]' eval_samples=4 train_files=[]
once 'to evaluate on and to train on'
run leak_aside 1 eval_files=[] eval_samples=4
once 'to evaluate on and to train on'
run no_leak 1 'eval_files=["other-name.jsonl"]' eval_samples=4 enable_fine_tuning=false
unsaid 'to evaluate on and to train on'
