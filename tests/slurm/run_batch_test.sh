#!/usr/bin/env bash
# run_batch_test.sh: many models on a real Slurm cluster of four nodes that this script starts and stops (mini_slurm.sh).
#
#   1 sbatch slurm/phase4.sbatch with phase4_batch   twenty models; a rank is killed twice at random moments, and the same
#                                                    command continues: 18 complete, 2 reported, no model done twice
#   2 sbatch --array slurm/array.sbatch              a model a task; the failed ones once more when they are mended
#   3 sbatch slurm/nightly.sbatch, two nights        the second does the new model alone; old nights are removed
#
# Environment: PHASE4_BATCH the program, FIXTURES tests/fixtures, TMP an empty folder. Exit status 77 (skipped): as cluster.sh
# says. Every wait has a limit, which only a hang reaches.
set -u
export LC_ALL=C
here=$(dirname "$(readlink -f "$0")")
scripts=$here/../../slurm
PROGRAMS=("$PHASE4_BATCH")
export PHASE4_BATCH
. "$here/cluster.sh"

chmod 755 "$TMP"
cd "$TMP" || exit 1
python3 - "$TMP" "$FIXTURES/models/llama-gqa" <<'END' || fail "the queue could not be written"
import array, json, os, random, shutil, sys
tmp, model = sys.argv[1:]
random.seed(1)
ids = array.array("H", (0, 1))
for _ in range(40000):
    ids.append((3 * ids[-2] + 7 + (random.randrange(3) if random.random() < 0.3 else 0)) % 53)
ids.tofile(open("tokens.bin", "wb"))
template = {
    "output_path": tmp + "/out", "device": "cpu", "threads_per_rank": 1, "calibration_dataset": "custom",
    "calibration_files": [tmp + "/tokens.bin"], "calibration_samples": 8, "calibration_batch_size": 8, "calibration_sequence_length": 32,
    "eval_files": [tmp + "/tokens.bin"], "eval_samples": 8, "train_files": [tmp + "/tokens.bin"], "global_batch_tokens": 256,
    "fine_tune_max_steps": 240, "fine_tune_epochs": 160, "fine_tune_threshold": 0, "warmup_steps": 2, "checkpoint_every": 10,
    "wandb_enabled": False, "max_accuracy_drop": 0.5}
json.dump(template, open("template.json", "w"))
queue = [{"name": f"m{i:02}", "cfg": "template.json", "model_path": model, "output_path": f"{tmp}/out/m{i:02}", "seed": i}
         for i in range(18)]
shutil.copytree(model, "broken")
with open("broken/model.safetensors", "r+b") as file:
    file.truncate(1000)
queue.insert(4, {"name": "misspelt", "cfg": "template.json", "model_path": model, "output_path": tmp + "/out/misspelt", "sead": 1})
queue.insert(9, {"name": "broken", "cfg": "template.json", "model_path": tmp + "/broken", "output_path": tmp + "/out/broken"})
json.dump(queue, open("queue.json", "w"))
json.dump([queue[0] | {"output_path": tmp + "/array/0"}, queue[4] | {"output_path": tmp + "/array/1"},
           queue[1] | {"output_path": tmp + "/array/2"}], open("array.json", "w"))
for name in ("first", "second"):
    shutil.copytree(model, "models/" + name)
END

submit() { # submit ARGUMENTS OF sbatch...: sets $job
    job=$(client 30 sbatch --parsable --time=10 --signal=USR1@10 "$@") || fail "sbatch refused the job: $*"
}
field() { client 20 scontrol show job "$job" -o | sed -n "s/.* $1=\([^ ]*\).*/\1/p" | sort -u; }
ended() {
    case "$(field JobState)" in *PENDING* | *RUNNING* | *CONFIGURING* | *COMPLETING*) return 1 ;; esac
}
wait_for_job() { until_true 300 ended || fail "job $job did not end: $(client 20 squeue; cat ./*-"$job"*.log)"; }
journal=queue.batch/journal.jsonl
count() { cat "$2" 2>/dev/null | grep -c "\"event\":\"$1\"" || true; }
done_at_least() { [ "$(count done "$journal")" -ge "$1" ]; }

# ---- 1 twenty models, killed twice
note "sbatch phase4.sbatch: twenty models, killed twice"
export PHASE4_MPI=$PHASE4_BATCH
for round in 1 2; do
    before=$(count done "$journal") # of 18; the batch is killed when it has done one to three more
    submit -N4 --no-requeue "$scripts/phase4.sbatch" queue.json
    until_true 200 done_at_least $((before + 1 + RANDOM % 3)) ||
        fail "round $round: too few models are done: $(client 20 squeue; cat "phase4-$job.log"; cat "$journal")"
    victim=$(ranks | shuf -n 1 | cut -d' ' -f1)
    kill -9 "$victim" || fail "no rank could be killed: $(ranks; cat "phase4-$job.log")"
    wait_for_job
    [ "$(field JobState)" = FAILED ] || fail "a killed batch ended as $(field JobState)"
    no_rank_left || fail "a rank was killed, others are left"
