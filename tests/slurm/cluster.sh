# shellcheck shell=bash
# cluster.sh: a real Slurm cluster of four nodes on this machine (mini_slurm.sh), for the tests that source this file: they set
# $here to this folder and $PROGRAMS to the programs whose processes they look for. It starts the cluster, which is stopped
# when the script ends. Exit status 77 (skipped): not root, or no namespaces here.
unset OMPI_ALLOW_RUN_AS_ROOT OMPI_ALLOW_RUN_AS_ROOT_CONFIRM "${!OMPI_MCA_@}" # Slurm's ranks get what a user's ranks get

skip() {
    echo "skipped: $*"
    exit 77
}
fail() {
    echo "FAILED: $*"
    exit 1
}
note() { printf '%s\n' "-- $*"; }

[ "$(id -u)" = 0 ] || skip "a Slurm cluster on one machine needs root"
unshare --uts --mount --ipc true 2>/dev/null || skip "this container may not make namespaces"

# One such test at a time on a machine; a cluster that an earlier one left behind (killed with -9) is stopped first.
export MINI_SLURM_DIR=${TMPDIR:-/tmp}/phase4-slurm-test
mkdir -p "$MINI_SLURM_DIR"
exec 9>"$MINI_SLURM_DIR.lock"
flock -w 600 9 || skip "another run of this test holds $MINI_SLURM_DIR.lock"
slurm() { timeout -s INT -k 10 "$1" "$here/mini_slurm.sh" "${@:2}" 9>&-; }
client() { slurm "$1" run "${@:2}"; }

# Slurm cannot look up names where only loopback has an address; mode net brings its own network.
MINI_SLURM_MODE=uts
ip -4 -o addr show 2>/dev/null | grep -qv ' inet 127\.' || MINI_SLURM_MODE=net
export MINI_SLURM_MODE MINI_SLURM_CPUS=2
# A partition whose jobs preempt the others; a node that is lost is noticed soon.
export MINI_SLURM_EXTRA='SlurmdTimeout=10
KillWait=10
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=urgent Nodes=ALL PriorityTier=10 MaxTime=INFINITE OverSubscribe=NO State=UP'

stop_cluster() {
    slurm 120 stop >/dev/null || slurm 120 status
    rm -rf "$MINI_SLURM_DIR"
}
slurm 300 install || fail "the packages of Slurm could not be installed"
stop_cluster
mkdir -p "$MINI_SLURM_DIR"
trap stop_cluster EXIT
trap 'exit 130' INT TERM
slurm 300 start 4 || fail "the cluster did not start: $(tail -n 5 "$MINI_SLURM_DIR"/log/*.log 2>/dev/null)"

# Processes of the programs that belong to this cluster: "pid rank" a line.
ranks() {
    local pid
    for pid in $(for program in "${PROGRAMS[@]}"; do pgrep -x "$(basename "$program" | cut -c1-15)"; done); do
        tr '\0' '\n' 2>/dev/null <"/proc/$pid/environ" |
            awk -F= -v pid="$pid" -v conf="$MINI_SLURM_DIR/etc/slurm.conf" '
                $1 == "SLURM_CONF" && $2 == conf {ours = 1}
                $1 == "SLURM_PROCID" {rank = $2}
                END {if (ours) print pid, rank}'
    done
}
# until_true SECONDS COMMAND...
until_true() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.2
    done
}

no_ranks() { [ -z "$(ranks)" ]; }
no_rank_left() {
    until_true 120 no_ranks || { ranks; return 1; }
}
