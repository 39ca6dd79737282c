# shellcheck shell=bash
# mini_slurm_config.sh - the files that describe the cluster of mini_slurm.sh, which sources this and sets DIR, CONF, SOCK, MODE,
# PORT and NET.

head_host() {                          # SlurmctldHost must be the host's own name
    if [ "$MODE" = net ]; then echo head; else uname -n | cut -d. -f1; fi
}
head_addr() { if [ "$MODE" = net ]; then echo "$NET.254"; else echo 127.0.0.1; fi; }

write_config() {
    local n=$1 k cpus addr
    cpus=${MINI_SLURM_CPUS:-$(nproc)}
    [ -n "${MINI_SLURM_CPUS:-}" ] || [ "$cpus" -ge 2 ] || cpus=2

    mkdir -p "$DIR"/{etc,log,pids,ctld,spool,tmp,munge/sock} || die "cannot write $DIR"
    chmod 755 "$DIR"
    chown slurm: "$DIR/ctld"; chmod 700 "$DIR/ctld"
    for k in $(seq "$n"); do
        mkdir -p "$DIR/spool/n$k" "$DIR/tmp/n$k"
        chmod 1777 "$DIR/tmp/n$k"
    done

    # Munge refuses keys and sockets in places that others could write to.
    if [ ! -s "$DIR/munge/key" ]; then
        (umask 077; dd if=/dev/urandom of="$DIR/munge/key" bs=1024 count=1 status=none)
    fi
    chown -R munge: "$DIR/munge"
    chmod 711 "$DIR/munge"; chmod 755 "$DIR/munge/sock"; chmod 400 "$DIR/munge/key"

    # This file only exists to override what slurmd would detect: with cgroup
    # v2 it would look for systemd. No plugin chosen below uses cgroups.
    printf 'CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n' >"$DIR/etc/cgroup.conf"

    # Slurm's default is to run the exchange of addresses in MPI_Init and the barrier at its end through two different
    # algorithms ("mixed"). On a loaded machine a rank was then seen to leave MPI_Init while another still waited for
    # addresses, which crashes Open MPI 4.1 in about 1 start of 60. One algorithm for both: none in 260.
    echo 'PMIxCollFence=tree' >"$DIR/etc/mpi.conf"

    {
        cat <<EOF
ClusterName=mini
SlurmctldHost=$(head_host)($(head_addr))
SlurmctldPort=$PORT
AuthType=auth/munge
CredType=cred/munge
# cred_expire also sets how long a requeued job must wait: 120 s by default.
AuthInfo=socket=$SOCK,cred_expire=10
SlurmUser=slurm
SlurmdUser=root

StateSaveLocation=$DIR/ctld
SlurmdSpoolDir=$DIR/spool/%n
SlurmctldPidFile=$DIR/ctld/slurmctld.pid
SlurmdPidFile=$DIR/spool/%n/slurmd.pid
# The pmix plugin makes a directory named after job and step here. With the
# default /tmp for all nodes, the second node finds it taken and the step fails.
TmpFS=$DIR/tmp/%n

MpiDefault=pmix
# No cgroups, no CPU binding, no accounting: nothing that needs systemd.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MailProg=/bin/true

SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
# Accept the CPU count below even if the machine has fewer.
SlurmdParameters=config_overrides
ReturnToService=2
MessageTimeout=30
SlurmdTimeout=60
SlurmctldDebug=info
SlurmdDebug=info

EOF
        # Listen on loopback only - possible where the machine's own name means
        # loopback, because srun binds to that name's address.
        if [ "$MODE" != net ] && [ "$(getent ahostsv4 "$(uname -n)" | awk 'NR == 1 {print $1}')" = 127.0.0.1 ]; then
            echo "CommunicationParameters=NoCtldInAddrAny,NoInAddrAny"
        fi
        for k in $(seq "$n"); do
            addr=127.0.0.1; [ "$MODE" = net ] && addr=$NET.$k
            echo "NodeName=n$k NodeHostname=n$k NodeAddr=$addr Port=$((PORT + k)) CPUs=$cpus State=UNKNOWN"
        done
        echo "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE OverSubscribe=NO State=UP"
        [ -z "${MINI_SLURM_EXTRA:-}" ] || printf '%s\n' "$MINI_SLURM_EXTRA"
    } >"$CONF"

    # The nodes' /etc/hosts (modes uts and net; the machine's own is not touched).
    {
        cat /etc/hosts 2>/dev/null || echo "127.0.0.1 localhost"
        echo
        [ "$MODE" = net ] && echo "$NET.254 head"
        for k in $(seq "$n"); do
            addr=127.0.0.1; [ "$MODE" = net ] && addr=$NET.$k
            echo "$addr n$k"
        done
    } >"$DIR/etc/hosts"

    # The nodes' Open MPI defaults (modes uts and net). Open MPI leaves the
    # loopback interface out on its own, so it has to be named. (Debian's file
    # does not end in a newline.)
    {
        cat /etc/openmpi/openmpi-mca-params.conf 2>/dev/null
        echo
        [ "$MODE" = net ] || echo "btl_tcp_if_include = lo"
    } >"$DIR/etc/openmpi-mca-params.conf"

    printf '%s %s %s %s\n' "$n" "$MODE" "$PORT" "$NET" >"$DIR/etc/shape"
}

# What the last start made: sets NODES (0 = never started), MODE, PORT, NET.
load_shape() { NODES=0; [ ! -r "$DIR/etc/shape" ] || read -r NODES MODE PORT NET <"$DIR/etc/shape"; }
