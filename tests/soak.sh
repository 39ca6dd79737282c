#!/usr/bin/env bash
# soak.sh [ROUNDS] [SEED]: faults in a loop. A round starts a run of phase4_mpi and disturbs it once; then the same command is started
# again, and after one to three such rounds it is left alone. It must then succeed, and leave the same bytes as a run that nobody
# disturbed: the same files, weights, statistics, figures and curve (times and time stamps aside). Every stage is in it; 1 to 3
# ranks, on CPUs.
#
#   kill      SIGKILL of a random rank at a random moment        full      the disk is full from a random call on
#   kill_call SIGKILL at a random call that changes the          error     a random call fails with EIO
#             output directory; of a write, after half of it     readonly  the output directory takes no more changes
#   TERM USR1 INT  to a random rank; status 75                   suspend   SIGSTOP of a random rank for longer than the others wait
#   stdout    standard output is closed
#
# `tests/soak.sh 1000` by hand needs a build in $BUILD (build/ci); SOAK_RANKS=2 takes the runs on two ranks only, and PHASE4_MPI may
# name another program, as one with NCCL emulated (nccl_emulator/check.sh). CTest runs the short form. A run that goes wrong is
# kept in $SOAK_KEEP, and a line says so.
set -u
export LC_ALL=C
here=$(dirname "$(readlink -f "$0")")
rounds=${1:-30}
seed=${2:-$RANDOM}
if [ -z "${P4_FAULTS:-}" ]; then
    BUILD=$(readlink -f "${BUILD:-$here/../build/ci}")
    export PHASE4_MPI=${PHASE4_MPI:-$BUILD/phase4_mpi} P4_FAULTS=$BUILD/tests/libp4_faults.so FIXTURES=$here/fixtures MPIRUN=${MPIRUN:-mpirun}
    export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_mpi_yield_when_idle=1
    export OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_pml=ob1 CUDA_VISIBLE_DEVICES=
    export HWLOC_COMPONENTS=-linuxio,-pci,-opencl,-cuda,-nvml,-gl
    exec bash "$here/with_tmp.sh" bash "$0" "$rounds" "$seed"
fi
cd "$TMP" || exit 1
RANDOM=$seed
LIMIT_S=600  # only a hang takes this long, on a loaded machine too
STOP_S=120   # likewise for a run that is asked to stop
PATIENCE_S=3 # of ranks whose peer is suspended (collective_timeout_s)
export ASAN_OPTIONS=verify_asan_link_order=0

# ---- what is run: NAME RANKS KEY=VALUE...
runs=(
    'resident 1 quantizer=gptq-cd reconstruct=true distill=0.9 distill_teacher=resident checkpoint_every=5'
    'cached 2 quantizer=exact reconstruct=false distill=0.9 distill_teacher=cached optimizer=adamw optimizer_state=bf16 checkpoint_every=7 checkpoint_minutes=1e-3'
    'sharded 3 quantizer=gptq-cd reconstruct=true distill=0.5 distill_teacher=sharded distill_blocks=1 zero_stage=1 checkpoint_every=5'
    'replicated 2 quantizer=absmean reconstruct=false distill=0 zero_stage=0 checkpoint_minutes=2e-3'
    'diagonal 1 quantizer=exact-diagonal reconstruct=true reconstruct_window=1 distill=0.9 distill_teacher=cached checkpoint_every=6'
    'gptq 3 quantizer=gptq reconstruct=true reconstruct_window=1 distill=0.9 distill_teacher=resident distill_blocks=2 optimizer=adamw checkpoint_minutes=1e-3'
    'blocks 2 quantizer=absmean reconstruct=true reconstruct_window=1 reconstruct_steps=64 distill=0 exact_sums=true checkpoint_minutes=1e-3'
)
if [ -n "${SOAK_RANKS:-}" ]; then # only the runs on so many ranks
    mapfile -t runs < <(printf '%s\n' "${runs[@]}" | grep -E "^[a-z]+ $SOAK_RANKS ")
fi
awk 'BEGIN {srand(3); a = 1; b = 2
    for (i = 0; i < 9600; i++) {c = (3 * a + 7 + (rand() < 0.3 ? int(3 * rand()) : 0)) % 53; a = b; b = c; printf "\\%o\\000", c}}' >octal
