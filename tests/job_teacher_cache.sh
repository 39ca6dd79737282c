#!/usr/bin/env bash
# The file of a cached teacher: a run that is stopped while it is made keeps what there is of it, one that is killed what there was when
# it was last kept (checkpoint_minutes), and the process that continues makes the rest; one that is killed in training finds it whole. Both end with the same bytes as a run that nobody disturbed.
set -eu
. "$(dirname "$0")/job.sh"
. "$(dirname "$0")/held.sh"
cd "$TMP"
awk 'BEGIN {srand(3); for (i = 0; i < 4800; i++) printf "\\%o\\000", (i * 7 + int(rand() * 9)) % 40}' >octal
printf "$(cat octal)" >ids.bin # 400 windows of 12 token ids
cp ids.bin many.bin
for _ in 1 2 3 4; do cat many.bin many.bin >twice.bin && mv twice.bin many.bin; done # 6,400 windows
cat >cfg.json <<JSON
{
  "model_path": "$FIXTURES/models/llama-gqa", "output_path": "unset", "wandb_enabled": false, "device": "cpu",
  "calibration_dataset": "custom", "calibration_files": ["ids.bin"], "eval_files": ["ids.bin"], "train_files": ["many.bin"],
  "eval_samples": 20, "calibration_samples": 20, "calibration_batch_size": 2, "calibration_sequence_length": 12,
  "quantizer": "absmean", "sparsity_threshold": 1.6, "global_batch_tokens": 15360, "micro_batch_size": 64, "fine_tune_max_steps": 5,
  "fine_tune_threshold": 0, "fine_tune_lr": 5e-3, "warmup_steps": 1, "threads_per_rank": 1, "log_every": 1,
  "distill": 0.5, "distill_teacher": "cached", "distill_top_k": 8, "checkpoint_every": 100
}
JSON
start() { # start RANKS NAME [key=value ...]: in the background, as $job
    local ranks=$1 name=$2 command=("${hold[@]}" "$PHASE4_MPI")
    shift 2
    [ "$ranks" = 1 ] || command=("$MPIRUN" -n "$ranks" "${command[@]}")
    : >log
    "${command[@]}" cfg.json output_path="$name" "$@" >log 2>&1 &
    job=$!
}
hold=()
# held COUNT TEXT FILE RANKS NAME [key=value ...]: the same; when this returns, the run waits for let_go where hold_at says.
held() {
    hold_at "$1" "$2" "/$3"
    start "${@:4}"
    hold=()
    is_held "$job" || complain "the run has ended before write $1 of $3"
}
run() {
    local status=0
    start "$@"
    wait "$job" || status=$?
    [ $status = 0 ] || complain "$2: status $status"
}
said() { grep -qF -- "$1" log || complain "expected the line \"$1\""; }

run 1 taught
[ ! -e taught/teacher_top_k ] || complain "the teacher's file is left"
for ranks in 1 2; do
    held 1000 '' teacher_top_k $ranks pupil
    touch pupil/stop
    let_go
    wait "$job" || true
    said 'stopped by the file pupil/stop; the state of the run is in pupil/checkpoints/step-0'
    ! grep -q ' steps of 1280 x 12 tokens' log || complain 'the run was to be stopped before it trains'
    rm pupil/stop
    held 1 '"lr"' metrics.jsonl $ranks pupil
    if [ $ranks = 1 ]; then kill -9 "$job"; else pkill -9 -P "$job"; fi
    wait "$job" 2>/dev/null || true
    made=$(grep -o 'of [0-9]* of 6400 windows that the process before wrote' log) || complain 'the file was not continued'
    [ -e pupil/teacher_top_k ] || complain "the teacher's file is gone"
    run $ranks pupil
    said 'of 6400 of 6400 windows that the process before wrote'
    [ ! -e pupil/teacher_top_k ] || complain "the teacher's file is left"
    if [ $ranks = 1 ]; then
        "$TOOL_COMPARE" pupil taught bits 1e-15 >log || complain 'other bytes than those of a run that nobody disturbed'
    fi
    echo "a cached teacher on $ranks ranks: stopped and continued $made"
    rm -rf pupil
done
# Killed while the file is made, twice.
for ranks in 1 2; do
    before=0
    for writes in 3000 5000; do # of a record each; a process that continues begins with those of the one before
        held $writes '' teacher_top_k $ranks pupil checkpoint_minutes=1e-5
        [ -e pupil/teacher_top_k ] || complain "nothing was kept after $writes records"
        [ $before = 0 ] || until grep -q 'continues with the probabilities' log; do sleep 0.01; done # mpirun hands it on
        if [ $ranks = 1 ]; then kill -9 "$job"; else pkill -9 -P "$job"; fi
        wait "$job" 2>/dev/null || true
        ! grep -q ' steps of 1280 x 12 tokens' log || complain 'the run was to be killed before it trains'
        [ $before = 0 ] || [ "$(grep -o 'probabilities of [0-9]*' log | tr -dc 0-9)" -ge $before ] || complain 'records were lost'
        before=1
    done
    run $ranks pupil
    made=$(grep -o 'of [0-9]* of 6400 windows that the process before wrote' log) || complain 'the file was not continued'
    if [ $ranks = 1 ]; then
        "$TOOL_COMPARE" pupil taught bits 1e-15 >log || complain 'other bytes than those of a run that nobody disturbed'
    fi
    echo "a cached teacher on $ranks ranks: killed twice and continued $made"
    rm -rf pupil
done
# Of another text: made anew.
held 1 '"lr"' metrics.jsonl 1 pupil
kill -9 "$job"
wait "$job" 2>/dev/null || true
tail -c 200000 many.bin >other.bin
cat many.bin >>other.bin
run 1 pupil resume=never 'train_files=["other.bin"]'
! grep -q 'process before wrote' log || complain 'the records of another text were used'
