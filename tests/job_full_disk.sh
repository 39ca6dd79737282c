#!/usr/bin/env bash
# A disk that is full when the outputs are written: what hours have made is in a checkpoint if there is room for one, results.json and
# the message say what failed and how to go on, and the same command ends with the files of an undisturbed run. Results that are not
# there yet are explained by the programs that look for them. job_no_room.sh has a disk with room for nothing.
set -eu
. "$(dirname "$0")/job.sh"
. "$(dirname "$0")/held.sh"
here=$(cd "$(dirname "$0")" && pwd)
cd "$TMP"
. "$here/undisturbed.sh"

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

# A run that was to start anew: the same command would remove what it has saved.
anew() {
    local limit=$(($(stat -c %s "$TMP/whole/$fp16") / 1024 - 4))
    printf 'ulimit -f %d\nexec "$@"\n' $limit >limited
    run 2 bash limited "$PHASE4_MPI" "$TMP/cfg.json" save_quantized=false resume=never
    said 'the state of the run is in out/checkpoints/step-4: the same command with resume=auto continues it'
    run 0 "$PHASE4_MPI" "$TMP/cfg.json" save_quantized=false resume=auto
    said 'continues from out/checkpoints/step-4'
    hold_at 1 '"kind":"train"' /metrics.jsonl
    "${hold[@]}" "$PHASE4_MPI" "$TMP/cfg.json" output_path=stopped resume=never >log 2>&1 &
    local job=$! status=0
    is_held "$job" || complain 'the run does not train'
    touch stopped/stop
    let_go
    wait "$job" || status=$?
    [ $status = 75 ] || complain "a stopped run: status $status, expected 75"
    said 'once that file is removed, the same command with resume=auto continues it'
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
spawn anew
spawn not_ended
join
