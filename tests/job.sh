# shellcheck shell=bash
# job.sh: what the scripts job_NAME.sh share; they source it. Independent checks run side by side (spawn, join); a run on several
# ranks has the exit status of each rank checked (on_ranks); many small runs share one start (plan, run_planned, outcome); small
# models are derived from the demo's (demo, model).

# How many checks run at once. A test has two cores (PROCESSORS in CMakeLists.txt), and more than half of the start-up time of
# an MPI program is waiting.
SLOTS=3
# Only a hang takes this long: the slowest command under this limit takes 3 s on two idle cores, the longest plan 15 s; with twenty
# processes for two cores thirty times as long.
HANG_S=400
PLAN_HANG_S=1200
spawned=0 # since the last join

# spawn FUNCTION ARGUMENT...: runs it in the background, in an empty directory of its own and under set -e, once one of the SLOTS
# is free, and prints what it printed when it has ended. It fails if its exit status is not 0. Open MPI's files lie apart: an
# mpirun that ends removes the directory that another is about to use.
spawn() {
    while [ "$(jobs -rp | wc -l)" -ge "$SLOTS" ]; do
        wait -n || true
    done
    spawned=$((spawned + 1))
    local folder=$TMP/spawned/$spawned
    mkdir -p "$folder"
    {
        set +e
        (export OMPI_MCA_orte_tmpdir_base=$folder.mpi && set -e && cd "$folder" && "$@") >"$folder.log" 2>&1
        echo $? >"$folder.status"
        cat "$folder.log"
    } &
}

# join: waits for all that was spawned; returns 1 if any of it failed.
join() {
    local i failed=0
    wait
    for ((i = 1; i <= spawned; i++)); do
        [ "$(cat "$TMP/spawned/$i.status")" = 0 ] || failed=$((failed + 1))
    done
    [ $failed = 0 ] || echo "$failed of $spawned checks failed"
    rm -rf "$TMP/spawned"
    spawned=0
    [ $failed = 0 ]
}

# same_status RANKS: returns the number that status.0 to status.RANKS-1 hold in the current directory; 125 if they differ or one
# is missing.
same_status() {
    local rank found common
    found=$(for ((rank = 0; rank < $1; rank++)); do [ -s "status.$rank" ] && cat "status.$rank" || echo none; done)
    common=$(sort -u <<<"$found")
    if ! [[ $common =~ ^[0-9]+$ ]]; then
        echo "the ranks ended with status $(tr '\n' ' ' <<<"$found")" >>log
        return 125
    fi
    return "$common"
}

# on_ranks RANKS COMMAND...: runs COMMAND on that many ranks; what they print goes to ./log. Returns the status with which every
# rank ended by itself, 125 if they differ. mpirun kills the other ranks as soon as one ends with another status than 0, which
# would hide that they hang: a shell around each rank records the status and ends with 0.
on_ranks() {
    local ranks=$1 status=0
    shift
    rm -f status.*
    # shellcheck disable=SC2016
    timeout "$HANG_S" "$MPIRUN" -n "$ranks" bash -c '"$@"; echo $? >"status.$OMPI_COMM_WORLD_RANK"' rank "$@" >log 2>&1 || status=$?
    [ $status = 0 ] || echo "mpirun ended with status $status (124: not within $HANG_S s)" >>log
    same_status "$ranks"
}

# plan LIST DIRECTORY INJECTION ARGUMENT...: adds a run of phase4_mpi to the file LIST: in DIRECTORY, which is made, with
# P4_INJECT_FAILURE=INJECTION ("-": none).
plan() {
    local list=$1 IFS=$'\t'
    shift
    mkdir -p "$1"
    echo "$*" >>"$list"
}

# run_planned RANKS LIST [--until-success]: the runs of LIST, one after another on the same ranks (tool_cases.c).
run_planned() {
    local ranks=$1 list=$2 status=0
    shift 2
    timeout "$PLAN_HANG_S" "$MPIRUN" -n "$ranks" "$TOOL_CASES" "$@" "$list" >log 2>&1 || status=$?
    [ $status = 0 ] || complain "$list: mpirun ended with status $status (124: not within $PLAN_HANG_S s)"
}

# outcome RANKS: in the directory of a run of a plan, puts what its ranks printed into ./log and returns their common status.
outcome() {
    cat log.* >log 2>/dev/null || true
    same_status "$1"
}

# complain MESSAGE: the message, what the program printed, and status 1.
complain() {
    echo "$1; the program printed:"
    cat log
    return 1
}

# demo [STORIES]: the demo's stories, its tokenizer and the configuration of its model, in ./demo.
demo() {
    "$PHASE4_DEMO" demo --stories "${1:-60}" >/dev/null
}

# model FOLDER [key=value ...]: the tokenizer and the configuration of the demo's model, without weights; the values, which are
# JSON, replace those of its config.json.
model() {
    mkdir "$1"
    cp demo/model/tokenizer* "$1"
    python3 - "$@" <<'END'
import json, sys
config = json.load(open("demo/model/config.json"))
for pair in sys.argv[2:]:
    key, value = pair.split("=")
    assert key in config, key
    config[key] = json.loads(value)
json.dump(config, open(sys.argv[1] + "/config.json", "w"))
END
}
SMALL=(hidden_size=64 intermediate_size=144 head_dim=16) # for `model`: a quarter of the demo's weights, as many matrices
