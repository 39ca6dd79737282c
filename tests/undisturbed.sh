# undisturbed.sh - for tests of runs whose disk fills: cfg.json, the files of a run that nothing disturbs (whole/), and checks of what
# programs say and leave. Sourced in $TMP, behind job.sh.
# shellcheck shell=bash
demo
model six
# A seed with which quantizing the random weights raises the perplexity: otherwise nothing would be fine-tuned.
cat >cfg.json <<JSON
{
  "model_path": "$TMP/six", "output_path": "out", "init": "random", "wandb_enabled": false, "device": "cpu", "seed": 2,
  "calibration_dataset": "custom", "calibration_files": ["$TMP/demo/stories-train.jsonl"],
  "eval_files": ["$TMP/demo/stories-valid.jsonl"], "eval_samples": 4, "calibration_samples": 8, "calibration_batch_size": 2,
  "calibration_sequence_length": 32, "global_batch_tokens": 128, "fine_tune_threshold": 0, "quantizer": "absmean", "fine_tune_max_steps": 4,
  "fine_tune_lr": 3e-3, "warmup_steps": 1, "log_every": 1, "threads_per_rank": 1, "num_workers": 1
}
JSON
said() { grep -qF -- "$1" log || complain "expected \"$1\""; }
result() { # result DIRECTORY EXPRESSION: of its results.json, as r
    python3 -c "import json, sys; r = json.load(open(sys.argv[1] + '/results.json')); sys.exit(not ($2))" "$1" ||
        complain "$1/results.json: not $2"
}
run() { # run STATUS COMMAND...
    local expected=$1 status=0
    shift
    "$@" >log 2>&1 || status=$?
    [ $status = "$expected" ] || complain "$*: status $status, expected $expected"
}
"$PHASE4_MPI" --quiet cfg.json output_path=whole >log 2>&1 || complain 'the undisturbed run'
fp16=dequantized_fp16/model.safetensors
same() { # same DIRECTORY: the files of the undisturbed run
    cmp "$1/$fp16" "$TMP/whole/$fp16" || complain "$1: other weights"
    "$TOOL_COMPARE" "$1" "$TMP/whole" bits 0 && "$TOOL_COMPARE" "$1" "$TMP/whole" losses 0
    [ ! -e "$1/checkpoints" ] && [ ! -e "$1/.phase4_reserve" ] || complain "$1: a checkpoint or the reserve is left"
}

