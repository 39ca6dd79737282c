#!/bin/bash
# mini_slurm.sh - a small but real Slurm cluster on ONE Debian 12 machine.
#
#   mini_slurm.sh install      install the Debian packages that are missing
#   mini_slurm.sh start [N]    start munged + slurmctld + N slurmd (default 4)
#   mini_slurm.sh status       daemons, nodes, jobs; exit 0 = all up, 3 = not
#   mini_slurm.sh stop         cancel all jobs, stop exactly those daemons
#   mini_slurm.sh lose K       everything on node K dies, as when its power fails; start N brings it back
#   mini_slurm.sh env          print the shell lines a client needs (eval them)
#   mini_slurm.sh run CMD ...  run CMD as a client of the cluster
#
# After `start`, in the default mode:
#   eval "$(mini_slurm.sh env)"
#   srun -N4 phase4_mpi cfg.json
# In every mode:
#   mini_slurm.sh run srun -N4 phase4_mpi cfg.json
#
# What is real: unmodified Debian slurmctld/slurmd/slurmstepd/srun/munged, one
# slurmd with its own NodeName, port, spool and log per node, PMIx wire-up.
# What is not: the nodes share this machine's CPUs, memory, file system, PID
# space, accounts, one munged - and the GPUs, if there are any.
#
# Settings (environment). Only `start` reads them all and remembers them; the
# other verbs need no more than the same MINI_SLURM_DIR (and TMPDIR):
#   MINI_SLURM_DIR    state directory     (${TMPDIR:-/tmp}/mini_slurm)
#   MINI_SLURM_MODE   how far the nodes are set apart (uts):
#       plain  no namespaces at all. Works in containers that forbid unshare.
#              Only ONE MPI rank per node is safe: Open MPI names its shared
#              memory files after the host name, which all nodes then share.
#       uts    + each node has its own host name, IPC space and /dev/shm.
#              Network traffic stays on 127.0.0.1. Clients need no wrapper.
#       net    + each node has its own network namespace; the nodes meet on a
#              bridge inside a "head" namespace, where slurmctld and all
#              clients live. Start clients with `mini_slurm.sh run srun ...`.
#   MINI_SLURM_CPUS   CPUs each node claims to have          (nproc, min. 2)
#   MINI_SLURM_PORT   slurmctld port; slurmd of node k: + k         (16800)
#   MINI_SLURM_NET    first three numbers of the net-mode subnet (10.213.77)
#   MINI_SLURM_EXTRA  lines to append to slurm.conf, e.g. $'KillWait=5'
#
# A change of settings takes effect at the next stop + start.

set -u
umask 022
export LC_ALL=C

SELF=$(readlink -f "$0")
DIR=${MINI_SLURM_DIR:-${TMPDIR:-/tmp}/mini_slurm}
MODE=${MINI_SLURM_MODE:-uts}
PORT=${MINI_SLURM_PORT:-16800}
NET=${MINI_SLURM_NET:-10.213.77}

CONF=$DIR/etc/slurm.conf
SOCK=$DIR/munge/sock/munge.socket
PIDS=$DIR/pids                # one file per daemon: "<pid> <start time>"

# libpmix-dev is needed at run time: Slurm's pmix plugin loads the unversioned
# libpmix.so that only this package contains.
PACKAGES="munge slurmctld slurmd slurm-client slurm-wlm-basic-plugins
          openmpi-bin libpmix-dev iproute2 util-linux"

say() { printf 'mini_slurm: %s\n' "$*"; }
die() { printf 'mini_slurm: error: %s\n' "$*" >&2; exit 1; }
need_root() { [ "$(id -u)" = 0 ] || die "this verb must run as root"; }

# shellcheck source=tests/slurm/mini_slurm_config.sh
. "${SELF%/*}/mini_slurm_config.sh" # write_config, load_shape, head_host, head_addr

# ---------------------------------------------------------------- processes

