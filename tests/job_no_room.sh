#!/usr/bin/env bash
# A disk that fills while a run is under way, so that nothing fits, not even a checkpoint: the room for results.json was taken before. The
# disk is a small file system, which takes a user namespace to mount: where there is none the test is skipped.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cd "$TMP"
mkdir disk
if ! unshare -rm mount -t tmpfs -o size=24m none disk 2>unmounted; then
    echo "no small file system can be mounted: $(cat unmounted)"
    exit 77
fi
. "$here/job.sh"
. "$here/held.sh"
. "$here/undisturbed.sh"

make_room() { # make_room DIRECTORY: as many bytes as the message says, and no more
    bytes=$(sed -n 's/.*: free \([0-9.]*\) \([KM]iB\) on the disk, and .*/\1 \2/p' log | head -n 1 |
        awk '{printf "%d", $1 * ($2 == "MiB" ? 1048576 : 1024)}')
    [ "$bytes" -gt 0 ] || complain 'the message does not say how much to free'
    truncate -s "-$bytes" "$1/filler"
}
nothing() { # nothing DIRECTORY: where a small file system is mounted
    mount -t tmpfs -o size=24m none "$1"
    local out=$1/out bytes kept job status=0
    hold_at 1 '"kind":"evaluation","stage":"final"' /metrics.jsonl
    "${hold[@]}" "$PHASE4_MPI" "$TMP/cfg.json" output_path="$out" checkpoint_every=3 >log 2>&1 &
    job=$!
    is_held "$job" || complain 'the run ended before its last evaluation'
    cat /dev/zero >"$1/filler" 2>/dev/null || true
    let_go
    wait "$job" || status=$?
    [ $status = 2 ] || complain "a full disk: status $status, expected 2"
    said "No space left on device"
    said "the state of the run could not be saved ("
    said "and the same command continues from $out/checkpoints/step-3"
    result "$out" "not r['success'] and 'No space left on device' in r['error'] and 'the same command continues' in r['error']"
    make_room "$1"
    # The checkpoint that is there counts: two more of its size are written at most, before the smaller outputs.
    kept=$(du -sb "$out/checkpoints" | cut -f 1)
    [ "$bytes" -lt $((22 * kept / 10)) ] || complain "$bytes bytes are to be free, the checkpoint that is there takes $kept"
    run 0 "$PHASE4_MPI" "$TMP/cfg.json" output_path="$out" checkpoint_every=3
    said "continues from $out/checkpoints/step-3"
    same "$out"
}

# The same while a stop in reconstruction saves its state: behind the checkpoint before it, at its first block.
stopping() { # stopping DIRECTORY SIGNAL
    mount -t tmpfs -o size=24m none "$1"
    local out=$1/out bytes job status=0 keys="init=checkpoint model_path=$trained reconstruct=true reconstruct_steps=2"
    hold_at 1 '"kind":"reconstruct"' /metrics.jsonl signal
    # shellcheck disable=SC2086
    "${hold[@]}" "$PHASE4_MPI" "$TMP/cfg.json" output_path="$out" $keys >log 2>&1 &
    job=$!
    is_held "$job" || complain 'the run ended before it was stopped'
    cat /dev/zero >"$1/filler" 2>/dev/null || true
    kill -"$2" "$job"
    wait "$job" || status=$?
    [ $status = 2 ] || complain "a full disk at a stop: status $status, expected 2"
    said "error: stopped by SIG$2; the state of the run could not be saved ("
    said "No space left on device"
    said "and the same command continues from $out/checkpoints/step-0"
    make_room "$1"
    # shellcheck disable=SC2086
    run 0 "$PHASE4_MPI" "$TMP/cfg.json" output_path="$out" $keys
    said "continues from $out/checkpoints/step-0"
}

# Nothing can be written, and there is no older file that could not be replaced.
read_only() { # read_only DIRECTORY: the results of a run on a file system that is then mounted read-only
    mount -t tmpfs -o size=24m none "$1"
    cp -r "$TMP/whole" "$1/out"
    mount -o remount,ro "$1"
    run 2 "$PHASE4_REPORT" "$1/out"
    said "out/report.html: cannot write: Read-only file system"
    ! grep -q 'older' log || complain 'an older file is spoken of'
    for keys in "output_path=$1/other" "output_path=$1/out overwrite=true"; do
        # shellcheck disable=SC2086
        run 2 "$PHASE4_MPI" --quiet "$TMP/cfg.json" $keys
        said "Read-only file system"
        ! grep -q 'older' log || complain "an older file is spoken of: $keys"
    done
    umount "$1"
}

# A disk that cannot hold the outputs is known before the work.
too_small() { # too_small DIRECTORY
    mount -t tmpfs -o size=16k none "$1"
    run 2 "$PHASE4_MPI" --check "$TMP/cfg.json" output_path="$1/out"
    said 'output_path: the outputs take'
    run 2 "$PHASE4_MPI" --quiet "$TMP/cfg.json" output_path="$1/out"
    said 'output_path: the outputs take'
}

export -f nothing stopping read_only make_room too_small hold_at is_held let_go complain said result run same
trained=$here/../jobs/demo/model
export fp16 trained
unshare -rm bash -euc "too_small '$TMP/disk'"
unshare -rm bash -euc "nothing '$TMP/disk'"
unshare -rm bash -euc "read_only '$TMP/disk'"
unshare -rm bash -euc "stopping '$TMP/disk' INT"