# shellcheck disable=SC2059
printf "$(cat octal)" >ids.bin # 800 windows of 12 token ids
cat >cfg.json <<JSON
{
  "model_path": "trained/dequantized_fp16", "output_path": "unset", "wandb_enabled": false, "device": "cpu",
  "calibration_dataset": "custom", "calibration_files": ["ids.bin"], "eval_files": ["ids.bin"], "train_files": ["ids.bin"],
  "eval_samples": 100, "calibration_samples": 100, "calibration_batch_size": 2, "calibration_sequence_length": 12,
  "sparsity_threshold": 0.7, "reconstruct_steps": 16, "distill_top_k": 16, "weight_decay": 0,
  "optimizer": "mugrokfast", "enable_grokfast": true,
  "global_batch_tokens": 120, "fine_tune_max_steps": 24, "fine_tune_epochs": 100, "fine_tune_threshold": 0,
  "fine_tune_lr": 3e-3, "warmup_steps": 1, "log_every": 1, "threads_per_rank": 1, "max_accuracy_drop": 0.5
}
JSON
"$PHASE4_MPI" cfg.json model_path="$FIXTURES/models/llama-gqa" output_path=trained init=random quantizer=none \
    fine_tune_max_steps=200 fine_tune_lr=0.02 distill=0 reconstruct=false global_batch_tokens=480 >log 2>&1 || {
    cat log
    exit 1
}