# Start time of a process in clock ticks since boot (field 22 of stat). With
# the pid it names one process for good: a recycled pid has another start time.
start_time() {
    local s
    s=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    s=${s##*) }                       # the command name may contain blanks
    set -- $s
    [ "$1" != Z ] || return 1         # a zombie is no longer running
    printf '%s\n' "${20}"
}

# launch NAME CMD...: start a daemon in its own session and record it. Every
# wrapper used below (setpriv, nsenter, unshare, bash) ends in exec, so $! is
# and stays the pid of the daemon itself.
launch() {
    local name=$1; shift
    setsid "$@" >"$DIR/log/$name.out" 2>&1 </dev/null &
    local pid=$!
    printf '%s %s\n' "$pid" "$(start_time "$pid")" >"$PIDS/$name"
}

# alive NAME: is the recorded process still the same one? Sets PID.
alive() {
    local st
    PID=
    [ -s "$PIDS/$1" ] || return 1
    read -r PID st <"$PIDS/$1"
    [ -n "$st" ] && [ "$(start_time "$PID")" = "$st" ]
}

# end NAME: TERM, wait up to 10 s, then KILL - only the recorded process.
end() {
    local i
    if alive "$1"; then
        kill -TERM "$PID"
        for i in $(seq 100); do alive "$1" || break; sleep 0.1; done
        if alive "$1"; then say "$1 ($PID) ignored TERM, sending KILL"; kill -KILL "$PID"; sleep 0.2; fi
    fi
    rm -f "$PIDS/$1"
}

recorded() { ls "$PIDS" 2>/dev/null; }
anything_alive() { local n; for n in $(recorded); do alive "$n" && return 0; done; return 1; }

# slurmstepd processes of this cluster, found by the SLURM_CONF in their
# environment. They are reported, never killed: Slurm ends them itself.
steps() {
    local p
    for p in /proc/[0-9]*; do
        [ "$(cat "$p/comm" 2>/dev/null)" = slurmstepd ] || continue
        tr '\0' '\n' 2>/dev/null <"$p/environ" | grep -qxF "SLURM_CONF=$CONF" && echo "${p#/proc/}"
    done
    return 0
}

# ---------------------------------------------------------------- install

do_install() {
    need_root
    local p log missing='' made=''
    for p in $PACKAGES; do
        dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
    done
    if [ -n "$missing" ]; then
        say "installing:$missing"
        # The packages must not start system-wide daemons of their own.
        if [ ! -e /usr/sbin/policy-rc.d ]; then
            printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
            chmod 755 /usr/sbin/policy-rc.d
            made=yes
            trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        fi
        export DEBIAN_FRONTEND=noninteractive
        log=$(mktemp)
        if ! { apt-get update -q && apt-get install -q -y --no-install-recommends \
            -o DPkg::Lock::Timeout=300 $missing; } >"$log" 2>&1 </dev/null; then
            cat "$log" >&2
            rm -f "$log"
            die "apt-get could not install:$missing"
        fi
        rm -f "$log"
        [ -z "$made" ] || { rm -f /usr/sbin/policy-rc.d; trap - EXIT; }
    fi
    say "slurm $(slurmd -V | awk '{print $2}'), munge $(dpkg-query -W -f='${Version}' munge)," \
        "Open MPI $(dpkg-query -W -f='${Version}' openmpi-bin)"
}

# ---------------------------------------------------------------- network (mode net)

# Names of the namespaces made here; the list is what `stop` takes down.
ns() { echo "mslurm$PORT-$1"; }

net_up() {
    local n=$1 k h
    h=$(ns head)
    : >"$DIR/netns"
    for k in head $(seq "$n"); do
        ip netns add "$(ns "$k")" || die "cannot make network namespace $(ns "$k")"
        ns "$k" >>"$DIR/netns"
        ip -n "$(ns "$k")" link set lo up
    done
    ip -n "$h" link add br0 type bridge || die "no bridge support in this kernel"
    ip -n "$h" addr add "$NET.254/24" dev br0
    ip -n "$h" link set br0 up
    for k in $(seq "$n"); do
        # Both ends are made inside namespaces: the machine's own network
        # never has an interface or a route of this cluster.
        ip -n "$h" link add "port$k" type veth peer name eth0 netns "$(ns "$k")" || die "no veth support"
        ip -n "$h" link set "port$k" master br0 up
        ip -n "$(ns "$k")" addr add "$NET.$k/24" dev eth0
        ip -n "$(ns "$k")" link set eth0 up
    done
}

net_down() {
    local name
    [ -s "$DIR/netns" ] || return 0
    while read -r name; do ip netns del "$name" 2>/dev/null; done <"$DIR/netns"
    rm -f "$DIR/netns"
}

in_ns() {                              # in_ns K CMD...: exec CMD in K's network
    local k=$1; shift
    if [ "$MODE" = net ]; then exec nsenter --net="/run/netns/$(ns "$k")" -- "$@"; else exec "$@"; fi
}

# Runs inside the fresh namespaces of one node and turns into its slurmd.
do_node() {
    local k=$1
    echo "n$k" >/proc/sys/kernel/hostname || exit 1
    mount -t tmpfs -o mode=1777 shm /dev/shm || exit 1
    mount --bind "$DIR/etc/hosts" /etc/hosts || exit 1
    [ ! -e /etc/openmpi/openmpi-mca-params.conf ] ||
        mount --bind "$DIR/etc/openmpi-mca-params.conf" /etc/openmpi/openmpi-mca-params.conf || exit 1
    exec slurmd -D -f "$CONF" -N "n$k" -L "$DIR/log/slurmd.n$k.log"
}

# Becomes slurmctld; in mode net on a "machine" called head.
do_head() {
    if [ "$MODE" = net ]; then
        echo head >/proc/sys/kernel/hostname || exit 1
        mount --bind "$DIR/etc/hosts" /etc/hosts || exit 1
    fi
    exec slurmctld -D -f "$CONF" -L "$DIR/log/slurmctld.log"
}

# ---------------------------------------------------------------- start

wait_for() {                           # wait_for SECONDS WHAT CMD...
    local end=$((SECONDS + $1)) what=$2; shift 2
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || die "$what: not there in time; see $DIR/log"
        sleep 0.1
    done
}

client() { (export SLURM_CONF=$CONF; in_ns head "$@"); }
munge_ok() { munge -n -S "$SOCK" | unmunge -S "$SOCK"; }
ctld_ok() { client scontrol ping | grep -q 'is UP'; }
nodes_ok() {                           # all N nodes answer and none is down
    # A node of several partitions is listed once for each.
    [ "$(client sinfo -h -N -o '%N %T' | sort -u | grep -cE ' (idle|mixed|allocated|completing)$')" = "$1" ]
}

do_start() {
    need_root
    local n=${1:-4} mode=$MODE k
    case $n in ''|*[!0-9]*|0) die "start: not a number of nodes: $n" ;; esac
    case $MODE in plain|uts|net) ;; *) die "MINI_SLURM_MODE must be plain, uts or net" ;; esac
    command -v slurmctld >/dev/null && command -v slurmd >/dev/null && command -v munged >/dev/null \
        || die "Slurm is not installed: run '$0 install' first"
    [ -e "/usr/lib/$(uname -m)-linux-gnu/pmix2/lib/libpmix.so" ] ||
        say "warning: no pmix2/lib/libpmix.so (package libpmix-dev): --mpi=pmix will not work"

    if anything_alive; then
        load_shape
        [ "$NODES $MODE" = "$n $mode" ] || die "a cluster of $NODES nodes (mode $MODE) is running: stop it first"
    else
        # Slurm resolves names with AI_ADDRCONFIG, which ignores loopback: on a
        # machine with nothing else, even "127.0.0.1" cannot be looked up.
        [ "$MODE" = net ] || ip -4 -o addr show | grep -qv ' inet 127\.' ||
            die "only loopback addresses here, Slurm cannot work with that: use MINI_SLURM_MODE=net"
        [ "$MODE" = plain ] || unshare --uts --mount --ipc --propagation private -- true 2>/dev/null ||
            die "this container may not make namespaces: try MINI_SLURM_MODE=plain"
        net_down                       # left over if the machine crashed
        write_config "$n"
        rm -f "$PIDS"/*
        [ "$MODE" != net ] || net_up "$n"
    fi
    export SLURM_CONF=$CONF            # inherited by every slurmstepd and job

    # --foreground and -D: no daemon forks away, so the pids are the real ones.
    alive munged || launch munged setpriv --reuid munge --regid munge --clear-groups \
        munged --foreground --num-threads=4 --key-file="$DIR/munge/key" --socket="$SOCK" \
        --pid-file="$DIR/munge/munged.pid" --log-file="$DIR/munge/munged.log" \
        --seed-file="$DIR/munge/munged.seed"
    wait_for 60 munged munge_ok

    if ! alive slurmctld; then
        if [ "$MODE" = net ]; then
            launch slurmctld nsenter --net="/run/netns/$(ns head)" -- \
                unshare --uts --mount --propagation private -- "$SELF" _head
        else
            launch slurmctld "$SELF" _head
        fi
    fi
    wait_for 120 slurmctld ctld_ok

    for k in $(seq "$n"); do
        alive "slurmd.n$k" && continue
        case $MODE in
        plain) launch "slurmd.n$k" slurmd -D -f "$CONF" -N "n$k" -L "$DIR/log/slurmd.n$k.log" ;;
        uts)   launch "slurmd.n$k" unshare --uts --mount --ipc --propagation private -- "$SELF" _node "$k" ;;
        net)   launch "slurmd.n$k" nsenter --net="/run/netns/$(ns "$k")" -- \
                   unshare --uts --mount --ipc --propagation private -- "$SELF" _node "$k" ;;
        esac
    done
    wait_for 120 "slurmd" nodes_ok "$n"
    say "$n nodes up (mode $MODE), state in $DIR"
    if [ "$MODE" = net ]; then say "clients: $0 run srun -N$n ..."
    else say "clients: export SLURM_CONF=$CONF"; fi
}

# ---------------------------------------------------------------- stop

do_stop() {
    need_root
    local i name jobs
    [ -d "$PIDS" ] || { say "nothing to stop in $DIR"; return 0; }
    load_shape

    # Let Slurm itself end the jobs: that also reaps their processes. KILL comes
    # first, because a plain scancel gives ranks that catch TERM 30 s (KillWait).
    if alive slurmctld; then
        for i in $(seq 80); do
            # A completing job (CG) has had its KILL; one whose slurmd died
            # mid-way would stay in that state for minutes.
            jobs=$(client squeue -h -r -o '%A %t' 2>/dev/null | awk '$2 != "CG" {print $1}' | sort -u)
            [ -n "$jobs" ] || break
            if [ $((i % 20)) = 1 ]; then
                client scancel --full --signal=KILL $jobs 2>/dev/null
                sleep 0.3
                client scancel $jobs 2>/dev/null
            fi
            sleep 0.5
        done
    fi
    for i in $(seq 75); do [ -n "$(steps)" ] || break; sleep 0.2; done

    for name in $(recorded | grep '^slurmd\.'); do alive "$name" && kill -TERM "$PID"; done
    for name in $(recorded | grep '^slurmd\.'); do end "$name"; done
    end slurmctld
    end munged
    net_down
    i=$(steps)
    [ -z "$i" ] || say "warning: slurmstepd still running, not touched: "$i
    say "stopped"
}

# ---------------------------------------------------------------- a node is lost

# Everything that runs in the node's namespaces dies at once, as when the power fails. `start` brings it back.
do_lose() {
    need_root
    local k=${1:-} p ns victims=''
    load_shape
    alive "slurmd.n$k" || die "lose: no node n$k runs"
    [ "$MODE" != plain ] || die "lose: in mode plain nodes are not told apart"
    ns=$(readlink "/proc/$PID/ns/uts")
    for p in /proc/[0-9]*; do
        [ "$(readlink "$p/ns/uts" 2>/dev/null)" != "$ns" ] || victims="$victims ${p#/proc/}"
    done
    # shellcheck disable=SC2086
    kill -KILL $victims
    # A node that starts anew has an empty /tmp. The socket of Slurm's pmix plugin would keep the same job from starting there
    # again: bind() finds its name taken.
    rm -rf "$PIDS/slurmd.n$k" "$DIR/tmp/n$k" "$DIR/spool/n$k"/*pmix*
    mkdir -m 1777 "$DIR/tmp/n$k"
    say "n$k is lost"
}

# ---------------------------------------------------------------- status, clients

do_status() {
    local name bad=0
    load_shape
    [ "$NODES" != 0 ] || { say "never started in $DIR"; return 3; }
    say "state in $DIR, $NODES nodes, mode $MODE"
    for name in munged slurmctld $(seq -f 'slurmd.n%g' "$NODES"); do
        if alive "$name"; then printf '  %-12s pid %s\n' "$name" "$PID"
        else printf '  %-12s not running\n' "$name"; bad=3; fi
    done
    if alive slurmctld; then
        client sinfo -N -o '%8N %6t %4c %20E'
        client squeue
        nodes_ok "$NODES" || bad=3
    fi
    return $bad
}

do_env() {
    load_shape
    echo "export SLURM_CONF='$CONF'"
    case $MODE in
    plain) echo "export OMPI_MCA_btl_tcp_if_include=lo" ;;
    net)   echo "# mode net: start clients with '$SELF run ...'" ;;
    esac
}

do_run() {
    [ $# -gt 0 ] || die "run: no command"
    load_shape
    export SLURM_CONF=$CONF
    [ "$MODE" != plain ] || export OMPI_MCA_btl_tcp_if_include=lo
    in_ns head "$@"
}

verb=${1:-help}
[ $# -eq 0 ] || shift
case $verb in
install) do_install ;;
start)   do_start "$@" ;;
stop)    do_stop ;;
lose)    do_lose "$@" ;;
status)  do_status ;;
env)     do_env ;;
run)     do_run "$@" ;;
_node)   do_node "$@" ;;
_head)   do_head ;;
help|-h|--help) sed -n '2,/^$/s/^# \{0,1\}//p' "$SELF" ;;
*)       die "unknown verb '$verb' (install, start, stop, lose, status, env, run)" ;;
esac
