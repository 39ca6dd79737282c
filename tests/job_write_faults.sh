#!/usr/bin/env bash
# Every call that writes, fails in turn (fault_injector.c), in a program that writes each kind of file (tool_write.c): it ends with a
# message and a status, or with the files of an undisturbed run, and what it left does not keep the same command from
# succeeding. (What the program makes of failing writes: soak.sh.)
set -u
cd "$TMP"
failures=0
complain() {
    echo "$*"
    [ ! -s log ] || cat log
    failures=$((failures + 1))
    [ $failures -lt 10 ] || exit 1
}
export ASAN_OPTIONS=verify_asan_link_order=0 P4_FAULT_UNDER=out
write() { # write [FAULT]
    P4_FAULT=${1:-} LD_PRELOAD=$P4_FAULTS "$TOOL_WRITE" out >log 2>&1
}
digest() { (cd out && find . | sort && h5dump a.h5 part.h5 image.h5); } # HDF5 writes the time of some groups
P4_FAULT_COUNT=$TMP/calls LD_PRELOAD=$P4_FAULTS "$TOOL_WRITE" out || complain 'the undisturbed run failed'
calls=$(cat calls.0)
digest >whole
[ "$calls" -gt 40 ] || complain "$calls calls are seen"
for kind in error full readonly kill; do
    failed=0
    for ((call = 1; call <= calls; call++)); do
        rm -rf out out.tmp
        { write "0,$call,$kind"; } 2>/dev/null # bash reports what SIGKILL ended
        status=$?
        case $kind,$status in
        kill,137) failed=$((failed + 1)) ;;
        *,0)
            digest >found
            # A directory that the published one replaced may be left.
            cmp -s found whole || complain "$kind of call $call: status 0, and other files: $(diff found whole)"
            ;;
        *,1 | *,2)
            failed=$((failed + 1))
            grep -q '^phase4: error: ' log || complain "$kind of call $call: status $status without a message"
            [ ! -e out ] || digest >found
            [ ! -e out ] || cmp -s found whole || complain "$kind of call $call: files of a failed run under their names"
            ;;
        *) complain "$kind of call $call: status $status" ;;
        esac
        write || complain "after $kind of call $call the same command fails"
        digest >found
        cmp -s found whole || complain "after $kind of call $call the same command writes other files"
    done
    [ $failed -gt 5 ] || complain "$kind: only $failed of $calls calls make the program fail"
    echo "$kind: $failed of $calls calls make it fail"
done
[ $failures = 0 ]