done
submit -N4 "$scripts/phase4.sbatch" queue.json
wait_for_job
[ "$(field ExitCode)" = 5:0 ] || fail "exit code $(field ExitCode), expected 5:0: $(cat "phase4-$job.log")"
grep -q 'phase4_batch: 18 complete .*2 failed (misspelt, broken)' "phase4-$job.log" || fail "no summary: $(cat "phase4-$job.log")"
python3 - <<'END' || fail "the journal: $(cat "$journal")"
import json
done, started = {}, {}
for line in open("queue.batch/journal.jsonl"):
    event = json.loads(line)
    name = event["name"]
    assert not (event["event"] == "started" and name in done), ("started after its end", event)
    done[name] = done.get(name, 0) + 1 if event["event"] == "done" else done.get(name, 0)
    done = {k: v for k, v in done.items() if v}
    started[name] = max(started.get(name, 0), event["attempt"])
assert sorted(done) == [f"m{i:02}" for i in range(18)] and set(done.values()) == {1}, done
assert max(started.values()) > 1, "no model was interrupted"
END
begun=$(count started "$journal")
submit -N4 "$scripts/phase4.sbatch" queue.json
wait_for_job
[ "$(count started "$journal")" = "$begun" ] || fail "a model was started once more: $(cat "$journal")"
grep -q '18 complete (18 of them before)' "phase4-$job.log" || fail "models were repeated: $(cat "phase4-$job.log")"

# ---- 2 an array
note "sbatch --array array.sbatch"
export OMPI_MCA_ess_singleton_isolated=1
submit --array="$("$PHASE4_BATCH" --list all array.json)" -N1 "$scripts/array.sbatch" array.json
wait_for_job
[ "$(field ExitCode | tr '\n' ' ')" = "0:0 5:0 " ] || fail "exit codes $(field ExitCode): $(cat phase4-array-"$job"_*.log)"
[ "$("$PHASE4_BATCH" --list failed array.json)" = 2 ] || fail "the failed task is not the second one"
sed -i 's/"sead"/"seed"/' array.json
submit --array=1-3 -N1 "$scripts/array.sbatch" array.json --failed-only
wait_for_job
[ "$(field ExitCode)" = 0:0 ] || fail "exit codes $(field ExitCode): $(cat phase4-array-"$job"_*.log)"
"$PHASE4_BATCH" --results array.json >results.log || fail "--results: $(cat results.log)"
grep -q 'phase4_batch: 3 complete' results.log || fail "--results: $(cat results.log)"
[ "$(cat array.batch/task-*/journal.jsonl | grep -c started)" = 3 ] || fail "a task was repeated: $(cat array.batch/task-*/journal.jsonl)"

# ---- 3 two nights
note "sbatch nightly.sbatch, two nights"
night() {
    submit -N4 "$scripts/nightly.sbatch" "$TMP/models" "$TMP/template.json" "$TMP/nights"
    wait_for_job
    [ "$(field ExitCode)" = 0:0 ] && [ "$(cat nights/status)" = 0 ] ||
        fail "the night's exit code is $(field ExitCode): $(cat "phase4-nightly-$job.log")"
}
night
grep -q 'status 0: 2 complete (0 of them before)' nights/summary.txt || fail "the first night: $(cat nights/summary.txt)"
cp -r models/first models/third
today=$(basename "$(dirname nights/20*/first/)")
for name in first gone fourth; do # old results: with newer ones, of no model, the only ones of a model
    mkdir -p "nights/2001-01-01/$name"
done
mkdir models/fourth # not yet a model
export PHASE4_KEEP_NIGHTS=1
night
grep -q 'status 0: 3 complete (2 of them before)' nights/summary.txt || fail "the second night: $(cat nights/summary.txt)"
[ "$(count started nights/state/journal.jsonl)" = 3 ] || fail "a model was repeated: $(cat nights/state/journal.jsonl)"
grep -qs '"success":[[:space:]]*true' "nights/$today"/third/results.json nights/20*/third/results.json || fail "the new model has no results"
[ "$(ls nights/2001-01-01)" = fourth ] || fail "old nights: $(ls nights/2001-01-01)"
no_rank_left || fail "ranks are left"
note "3 checks passed"
