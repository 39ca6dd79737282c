#!/usr/bin/env bash
# A disk that is full when the outputs are written: what hours have made is in a checkpoint if there is room for one, results.json and
# the message say what failed and how to go on, and the same command ends with the files of an undisturbed run. Results that are not
# there yet are explained by the programs that look for them.
set -eu
. "$(dirname "$0")/job.sh"
. "$(dirname "$0")/held.sh"
cd "$TMP"
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

# The largest output does not fit (a limit on the size of a file stands for the disk), the state does.
room() { # room RANKS
    local limit=$(($(stat -c %s "$TMP/whole/$fp16") / 1024 - 4)) program
    printf 'ulimit -f %d\nexec "$@"\n' $limit >limited
    run 2 "$MPIRUN" -n "$1" bash limited "$PHASE4_MPI" "$TMP/cfg.json" save_quantized=false
    said 'File too large; the state of the run is in out/checkpoints/step-4: the same command continues it'
    result out "not r['success'] and 'File too large; the state' in r['error'] and r['fine_tuning']['steps'] == 4"
    [ -z "$(find out -name '*.tmp')" ] || complain "files are left: $(find out -name '*.tmp')"
    for program in "$PHASE4_INSPECT" "$PHASE4_EVALUATE"; do
        run 2 "$program" out
        said 'out: this run failed and left no model: '
    done
    run 0 "$PHASE4_REPORT" out
    grep -q 'File too large' out/report.html || complain 'the report does not say what failed'
    run 0 "$MPIRUN" -n "$1" "$PHASE4_MPI" "$TMP/cfg.json" save_quantized=false
    said 'continues from out/checkpoints/step-4'
    ! grep -qF '] Fine-tune' log || complain 'work is repeated'
    [ "$1" != 1 ] || cmp "out/$fp16" "$TMP/whole/$fp16" || complain 'other weights'
    [ ! -e out/checkpoints ] && [ ! -e out/.phase4_reserve ] || complain "a checkpoint or the reserve is left"
}

# A model of a batch: the batch does not try one that failed again by itself, and the message does not say so.
batched() {
    local limit=$(($(stat -c %s "$TMP/whole/$fp16") / 1024 - 4))
    printf 'ulimit -f %d\nexec "$@"\n' $limit >limited
    echo "[{\"cfg\": \"$TMP/cfg.json\", \"name\": \"a\"}]" >queue.json
    run 5 "$MPIRUN" -n 1 bash limited "$PHASE4_BATCH" queue.json save_quantized=false
    result out "'the state of the run is in out/checkpoints/step-4: ' in r['error'] and r['error'].endswith('phase4_batch with --failed-only continues it')"
    run 5 "$MPIRUN" -n 1 "$PHASE4_BATCH" queue.json save_quantized=false
    run 0 "$MPIRUN" -n 1 "$PHASE4_BATCH" --failed-only queue.json save_quantized=false
    grep -qF 'continues from out/checkpoints/step-4' queue.batch/logs/a.log || complain 'the model starts anew'
    ! grep -qF 'touch ' queue.batch/logs/a.log || complain 'a model of a batch says how to stop it alone'
    cmp "out/$fp16" "$TMP/whole/$fp16" || complain 'other weights'
}

# Nothing fits, not even a checkpoint: the room for results.json was taken before.
nothing() { # nothing DIRECTORY: where a small file system is mounted
    mount -t tmpfs -o size=24m none "$1"
    local out=$1/out bytes free job status=0
    hold_at 1 '"kind":"evaluation","stage":"final"' /metrics.jsonl
    "${hold[@]}" "$PHASE4_MPI" "$TMP/cfg.json" output_path="$out" checkpoint_every=3 >log 2>&1 &
    job=$!
    is_held "$job" || complain 'the run ended before its last evaluation'
    cat /dev/zero >"$1/filler" 2>/dev/null || true
    let_go
    wait "$job" || status=$?
    [ $status = 2 ] || complain "a full disk: status $status, expected 2"
    said "No space left on device"
    said "the state of the run could not be saved ("
    said "and the same command continues from $out/checkpoints/step-3"
    result "$out" "not r['success'] and 'No space left on device' in r['error'] and 'the same command continues' in r['error']"
    # As much as it says, and no more.
    free=$(sed -n 's/.*: free \([0-9.]*\) MiB on the disk, and .*/\1/p' log | head -n 1)
    bytes=$(awk -v m="$free" 'BEGIN {printf "%d", m * 1048576}')
    truncate -s "-$bytes" "$1/filler"
    run 0 "$PHASE4_MPI" "$TMP/cfg.json" output_path="$out" checkpoint_every=3
    said "continues from $out/checkpoints/step-3"
    same "$out"
}

# A run that is stopped, or under way, has no results yet.
not_ended() {
    hold_at 2 '"kind":"train"' /metrics.jsonl
    "${hold[@]}" "$PHASE4_MPI" "$TMP/cfg.json" >first 2>&1 &
    local job=$! state command status=0
    is_held "$job" || complain 'the run does not train'
    for state in 'under way' stopped; do
        for command in "$PHASE4_INSPECT out" "$PHASE4_GENERATE out text" "$PHASE4_EVALUATE out" "$PHASE4_EXPORT out --to gguf"; do
            # shellcheck disable=SC2086
            run 2 $command
            said 'out: this run has not ended; the same command continues it'
        done
        if [ "$state" = 'under way' ]; then
            touch out/stop
            let_go
            wait "$job" || status=$?
        fi
    done
    [ $status = 75 ] || complain "a stopped run: status $status, expected 75"
}

spawn room 1
spawn room 2
spawn batched
spawn not_ended
mkdir disk
if unshare -rm mount -t tmpfs -o size=24m none disk 2>unmounted; then
    export -f nothing hold_at is_held let_go complain said result run same
    export fp16
    spawn unshare -rm bash -euc "nothing '$TMP/disk'"
else
    echo "a full disk is not tested: $(cat unmounted)"
fi
join
