#!/usr/bin/env bash
# A failure is injected at every agreement of a whole run, each time on another of three ranks: all ranks end by themselves with
# the status of a fault (1) and there is one message; nothing half-written is left. The number of agreements is found by trying:
# a run whose injection lies behind its last agreement passes. Some agreements fail once more in runs that are started one by one.
set -eu
. "$(dirname "$0")/job.sh"
cd "$TMP"
demo
model small "${SMALL[@]}"
cat >cfg.json <<JSON
{
  "model_path": "$TMP/small", "output_path": "out", "init": "random", "wandb_enabled": false,
  "calibration_dataset": "custom", "calibration_files": ["$TMP/demo/stories-train.jsonl"],
  "eval_files": ["$TMP/demo/stories-valid.jsonl"], "eval_samples": 2, "calibration_samples": 4,
  "calibration_batch_size": 2, "calibration_sequence_length": 32, "fine_tune_threshold": 0,
  "reconstruct": true, "reconstruct_steps": 1, "reconstruct_window": 3,
  "fine_tune_max_steps": 1, "warmup_steps": 0, "log_every": 1, "threads_per_rank": 1, "num_workers": 1,
  "distill": 0.5, "distill_teacher": "cached", "distill_top_k": 8
}
JSON
ranks=3

# left_over: what a run that failed must not leave: temporary names, a teacher's cache, or results that do not say that it failed.
left_over() {
    [ ! -e out ] || find out -name '*.tmp' -o -name teacher_top_k
    [ ! -e out/results.json ] || grep -L '"success":[[:space:]]*false' out/results.json || true
}
# check AGREEMENT STATUS: the run in the current directory, which the failure at AGREEMENT ended with STATUS.
check() {
    local message="injected failure at agreement $1 on rank $(($1 % ranks))"
    if [ "$2" != 1 ] || [ "$(grep -c "phase4: error: $message" log)" != 1 ] || [ "$(grep -c 'phase4: error' log)" != 1 ]; then
        complain "status $2, expected 1 and one message \"$message\""
    elif [ -n "$(left_over)" ]; then
        complain "$message: this is left: $(left_over)"
    fi
}

most=1000
for ((agreement = 1; agreement <= most; agreement++)); do
    plan planned "$TMP/$agreement" "$agreement,$((agreement % ranks))" --quiet "$TMP/cfg.json"
done
ended=0
run_planned $ranks planned --until-success || ended=$?
for ((agreement = 1; agreement <= most; agreement++)); do
    cd "$TMP/$agreement"
    status=0
    outcome $ranks || status=$?
    [ $status != 0 ] || break
    check $agreement $status || exit 1
done
[ $ended = 0 ] || exit 1
agreements=$((agreement - 1))
grep -q '"steps":[[:space:]]*1,' out/results.json || { complain "the run did not fine-tune: not every stage was tried"; exit 1; }
echo "$agreements agreements, each failed once"
[ $agreements -gt 20 ] || { echo "too few agreements to be the whole run"; exit 1; }

# At every consultation of a run that saves checkpoints. Some end the run, as an agreement does; it survives a save that fails, with
# one warning.
consultations=20
saving=(fine_tune_max_steps=2 checkpoint_every=1 reconstruct=false distill=0 distill_teacher=auto device=cpu)
cd "$TMP"
for ((number = 1; number <= consultations; number++)); do
    plan saves "$TMP/save$number" "consultation:$number,$((number % ranks))" --quiet "$TMP/cfg.json" "${saving[@]}"
done
run_planned $ranks saves || exit 1
survived=0
for ((number = 1; number <= consultations; number++)); do
    cd "$TMP/save$number"
    message="injected failure at consultation $number on rank $((number % ranks))"
    status=0
    outcome $ranks || status=$?
    grep -q 'injected failure' log || [ $status != 0 ] || break
    if [ $status = 0 ] && [ "$(grep -c "warning: .*$message" log)" = 1 ] && ! grep -q 'phase4: error' log; then
        survived=$((survived + 1))
    elif [ $status != 1 ] || [ "$(grep -c "phase4: error: $message" log)" != 1 ] || [ "$(grep -c 'phase4: error' log)" != 1 ]; then
        complain "consultation $number: status $status, expected one warning, or status 1 and one message"
        exit 1
    fi
    left=$([ ! -e out ] || find out -name '*.tmp')
    [ -z "$left" ] || { complain "$message: this is left: $left"; exit 1; }
done
echo "$((number - 1)) consultations, each failed once; $survived survived"
[ $survived -ge 10 ] && [ $number -le $consultations ] || { echo "that is not two saves of a whole run"; exit 1; }

# In a process of its own, whose end is part of the run; and as users start it, where mpirun ends the other ranks.
alone() { # alone AGREEMENT
    local status=0
    P4_INJECT_FAILURE=$1,$(($1 % ranks)) on_ranks $ranks "$PHASE4_MPI" --quiet "$TMP/cfg.json" || status=$?
    check "$1" $status
}
by_mpirun() { # by_mpirun AGREEMENT
    local status=0
    P4_INJECT_FAILURE=$1,$(($1 % ranks)) timeout "$HANG_S" "$MPIRUN" -n $ranks "$PHASE4_MPI" --quiet "$TMP/cfg.json" >log 2>&1 || status=$?
    check "$1" $status
}
for ((agreement = 1; agreement <= agreements; agreement += 8)); do
    spawn alone $agreement
done
spawn by_mpirun $((agreements / 2))
join
