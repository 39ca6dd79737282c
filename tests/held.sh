# shellcheck shell=bash
# held.sh: a run that waits at a line that it has written until the test has acted (fault_injector.c); scripts source it. So a run
# on a fast machine is not over, and one on a slow machine is where the test wants it, when it is stopped, killed or robbed of a file.

# hold_at COUNT TEXT FILE [signal]: sets the array $hold to what goes in front of a command. It waits when FILE, a part of a path, holds
# TEXT in COUNT lines (no TEXT: behind the COUNT-th write): until let_go, or with `signal` until it has handled a signal.
hold_at() {
    rm -f go go.held
    hold=(env ASAN_OPTIONS=verify_asan_link_order=0 "LD_PRELOAD=$P4_FAULTS" "P4_FAULT_UNDER=$3" "P4_HOLD=$1,$2" "P4_HOLD_FILE=$PWD/go")
    [ -z "${4:-}" ] || hold+=(P4_HOLD_SIGNAL=1)
}

# is_held PROCESS: waits until the run waits; returns 1 if the process has ended before.
is_held() {
    until [ -e go.held ]; do
        kill -0 "$1" 2>/dev/null || { [ -e go.held ] && return; return 1; }
        sleep 0.02
    done
}

let_go() { : >go; }
