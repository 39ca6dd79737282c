#!/usr/bin/env bash
# The records of a run that was stopped and continued, read by wandb's and TensorBoard's own readers (watchers.py); the newest
# wandb would upload them.
set -eu
cd "$TMP"
# shellcheck source=tests/watched_run.sh
. "$FIXTURES/../watched_run.sh"
here=$(dirname "$(readlink -f "$0")")

# The last releases of wandb read records in a program of their own; this one has its reader in Python.
environment watchers 'wandb==0.22.3' 'protobuf<7' tensorboard setuptools
environment wandb wandb

watched_run
stop_and_continue
"$CLIENTS/watchers/bin/python" "$here/watchers.py" out || fail 'the records differ from metrics.jsonl'
"$CLIENTS/wandb/bin/wandb" sync --dry-run "$first" >dry 2>&1 || fail "wandb sync: $(cat dry)"
grep -q 'Would sync 1 run' dry || fail "wandb sync: $(cat dry)"
echo "  $("$CLIENTS/wandb/bin/wandb" --version): $(grep 'Would sync' dry)"