# command RANKS OUTPUT KEY=VALUE...: becomes the run; its standard output and error go to the file log
command() {
    local ranks=$1 output=$2
    shift 2
    local preload=(env "LD_PRELOAD=$P4_FAULTS" "P4_FAULT_UNDER=$output" "$PHASE4_MPI" cfg.json "output_path=$output" "$@")
    [ "$ranks" = 1 ] || preload=("$MPIRUN" -n "$ranks" "${preload[@]}")
    exec "${preload[@]}" >log 2>&1
}
lines() { # sets $count to the lines of the log
    local all=()
    [ ! -e log ] || mapfile -t all <log
    count=${#all[@]}
}
now_us() { echo "${EPOCHREALTIME/./}"; }
# finish: waits for the run $job; sets $status to how it ended, "hang" if it did not
finish() {
    local end=$((SECONDS + LIMIT_S))
    while kill -0 "$job" 2>/dev/null; do
        if [ "$SECONDS" -ge "$end" ]; then
            status=hang
            # shellcheck disable=SC2046
            kill -9 $(pgrep -P "$job") "$job" 2>/dev/null
            wait "$job" 2>/dev/null
            return
        fi
        sleep 0.02
    done
    status=0
    wait "$job" 2>/dev/null || status=$?
}
# digest OUTPUT: what must be the same
digest() {
    (
        cd "$1" || exit 1
        find . -type f -o -type l -o -type d | sort
        cksum dequantized_fp16/*
        sed -E 's/"(tokens_per_s|elapsed_s|seconds|time)":[^,}]*,?//g' metrics.jsonl
        h5dump -y -g /tensors -g /calibration -g /layers model.h5 | tail -n +2 | cksum # the first line names the file
        h5dump -y -g /metrics model.h5 | tail -n +2 | sed '/DATASET "tokens_per_s"/,/^      }/d'
        grep -o '"success":.*' results.json
    ) >"$1.digest" 2>&1
}

# ---- the undisturbed runs, and how many calls their ranks make
for row in "${runs[@]}"; do
    read -r name ranks keys <<<"$row"
    # shellcheck disable=SC2086
    P4_FAULT_COUNT=$TMP/$name.calls command "$ranks" "whole.$name" $keys &
    job=$!
    finish
    [ "$status" = 0 ] || { cat log; echo "soak: the undisturbed run \"$name\" ended with status $status"; exit 1; }
    grep -q '"steps":[[:space:]]*24' "whole.$name/results.json" || { cat log; echo "soak: \"$name\" trains no 24 steps"; exit 1; }
    digest "whole.$name"
    eval "lines_$name=$(grep -n '^\[10/10\]' log | cut -d: -f1)"
    mv "whole.$name.digest" "$name.digest"
    rm -rf "whole.$name"
done

# ---- one fault
declare -A given=()
slowest_us=0 slowest='' hangs=0 lost=0 different=0 unclear=0 done_rounds=0 too_late=0 completed=0
kept=0
keep() { # keep WHAT: sets the run aside
    kept=$((kept + 1))
    echo "soak: round $done_rounds, $what, $name: $1; kept in $keep_in/$kept"
    mkdir -p "$keep_in/$kept"
    cp -r log "run.$name" "run.$name.digest" "$name.digest" expected.digest ./*.failed "$keep_in/$kept" 2>/dev/null
    tail -n 15 log
}
keep_in=${SOAK_KEEP:-/tmp/phase4-soak.$$}
start() { # start KEY=VALUE...: the run of this round in the background, as $job
    rm -f log
    # shellcheck disable=SC2086
    command "$ranks" "run.$name" $keys "$@" &
    job=$!
}
# wait_moment: until the log has a random number of lines, and a little longer; sets $victim to a rank. 1: the run has ended
wait_moment() {
    local total wanted count pids
    eval "total=\$lines_$name"
    wanted=$((RANDOM % (total + 1)))
    while lines && [ "$count" -lt "$wanted" ]; do
        kill -0 "$job" 2>/dev/null || return 1
        sleep 0.02
    done
    sleep "0.0$((RANDOM % 60 + 10))"
    if [ "$ranks" = 1 ]; then
        victim=$job
    else
        mapfile -t pids < <(pgrep -P "$job" -f "$PHASE4_MPI")
        [ ${#pids[@]} -gt 0 ] || return 1
        victim=${pids[RANDOM % ${#pids[@]}]}
    fi
    kill -0 "$victim" 2>/dev/null
}
# stop SIGNAL: status 75 within STOP_S, unless the run had ended or not begun
stop() {
    local began
    start
    wait_moment || return 1
    began=$(now_us)
    kill "-$1" "$victim" 2>/dev/null || return 1
    finish
    began=$(($(now_us) - began))
    [ "$status" != 0 ] || return 1
    if [ "$began" -gt "$slowest_us" ]; then
        slowest_us=$began slowest="$1, $name, after \"$(grep -v '^phase4' log | tail -n 1 | cut -c1-60)\""
    fi
    # Before the program catches signals they end it.
    [ "$status" = 75 ] || ! grep -q '^\[1/' log || trouble="status $status instead of 75"
    [ "$status" != 75 ] || grep -q '^phase4: stopped ' log || trouble='no line says that it stopped'
}
# fail_call KIND: the injector's fault at a random call
fail_call() {
    local rank=$((RANDOM % ranks)) calls
    calls=$(cat "$name.calls.$rank" 2>/dev/null || echo 0)
    [ "$calls" -gt 0 ] || rank=0 calls=$(cat "$name.calls.0")
    export P4_FAULT=$rank,$((RANDOM % calls + 1)),$1
    start
    unset P4_FAULT
    finish
    grep -qa 'fault_injector: here' log || return 1
    case $1,$status in
    kill,* | *,0 | *,hang) ;;
    *,1 | *,2) grep -qa '^phase4: error' log || trouble="status $status without a message" ;;
    *) trouble="status $status instead of 1 or 2" ;;
    esac
}
disturb() { # disturb KIND; 1: the fault came too late
    local killed
    case $1 in
    kill)
        start
        wait_moment || return 1
        kill -9 "$victim" 2>/dev/null || return 1
        finish
        ;;
    kill_call) fail_call kill ;;
    TERM | USR1 | INT) stop "$1" ;;
    full | error | readonly) fail_call "$1" ;;
    suspend)
        start collective_timeout_s=$PATIENCE_S
        wait_moment || return 1
        kill -STOP "$victim" 2>/dev/null || return 1
        killed=$((SECONDS + PATIENCE_S + 1))
        while [ "$SECONDS" -lt "$killed" ] && kill -0 "$job" 2>/dev/null; do
            sleep 0.1
        done
        kill -CONT "$victim" 2>/dev/null
        finish
        [ "$status" = 0 ] || [ "$status" = hang ] || grep -q 'collective_timeout_s' log || trouble="status $status without a message"
        ;;
    stdout)
        rm -f log
        # shellcheck disable=SC2086,SC2016
        if [ "$ranks" = 1 ]; then
            "$PHASE4_MPI" cfg.json "output_path=run.$name" $keys 2>log >&- &
        else
            "$MPIRUN" -n "$ranks" bash -c 'exec "$@" >&-' rank "$PHASE4_MPI" cfg.json "output_path=run.$name" $keys >log 2>&1 &
        fi
        job=$!
        finish
        [ "$status" = hang ] || [ "$status" = 1 ] || trouble="status $status instead of 1"
        ;;
    esac
}
# A run that dies while it clears up after its outputs is complete to a reader, and to the program not.
is_complete() {
    grep -q '"success":[[:space:]]*true' "run.$name/results.json" 2>/dev/null && { [ "$status" = 0 ] || [ ! -e "run.$name/.phase4_run" ]; }
}
compare() {
    # A directory that takes no more changes keeps its checkpoints, which is said, and the program's own two files.
    ! grep -qa 'the run is complete, its checkpoints are left' log || rm -rf "run.$name/checkpoints"
    [[ $what != *readonly ]] || rm -f "run.$name/.phase4_hold" "run.$name/.phase4_run"
    # So is its list of files that cannot be removed.
    ! grep -qa "^warning: run\.$name/\.phase4_run: cannot be removed" log || rm -f "run.$name/.phase4_run"
    digest "run.$name"
    cp "$name.digest" expected.digest
    # A file about the result that cannot be written is a warning, and the run goes on: the result is the same without it.
    while read -r file; do
        sed -i "\\#^\./$file\$#d" expected.digest
    done < <(sed -n "s#^warning: run\.$name/\(details\.json\|report\.html\): is not there; the run goes on without it\$#\1#p" log)
    if ! cmp -s "run.$name.digest" expected.digest; then
        different=$((different + 1))
        diff "run.$name.digest" expected.digest >different.failed
        keep 'the result differs'
        head -n 20 different.failed
        rm different.failed
    fi
    completed=$((completed + 1))
    rm -rf "run.$name" "run.$name.digest" expected.digest
}

# bash reports each run that a signal ended.
exec 3>&2 2>shell.log
trap "grep -v -e 'Killed  ' -e 'Terminated  ' shell.log >&3" EXIT
kinds=(kill kill kill_call kill_call kill_call TERM USR1 INT full full error error readonly suspend stdout)
while [ "$done_rounds" -lt "$rounds" ]; do
    row=${runs[RANDOM % ${#runs[@]}]}
    read -r name ranks keys <<<"$row"
    rm -rf "run.$name"
    what=''
    for ((turn = 0, turns = RANDOM % 3 + 1; turn < turns && done_rounds < rounds; turn++)); do
        kind=${kinds[RANDOM % ${#kinds[@]}]}
        trouble=''
        what="$what $kind"
        if disturb "$kind"; then
            done_rounds=$((done_rounds + 1))
            given[$kind]=$((${given[$kind]:-0} + 1))
        else
            too_late=$((too_late + 1))
            finish
        fi
        cp log "$turn.failed"
        if [ "$status" = hang ]; then
            hangs=$((hangs + 1))
            keep 'hang'
        elif [ -n "$trouble" ]; then
            unclear=$((unclear + 1))
            keep "$trouble"
        fi
        ! is_complete || break
    done
    if ! is_complete; then
        start
        finish
        if [ "$status" = hang ]; then
            hangs=$((hangs + 1))
            keep 'hang in the run that continues'
        elif [ "$status" != 0 ]; then
            lost=$((lost + 1))
            keep "lost: the same command ends with status $status"
            rm -f ./*.failed
            continue
        fi
    fi
    compare
    rm -f ./*.failed
    if [ $((completed % 25)) = 0 ]; then
        echo "soak: $done_rounds of $rounds rounds, lost $lost, different $different, hangs $hangs, unclear $unclear"
    fi
done
summary=''
for kind in $(printf '%s\n' "${!given[@]}" | sort); do
    summary="$summary $kind ${given[$kind]}"
done
echo "soak: $rounds rounds with seed $seed, $completed runs completed;$summary (and $too_late that came too late)"
echo "soak: lost $lost, different $different, hangs $hangs, unclear $unclear; the longest from stop to exit: $((slowest_us / 1000)) ms ($slowest)"
[ "$lost$different$hangs$unclear" = 0000 ] && [ "$slowest_us" -lt $((STOP_S * 1000000)) ]
