#!/usr/bin/env bash
# A rank that is stopped (SIGSTOP), in whatever stage, ends the job within collective_timeout_s, and one line names it and its
# host. Work that one rank does alone for longer is no reason to end (mpi_group.c), nor is a pause of the whole job.
set -eu
. "$(dirname "$0")/job.sh"
. "$(dirname "$0")/held.sh"
SLOTS=4 # these runs wait most of the time
TIMEOUT_S=4
cd "$TMP"
demo
model small "${SMALL[@]}"
cat >cfg.json <<JSON
{
  "model_path": "$TMP/small", "output_path": "out", "init": "random", "wandb_enabled": false,
  "device": "cpu", "collective_timeout_s": $TIMEOUT_S,
  "calibration_dataset": "custom", "calibration_files": ["$TMP/demo/stories-train.jsonl"],
  "eval_files": [], "eval_samples": 8, "calibration_samples": 8,
  "calibration_batch_size": 2, "calibration_sequence_length": 64, "fine_tune_max_steps": 3, "reconstruct": true, "reconstruct_steps": 2,
  "fine_tune_threshold": 0, "warmup_steps": 1, "threads_per_rank": 1, "num_workers": 1
}
JSON
ranks() { pgrep -P "$job" -f "$PHASE4_MPI" || true; }
# start WORDS [key=value ...]: a run on two ranks, and waits for the words in its log. The run does not get to its end before let_go:
# it waits when it has begun to write the model.
start() {
    local words=$1
    shift
    hold_at 1 '' /out/model.h5
    "$MPIRUN" -n 2 "${hold[@]}" "$PHASE4_MPI" "$TMP/cfg.json" "$@" >log 2>&1 &
    job=$!
    for _ in $(seq 1 $((10 * HANG_S))); do
        ! grep -qF -- "$words" log || return 0
        kill -0 "$job" 2>/dev/null || break
        sleep 0.02
    done
    complain "\"$words\" was not logged"
}

stop() { # stop RANK WORDS: the rank is stopped when the words are in the log
    local victim=none process status=0 started
    start "$2"
    for process in $(ranks); do
        ! grep -zq "^OMPI_COMM_WORLD_RANK=$1$" "/proc/$process/environ" || victim=$process
    done
    kill -STOP "$victim" || complain "rank $1 has ended"
    let_go
    started=$SECONDS
    while kill -0 "$job" 2>/dev/null; do
        if [ $((SECONDS - started)) -gt $((TIMEOUT_S + HANG_S)) ]; then
            kill -KILL "$victim" "$job"
            complain "rank $1 stopped at \"$2\": the job has not ended after $((SECONDS - started)) s"
        fi
        sleep 0.1
    done
    wait "$job" || status=$?
    kill -KILL "$victim" 2>/dev/null || true
    [ $status != 0 ] || complain "rank $1 stopped at \"$2\": status 0"
    [ "$(grep -c '^phase4: rank' log)" = 1 ] || complain "rank $1 stopped at \"$2\": expected one line"
    grep -q "^phase4: rank $((1 - $1)) on .*: rank $1 on $(hostname)\(: has not run for $TIMEOUT_S s\|\$\)" log ||
        complain "rank $1 stopped at \"$2\": who it is is not said"
    echo "rank $1 stopped at \"$2\": the job ended after $((SECONDS - started)) s: $(grep '^phase4: rank' log)"
}

end_of_job() { # a rank that is stopped on its way out of MPI
    local status=0
    "$MPIRUN" -n 2 "$TOOL_ENDING" >log 2>&1 || status=$?
    [ $status != 0 ] || complain 'a rank that was stopped on its way out of MPI: status 0'
    grep -q "^phase4: rank 0 on .*: end of the job: rank 1 on $(hostname): has not run for 2 s" log ||
        complain 'a rank that was stopped on its way out of MPI is not named'
    echo "stopped on its way out of MPI: $(grep '^phase4: rank' log)"
}

pause() { # the whole job, in training, for longer than the timeout
    local status=0
    start '[7/10]' fine_tune_max_steps=60 fine_tune_epochs=60
    # shellcheck disable=SC2046
    kill -STOP $(ranks)
    sleep $((TIMEOUT_S + 3))
    kill -0 "$job" || complain 'a job that was suspended as a whole has ended'
    # shellcheck disable=SC2046
    kill -CONT $(ranks)
    let_go
    wait "$job" || status=$?
    [ $status = 0 ] || complain "a job that was suspended as a whole ended with status $status"
    echo 'a job that was suspended as a whole went on'
}

for words in '[1/10]' '[2/10]' '[4/10]' '[5/10]' 'relative error of the output' '[7/10]' '[9/10]' '[10/10]'; do
    spawn stop 1 "$words"
done
spawn stop 0 '[1/10]'
spawn stop 0 '[10/10]'
spawn pause
spawn end_of_job
join
