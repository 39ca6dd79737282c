# shellcheck shell=bash
# watched_run.sh: a small run with records for W&B and TensorBoard, for job_watchers.sh and clients/; they source it.
. "$FIXTURES/../held.sh"

fail() {
    echo "$(basename "$0"): $*"
    tail -n 20 log
    exit 1
}

# watched_run: its configuration, cfg.json, and its token ids.
watched_run() {
    awk 'BEGIN {srand(3); for (i = 0; i < 4800; i++) printf "\\%o\\000", (i * 7 + int(rand() * 9)) % 40}' >octal
    printf "$(cat octal)" >ids.bin # 400 windows of 12 token ids
    cat >cfg.json <<JSON
{"model_path": "$FIXTURES/models/llama-gqa", "output_path": "out", "wandb_enabled": true, "tensorboard_enabled": true,
 "calibration_dataset": "custom", "calibration_files": ["ids.bin"], "eval_files": ["ids.bin"], "train_files": ["ids.bin"],
 "calibration_sequence_length": 12, "eval_samples": 20, "calibration_samples": 20, "global_batch_tokens": 240,
 "fine_tune_epochs": 1000, "fine_tune_max_steps": 200, "fine_tune_threshold": 0, "fine_tune_lr": 1e-3, "warmup_steps": 1,
 "checkpoint_every": 20, "eval_every": 30, "log_every": 3, "threads_per_rank": 1}
JSON
}

# stop_and_continue: the run is stopped within its training and continued. $first: the directory of the first process's W&B run.
stop_and_continue() {
    local job status=0
    hold_at 2 '"stage":"fine_tune"' /metrics.jsonl signal
    "${hold[@]}" "$PHASE4_MPI" cfg.json >log 2>&1 &
    job=$!
    is_held "$job" || fail 'the run ended before it was evaluated twice in training'
    kill -USR1 "$job"
    wait "$job" || status=$?
    [ $status = 75 ] || fail "status $status, expected 75"
    first=$(ls -d out/wandb/offline-run-*)
    "$PHASE4_MPI" cfg.json >log 2>&1 || fail 'the run is not continued'
}

# environment NAME PACKAGE...: a Python environment in the build folder, $CLIENTS/NAME, with these packages. Ends the test where pip
# cannot install them.
environment() {
    local folder=$CLIENTS/$1
    shift
    [ -e "$folder/complete" ] && return
    rm -rf "$folder"
    if ! { python3 -m venv "$folder" && "$folder/bin/pip" install -q "$@"; } >pip.log 2>&1; then
        echo "$(basename "$0" .sh): skipped: pip cannot install $*: $(tail -n 1 pip.log)"
        exit 77
    fi
    touch "$folder/complete"
}
