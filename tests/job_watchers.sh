#!/usr/bin/env bash
# Who watches a run: the record for Weights & Biases and the events for TensorBoard lie in the output directory, a run that is
# continued stays the same run, and a run whose records were removed goes on with one warning for each.
set -eu
cd "$TMP"
# shellcheck source=tests/watched_run.sh
. "$FIXTURES/../watched_run.sh"
watched_run
warnings() { grep -cE '^warning: .*the run goes on without' log || true; }

# Stopped and continued: the same W&B run, one file of events.
stop_and_continue
[ "$(ls -d out/wandb/offline-run-*)" = "$first" ] || fail "the run is $(ls out/wandb), was $first"
[ "$(find out/wandb -name 'run-*.wandb' | wc -l)" = 1 ] || fail 'not one file of records'
[ "$(find out/tensorboard -type f | wc -l)" = 1 ] || fail 'not one file of events'
cmp -s out/report.html "$first/files/report.html" || fail 'the report is not part of the W&B run'
grep -qF "wandb sync $first" log || fail 'it does not say how the run is uploaded'
[ "$(warnings)" = 0 ] || fail 'warnings'
python3 -c '
import json
paths = json.load(open("out/results.json"))["output_paths"]
assert paths["wandb"] == "out/wandb" and paths["tensorboard"] == "out/tensorboard" and paths["report"] == "out/report.html", paths
'

# Removed while the run trains.
hold_at 1 '"stage":"fine_tune"' /metrics.jsonl
"${hold[@]}" "$PHASE4_MPI" cfg.json overwrite=true checkpoint_every=0 >log 2>&1 &
job=$!
is_held "$job" || fail 'the run ended before it was evaluated in training'
rm -r out/wandb out/tensorboard
let_go
wait "$job" || fail 'a run without its records fails'
[ "$(warnings)" = 2 ] || fail "$(warnings) warnings, expected one for each"
python3 -c '
import json
results = json.load(open("out/results.json"))
assert results["success"] and results["output_paths"]["wandb"] is None and results["output_paths"]["tensorboard"] is None, results["output_paths"]
assert results["output_paths"]["report"] == "out/report.html"
'

# Off: nothing of an older run stays.
mkdir -p out/wandb/offline-run-20200101_000000-abcdefgh
"$PHASE4_MPI" cfg.json overwrite=true wandb_enabled=false tensorboard_enabled=false fine_tune_max_steps=1 >log 2>&1 || fail 'without'
[ ! -e out/wandb ] && [ ! -e out/tensorboard ] || fail 'what is off was written, or is left from an older run'
