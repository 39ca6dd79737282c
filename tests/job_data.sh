#!/usr/bin/env bash
# The data of a run: tokens kept between runs, windows set aside from what is trained on, warnings about data that is too short
# or used twice, and nothing left behind.
set -eu
. "$(dirname "$0")/job.sh"
cd "$TMP"
demo 400
head -n 30 demo/stories-train.jsonl >few.jsonl
model small hidden_size=32 intermediate_size=64 head_dim=8 num_hidden_layers=1
printf "$(awk 'BEGIN {for (i = 0; i < 6000; i++) printf "\\%o\\%o", (i * 7 + int(i / 13)) % 256, int(i / 100) % 2}')" >ids.bin
# A seed with which quantizing the random weights raises the perplexity: otherwise nothing would be fine-tuned.
cat >cfg.json <<JSON
{
  "model_path": "small", "output_path": "unset", "init": "random", "wandb_enabled": false,
  "calibration_dataset": "custom", "calibration_files": ["demo/stories-train.jsonl"], "train_files": ["demo/stories-train.jsonl"],
  "eval_files": ["demo/stories-valid.jsonl"], "eval_samples": 8, "calibration_samples": 8,
  "calibration_batch_size": 4, "calibration_sequence_length": 64, "micro_batch_size": 2,
  "fine_tune_max_steps": 3, "fine_tune_threshold": 0, "fine_tune_lr": 3e-3, "warmup_steps": 1, "log_every": 1,
  "threads_per_rank": 1, "num_workers": 2, "seed": 10
}
JSON
here() { # the files above, by relative names that messages repeat
    ln -s "$TMP"/{demo,few.jsonl,ids.bin,small,cfg.json} .
}
run() { # run NAME RANKS [key=value ...]
    local name=$1 ranks=$2
    shift 2
    "$MPIRUN" -n "$ranks" "$PHASE4_MPI" cfg.json output_path="$name" "$@" >log 2>&1 || complain "$name: failed"
}
said() { grep -qF -- "$1" log || complain "expected the line \"$1\""; }
unsaid() { ! grep -qF -- "$1" log || complain "did not expect the line \"$1\""; }
tuned() { grep -q '"steps":[[:space:]]*3,' "$1/results.json" || complain "$1: not fine-tuned by 3 steps"; }
once() { [ "$(grep -cF -- "$1" log)" = 1 ] || complain "expected one line \"$1\""; }

# The second run finds the first one's tokens and ends at the same losses; without a cache too.
token_cache() {
    here
    run first 1 token_cache=cache/tokens
    tuned first
    said 'tokenized into cache/tokens/tokens-'
    [ "$(find cache/tokens -type f | wc -l)" = 1 ] || complain "$(find cache/tokens): one file was expected"
    local before
    before=$(stat -c '%i %y' cache/tokens/*)
    run second 2 token_cache=cache/tokens
    said 'of the text from cache/tokens/tokens-'
    unsaid 'tokenized into'
    [ "$before" = "$(stat -c '%i %y' cache/tokens/*)" ] || complain 'the cache was written again'
    run without 3
    said 'tokenized into without/training_tokens.tmp'
    "$TOOL_COMPARE" first second losses 1e-5
    "$TOOL_COMPARE" first without losses 1e-5
    [ -z "$(find . -name '*.tmp')" ] || complain "$(find . -name '*.tmp'): left behind"

    # A cache that was cut off is not used, and replaced.
    truncate -s 1000 cache/tokens/*
    run third 1 token_cache=cache/tokens
    once 'is not used: '
    said 'tokenized into cache/tokens/tokens-'
    "$TOOL_COMPARE" first third losses 1e-6
}

# Token files and text make one set; the number of ranks decides nothing.
mixed() {
    here
    for ranks in 1 2 3 4; do
        run mixed$ranks $ranks 'train_files=["few.jsonl","ids.bin"]' zero_stage=0
        [ $ranks = 1 ] || "$TOOL_COMPARE" mixed1 mixed$ranks losses 1e-5
    done
    tuned mixed1
    run other 1 train_files='["few.jsonl"]' zero_stage=0
    if "$TOOL_COMPARE" mixed1 other losses 1e-5 2>/dev/null; then
        complain 'the losses do not depend on what is trained on'
    fi
}

# Windows to evaluate on are set aside from what is trained on, of calibration's windows and of a whole set.
set_aside() {
    here
    run aside 2 eval_files=[] train_files=[]
    said '8 to calibrate, 8 to evaluate, 8 to train on'
    unsaid 'to evaluate on and to train on'
    run whole 2 eval_files=[] train_files=[] calibration_samples=0 'calibration_files=["few.jsonl"]'
    said 'tokens: 8 to evaluate'
    total=$("$PHASE4_MPI" cfg.json output_path=count eval_samples=0 calibration_samples=0 'train_files=["few.jsonl"]' 2>&1 |
        sed -n 's/.* tokens: \([0-9]*\) to train on.*/\1/p')
    said ", $((total - 8)) to train on"
}

# What is asked for and not there is said once for each key; the values of defaults ask for nothing, given or not.
too_short() {
    here
    run short 2 eval_samples=5000 calibration_samples=900 'calibration_files=["few.jsonl"]'
    once 'key "eval_samples": asked for 5000 windows of 64 tokens, but there are only'
    once 'key "calibration_samples": asked for 900 windows'
    sed -i 's/"eval_samples": 8, //' cfg.json # a copy: the link is replaced
    run default 1
    unsaid 'key "eval_samples"'
}

# Text that is evaluated and trained on under two names is found by its inode.
leaks() {
    here
    ln demo/stories-train.jsonl other-name.jsonl
    run leak 2 'eval_files=["other-name.jsonl"]' eval_samples=4
    once 'other-name.jsonl is among the files to evaluate on and to train on (as demo/stories-train.jsonl)'
    run leak_calibration 1 'eval_files=["other-name.jsonl"]' eval_samples=4 train_files=[]
    once 'to evaluate on and to train on'
    run leak_aside 1 eval_files=[] eval_samples=4
    once 'to evaluate on and to train on'
    run no_leak 1 'eval_files=["other-name.jsonl"]' eval_samples=4 enable_fine_tuning=false
    unsaid 'to evaluate on and to train on'
}

# The first document of each text is read by --check; the shares of a mixture are said.
looked_at() {
    here
    echo '{"body": "a few words"}' >body.jsonl
    for how in --check --quiet; do
        ! "$PHASE4_MPI" $how cfg.json output_path=body 'train_files=["few.jsonl", "body.jsonl"]' >log 2>&1 || complain "$how: no error"
        once 'body.jsonl line 1'
    done
    "$PHASE4_MPI" --check cfg.json output_path=body 'train_files=["few.jsonl", "body.jsonl"]' text_field=body >log 2>&1 && complain 'another field'
    once 'few.jsonl line 1'
    run shares 2 'train_files=["demo/stories-train.jsonl", "ids.bin"]' 'train_weights=[3, 1]' eval_samples=0
    once 'training text: 75 % demo/stories-train.jsonl, 25 % ids.bin'
    unsaid 'calibration text:'
}

spawn token_cache
spawn looked_at
spawn leaks
spawn mixed
spawn set_aside
spawn too_short
join
