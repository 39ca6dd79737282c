#!/usr/bin/env bash
# phase4_batch: groups of different sizes write the bytes of single runs; a model that fails is reported and the others go on; a
# batch that is killed or stopped continues its models and repeats none; journal, --failed-only, --task, --strict, --max-fails; the
# order of starts.
set -eu
. "$(dirname "$0")/job.sh"
. "$(dirname "$0")/held.sh"
cd "$TMP"
demo
model six "${SMALL[@]}"
# A seed with which quantizing the random weights raises the perplexity: otherwise nothing would be fine-tuned.
cat >template.json <<JSON
{
  "output_path": "$TMP/out", "init": "random", "wandb_enabled": false, "device": "cpu", "seed": 2,
  "calibration_dataset": "custom", "calibration_files": ["$TMP/demo/stories-train.jsonl"],
  "eval_files": ["$TMP/demo/stories-valid.jsonl"], "eval_samples": 4, "calibration_samples": 8, "calibration_batch_size": 2,
  "calibration_sequence_length": 32, "global_batch_tokens": 128, "fine_tune_threshold": 0, "quantizer": "exact", "fine_tune_max_steps": 4,
  "fine_tune_lr": 3e-3, "warmup_steps": 1, "log_every": 1, "threads_per_rank": 1, "num_workers": 1, "max_accuracy_drop": 0.5
}
JSON
program=("$PHASE4_BATCH")
batch() { # batch STATUS RANKS ARGUMENT...: runs phase4_batch on that many ranks and expects the status on each
    local expected=$1 ranks=$2 status=0
    shift 2
    on_ranks "$ranks" "${program[@]}" "$@" || status=$?
    [ $status = "$expected" ] || complain "phase4_batch $*: status $status, expected $expected"
}
events() { # events JOURNAL NAME EVENT: how many there are
    grep -c "\"name\":\"$2\",\"event\":\"$3\"" "$1" || true
}
expect() { # expect WHAT FOUND WANTED
    [ "$2" = "$3" ] || complain "$1: found $2, expected $3"
}
derive() { # derive FILE OUTPUT KEYS: a configuration of the model six
    python3 - "$TMP" "$@" <<'END'
import json, sys
tmp, file, output, keys = sys.argv[1:]
config = json.load(open(tmp + "/template.json"))
config.update(model_path=tmp + "/six", output_path=f"{tmp}/{output}", **json.loads("{" + keys + "}"))
json.dump(config, open(file, "w"))
END
}
same() { # same DIRECTORY DIRECTORY: the same tensors and the same losses
    cmp "$1/dequantized_fp16/model.safetensors" "$2/dequantized_fp16/model.safetensors" &&
        "$TOOL_COMPARE" "$1" "$2" bits 0 && "$TOOL_COMPARE" "$1" "$2" losses 0
}

# A file, an object with its own number of ranks, keys over a file, a misspelt key, a model that is not there.
mixed() {
    local log
    derive a.json mixed/a ''
    derive plain.json mixed/plain ''
    cat >queue.json <<JSON
["a.json",
 {"name": "two", "ranks": 2, "cfg": "plain.json", "output_path": "$TMP/mixed/two", "seed": 8},
 {"name": "bad", "cfg": "a.json", "calibration_sampels": 8, "output_path": "$TMP/mixed/bad"},
 {"name": "gone", "cfg": "a.json", "model_path": "$TMP/gone", "output_path": "$TMP/mixed/gone"},
 {"name": "one", "ranks": 1, "cfg": "plain.json", "output_path": "$TMP/mixed/one", "seed": 18446744073709551615}]
JSON
    batch 5 4 queue.json
    for name in a two one; do
        expect "$name" "$(events queue.batch/journal.jsonl $name done)" 1
    done
    grep -q '3 complete (0 of them before), 2 failed (bad, gone)' log || complain "no summary"
    grep -q '^bad .*queue.json, model 3 (cfg a.json): unknown key "calibration_sampels"' log && grep -q "gone .*$TMP/gone" log ||
        complain "the errors are not shown"
    # The journal says on how many ranks; a single run on as many writes the same bytes.
    local ranks
    ranks=$(sed -n 's/.*"name":"a","event":"done".*"ranks":\([0-9]*\).*/\1/p' queue.batch/journal.jsonl)
    "$MPIRUN" -n "$ranks" "$PHASE4_MPI" --quiet a.json output_path=alone_a >log 2>&1 || complain "a alone"
    "$MPIRUN" -n 2 "$PHASE4_MPI" --quiet plain.json output_path=alone_two seed=8 >log 2>&1 || complain "two alone"
    same "$TMP/mixed/a" alone_a
    same "$TMP/mixed/two" alone_two
    # Nothing is repeated; what failed is tried again on request, or when it has changed.
    batch 5 2 queue.json
    [ "$(grep -c started queue.batch/journal.jsonl)" = 3 ] || complain "a model was repeated"
    cp -r "$TMP/six" "$TMP/gone"
    expect 'the numbers of the open models' "$("$PHASE4_BATCH" --list open queue.json)" 4
    sed -i 's/sampels/samples/' queue.json
    batch 0 2 --failed-only queue.json
    grep -q '5 complete (3 of them before)' log || complain "the mended models were not compressed"
    python3 - <<'END'
import json
results = json.load(open("queue.batch/batch_results.json"))
assert results["status"] == 0 and results["counts"]["done"] == 5, results["counts"]
assert [m["state"] for m in results["models"]] == 5 * ["done"]
assert all(m["compression_ratio"] > 1 and m["held_memory_mb"] > 0 for m in results["models"])
assert [m["attempt"] for m in results["models"]] == [1, 1, 2, 2, 1]
END
    # A model that changes is compressed again, where its results may be replaced.
    touch "$TMP/gone/extra.json"
    batch 0 2 queue.json overwrite=true
    expect 'a model that changed' "$(events queue.batch/journal.jsonl gone done)" 2
}

# Killed in the middle of training, then stopped by a signal to one rank, then continued: as an undisturbed run.
broken_off() {
    mkdir models
    for name in x y z; do cp -r "$TMP/six" models/$name; done
    derive long.json "off" '"fine_tune_max_steps": 60, "fine_tune_epochs": 60, "checkpoint_every": 5'
    echo '{"models": "models", "template": "long.json", "ranks": 1}' >queue.json
    hold_at 12 '"kind":"train"' /off/x/metrics.jsonl
    "$MPIRUN" -n 2 "${hold[@]}" "$PHASE4_BATCH" queue.json >log 2>&1 &
    local job=$! status=0 pid processes trained
    is_held "$job" || complain "x does not train"
    # While it runs, nobody else may take the journal. It is held up meanwhile, however long the second batch takes to start.
    processes=$(pgrep -P "$job" phase4_batch)
    for pid in $processes; do kill -STOP "$pid"; done
    "$PHASE4_BATCH" queue.json >second 2>&1 || status=$?
    [ $status = 2 ] && grep -q "a batch's state directory" second || { cp second log; complain "a second batch: status $status, expected 2"; }
    for pid in $processes "$job"; do kill -KILL "$pid"; done
    trained=$(grep -c '"kind":"train"' "$TMP/off/x/metrics.jsonl")
    wait "$job" || true
    printf '{"name":"x","event":"do' >>queue.batch/journal.jsonl # a line that was not finished
    # A signal to the rank that has no coordinator stops all models. x goes on when the coordinator knows, and slowly.
    hold_at $((trained + 3)) '"kind":"train"' /off/x/metrics.jsonl # of which some are the next batch's
    (
        is_held $$ || exit 1 # the script
        for pid in $(pgrep -x phase4_batch); do
            [ "$(readlink "/proc/$pid/cwd")" = "$PWD" ] && grep -zq '^OMPI_COMM_WORLD_RANK=1$' "/proc/$pid/environ" || continue
            kill -TERM "$pid"
        done
        until grep -q "stopping: SIGTERM" log; do kill -0 $$ && sleep 0.1; done
        let_go
    ) &
    program=("${hold[@]}" P4_PACE_MS=250 "$PHASE4_BATCH")
    batch 75 2 queue.json
    program=("$PHASE4_BATCH")
    grep -q 'stopping: SIGTERM' log || complain "the batch was not stopped"
    wait
    batch 0 2 queue.json
    grep -q 'continues after step' queue.batch/logs/x.log || complain "x was not continued"
    for name in x y z; do
        expect "$name" "$(events queue.batch/journal.jsonl $name done)" 1
    done
    "$PHASE4_MPI" --quiet long.json model_path=models/x output_path=alone >log 2>&1 || complain "x alone"
    same "$TMP/off/x" alone
    # A run that ended unseen: its last line is lost, and it is not repeated.
    sed -i '/"name":"x","event":"done"/d' queue.batch/journal.jsonl
    batch 0 1 queue.json
    grep -q '3 complete (3 of them before)' log || complain "a run that had ended was repeated"
    # It counts for the model that it read, as any other: a model that changes is compressed again, also if it changes unseen.
    touch models/x/extra.json
    batch 0 1 queue.json overwrite=true
    expect 'a model that changed after its end was found' "$(events queue.batch/journal.jsonl x done)" 2
    sed -i '/"name":"y","event":"done"/d' queue.batch/journal.jsonl
    printf ' ' >>models/y/config.json
    local starts
    starts=$(events queue.batch/journal.jsonl y started)
    batch 0 1 queue.json overwrite=true
    expect 'a model that changed before its end was found' "$(events queue.batch/journal.jsonl y started)" $((starts + 1))
    # Older versions wrote such an end without a fingerprint: it holds as long as the files that the run has read are the same.
    sed -i '/"name":"z","event":"done"/s/"model_fingerprint":"[^"]*"/"model_fingerprint":null/' queue.batch/journal.jsonl
    batch 0 1 queue.json
    grep -q '3 complete (3 of them before)' log || complain "an end without a fingerprint was repeated"
    printf ' ' >>models/z/config.json
    starts=$(events queue.batch/journal.jsonl z started)
    batch 0 1 queue.json overwrite=true
    expect 'a model that changed behind an end without a fingerprint' "$(events queue.batch/journal.jsonl z started)" $((starts + 1))
    # What an older attempt tells later does not count; a line that is no event is refused by its number.
    echo '{"name":"y","event":"failed","attempt":1,"error":"stale"}' >>queue.batch/journal.jsonl
    local lines
    expect 'failed models' "$("$PHASE4_BATCH" --list failed queue.json)" ''
    lines=$(wc -l <queue.batch/journal.jsonl)
    echo 'nonsense' >>queue.batch/journal.jsonl
    batch 2 1 queue.json
    grep -q "journal.jsonl:$((lines + 1))" log || complain "the bad line is not named"
}

# Verdicts, the bound on failures, tasks of an array, queues that are refused.
verdicts() {
    for name in p q r; do cp -r "$TMP/six" $name; printf '%s\n' "$name  "; done >list.txt
    derive bad.json verdicts '"max_accuracy_drop": 0, "enable_fine_tuning": false, "reconstruct": false'
    batch 3 2 --strict --template bad.json list.txt
    grep -q '3 complete (0 of them before): 0 passed or unjudged, 3 with a failed verdict in ' log || complain "the verdicts are not counted"
    [ "$(grep -c 'done [pqr] in .*; verdict failed: perplexity rose by .* % (95 % interval: .* to .* %), a rise of 0.0 % is allowed$' log)" = 3 ] || complain "no verdict in the log lines"
    # The same without --strict, which decides on the exit status alone.
    batch 0 2 --template bad.json list.txt
    grep -q '3 complete (3 of them before): 0 passed or unjudged, 3 with a failed verdict in ' log || complain "the verdicts are not counted without --strict"
    [ "$(grep -c '^[pqr] .* verdict_failed .*  perplexity rose by .* % (95 % interval: ' log)" = 3 ] || complain "no verdict in the table"
    python3 - <<'END'
import json
results = json.load(open("list.batch/batch_results.json"))
assert results["status"] == 0 and results["counts"]["verdict_failed"] == 3 and results["counts"]["done"] == 0, results
assert results["summary"].startswith("3 complete (3 of them before): 0 passed or unjudged, 3 with a failed verdict"), results["summary"]
for m in results["models"]:
    assert m["state"] == m["event"] == "verdict_failed" and m["error"].startswith("perplexity rose by"), m
END
    rm -r list.batch "$TMP/verdicts"
    batch 5 1 --template bad.json list.txt init=pretrained
    grep -q '3 failed (p, q, r)' log || complain "models without weights do not fail"
    rm -r list.batch
    mkdir -p "$TMP/verdicts/p" "$TMP/verdicts/q" "$TMP/verdicts/r"
    touch "$TMP"/verdicts/{p,q,r}/model.h5 # results of another run
    batch 5 1 --template bad.json --max-fails 1 list.txt
    grep -q '0 complete (0 of them before), 1 failed (p), 2 to do' log || complain "--max-fails"
    # Each task works on its model and leaves a journal of its own; all of them together are the batch.
    rm -rf list.batch "$TMP/verdicts"
    batch 0 1 --template bad.json --task 2 list.txt
    expect 'models left' "$("$PHASE4_BATCH" --template bad.json --list open list.txt)" 1,3
    batch 0 1 --template bad.json list.txt
    expect 'started here' "$(grep -c started list.batch/journal.jsonl)" 2
    "$PHASE4_BATCH" --template bad.json --results list.txt >log || complain "--results: status $?"
    grep -q 'phase4_batch: 3 complete: 0 passed or unjudged, 3 with a failed verdict$' log || complain "the results of the tasks were not merged"
    printf 'p\n%s/p\n' "$PWD" >twice.txt
    batch 2 1 --template bad.json twice.txt
    grep -q 'both are named "p"' log || complain "two models of one name"
    echo '[{"name": "a", "cfg": "bad.json"}, {"name": "b", "cfg": "bad.json"}]' >one_output.json
    batch 2 1 one_output.json
    grep -q 'both have the output_path .*, expected a separate directory for each model: "output_path": "out/{model}" has the' log ||
        complain "two models with one directory"
    # Models that are done do not hide it.
    echo '[{"name": "p", "cfg": "bad.json", "model_path": "p", "output_path": "one"},
           {"name": "q", "cfg": "bad.json", "model_path": "q", "output_path": "one"}]' >done.json
    batch 2 1 --state list.batch done.json
    grep -q 'both have the output_path "one"' log || complain "two models that are done have one directory in the queue"
    sed -i 's/"output_path": "one"/"output_path": "out\/{model}"/' done.json
    batch 0 1 --state list.batch done.json
    grep -q '2 complete (2 of them before)' log || complain "the directories of models that are done are not told apart"
    # A queue that cannot be read leaves nothing.
    batch 2 1 missing.json
    [ ! -e missing.batch ] && [ ! -e twice.batch ] || complain "a queue that cannot be read left a state"
    echo '{"model": "p"}' >wrong.json
    echo '[{"name": "p", "cfg": "bad.json", "output_path": "x"}, {"name": "gone", "cfg": "bad.json", "model_path": "gone"}]' >queue_of_two.json
    batch 2 1 wrong.json
    batch 5 2 --check queue_of_two.json
    grep -q '1 without an error, 1 failed (gone)' log && [ ! -e queue_of_two.batch ] || complain "--check"
    grep -q '^model  *state  *ranks$' log && grep -q '^p  *no error  *[12]$' log || complain "the table of --check has columns of a run"
    # A model that fails before a rank works on it has its line and its log as others have, and once each.
    batch 5 2 queue_of_two.json
    grep -q 'failed gone before its start: .*gone' log && [ "$(grep -c 'error: .*gone' queue_of_two.batch/logs/gone.log)" = 1 ] ||
        complain "a model that fails in planning has no line or no log"
    batch 5 2 queue_of_two.json
    [ "$(grep -c . queue_of_two.batch/logs/gone.log)" = 1 ] || complain "the same failure is logged twice"
    expect 'the list of failed models' "$("$PHASE4_BATCH" --list failed queue_of_two.json | od -An -c | tr -d ' ')" '2\n'
    "$PHASE4_BATCH" --template bad.json --list failed list.txt >log || complain "--list"
    [ ! -s log ] || complain "a list of no model is not empty"
    batch 2 1 list.txt
    grep -q 'list.txt: .* is read with --template$' log || complain "a text queue without --template"
    batch 2 1 --tusk 1 wrong.json
    grep -q '"--task"' log || complain "the nearest option is not named"
}

# A start that was refused because of the results that are there takes nothing from them: with the queue as it was, the model is done.
# What replaces them does.
mistyped() {
    derive z.json mistyped/z '"reconstruct": false, "enable_fine_tuning": false'
    echo '["z.json"]' >queue.json
    batch 0 1 queue.json
    batch 5 1 queue.json seed=8
    grep -q 'holds the results of another run' log || complain "the results are not protected"
    for option in '' --failed-only --strict; do
        batch 0 1 ${option:+"$option"} queue.json
        grep -q '1 complete (1 of them before)' log || complain "the refused start hides the results ($option)"
    done
    expect 'the failed models' "$("$PHASE4_BATCH" --list failed queue.json)" ''
    expect starts "$(events queue.batch/journal.jsonl z started)" 2
    # The model and its configuration file beside each other: earlier versions named it after the file alone.
    echo "[{\"cfg\": \"z.json\", \"model_path\": \"$TMP/six\"}]" >queue.json
    batch 0 1 queue.json
    grep -q '1 complete (1 of them before)' log && grep -q '^z-six  *done' log || complain "a model was forgotten with its former name"
    echo '["z.json"]' >queue.json
    batch 0 1 queue.json overwrite=true
    grep -q '1 complete (1 of them before)' log || complain "the results are made again"
    batch 0 1 --failed-only queue.json overwrite=true seed=8
    batch 5 1 queue.json
    grep -q 'holds the results of another run' log || complain "the results of seed 8 are taken for those of seed 2"
    # A run that began to replace them and was killed leaves none.
    batch 0 1 --failed-only queue.json overwrite=true
    sed -i 's/"success":.*true/"success": false/' "$TMP/mistyped/z/results.json"
    batch 5 1 queue.json seed=9
    batch 0 1 queue.json overwrite=true
    grep -q '1 complete (0 of them before)' log || complain "results that are gone count as done"
    # One text to train and to evaluate on is worth a warning, which is counted.
    batch 0 1 queue.json overwrite=true enable_fine_tuning=true "eval_files=[\"$TMP/demo/stories-train.jsonl\"]"
    grep -qE '^model .* ratio +warnings$' log && grep -qE '^z +done +1 .* [1-9][0-9]*$' log || complain "the table does not count the warnings"
    grep -qE '"warnings":[[:space:]]*[1-9][0-9]*,' queue.batch/batch_results.json || complain "batch_results.json does not count the warnings"
}

# Twenty models on two ranks: what a rank holds between two models does not grow.
growth() {
    for i in $(seq 1 20); do cp -r "$TMP/six" "m$i"; done
    derive short.json growth '"fine_tune_max_steps": 2, "reconstruct": false'
    echo '{"models": "m*", "template": "short.json"}' >queue.json
    batch 0 2 queue.json
    python3 - <<'END'
import json
held = {}
for line in open("queue.batch/journal.jsonl"):
    event = json.loads(line)
    if event["event"] == "done":
        held.setdefault(event["first_rank"], []).append(event["held_memory_mb"])
assert sum(len(h) for h in held.values()) == 20
assert max(len(h) for h in held.values()) >= 10
for rank, megabytes in held.items(): # a rank that waits for a core may have had few
    assert max(megabytes[2:], default=0) < megabytes[min(1, len(megabytes) - 1)] + 1.5, (rank, megabytes)
END
}

# What is wrong with an entry that is no file is named by queue, entry and key; max_ranks is kept or the entry fails; ranks of a node
# divide its cores. Plans need no MPI.
entries() {
    python3 - "$TMP" <<'END'
import json, os, sys
tmp = sys.argv[1]
template = json.load(open(tmp + "/template.json"))
del template["threads_per_rank"]
shape = json.load(open(tmp + "/six/config.json"))
shape |= {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 16}
os.makedirs("large")
json.dump(shape, open("large/config.json", "w"))
json.dump(template | {"model_path": "large"}, open("large.json", "w"))
def entry(name, **keys):
    return {"name": name, "cfg": "large.json", "output_path": f"{tmp}/entries/{name}", **keys}
inline = template | {"name": "inline", "model_path": "large", "output_path": tmp + "/entries/inline", "log_every": -1}
json.dump([entry("narrow", max_ranks=1), entry("wide", max_ranks=64), entry("torn", ranks=3, max_ranks=2), inline], open("queue.json", "w"))
text = json.dumps(inline | {"name": "twice", "output_path": tmp + "/entries/twice", "log_every": 1})
open("twice.json", "w").write(f"[{text[:-1]}, \"log_every\": 2}}]")
json.dump([entry("threads")], open("threads.json", "w"))
os.makedirs("medium")
json.dump(shape | {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 2}, open("medium/config.json", "w"))
json.dump([entry("gpus", ranks=8, model_path="medium")], open("gpus.json", "w"))
json.dump({"models": ["large"], "template": "large.json"}, open("models.json", "w"))
END
    plan_of() { # plan_of STATUS ARGUMENT...
        local expected=$1 status=0
        shift
        "$PHASE4_BATCH" --plan --ranks 64 "$@" >log 2>&1 || status=$?
        expect "status of $*" $status "$expected"
    }
    said() {
        grep -q "$1" log || complain "expected \"$1\""
    }
    plan_of 5 --device-memory 8G queue.json
    said '^narrow .*queue.json, model 1 (cfg large.json): "max_ranks" is 1, but the model fits on no fewer than [0-9]* ranks$'
    said '^wide  *waiting '
    said '^torn .*queue.json, model 3 (cfg large.json): "ranks" is 3, but "max_ranks" is 2$'
    said '^inline .*queue.json, model 4: key "log_every": found -1,'
    plan_of 5 twice.json
    said '^twice .*twice.json, model 1: duplicate key "log_every", expected once$'
    echo large >list.txt
    sed -i 's/log_every/log_evry/' large.json
    plan_of 5 --template large.json list.txt
    said '^large .*list.txt, model large (template large.json): unknown key "log_evry"'
    plan_of 5 models.json
    said '^large .*models.json, model large (template large.json): unknown key "log_evry"'
    sed -i 's/log_evry/log_every/' large.json
    local cores
    cores=$(getconf _NPROCESSORS_ONLN)
    plan_of 0 --ranks-per-node 64 threads.json
    said '^1 model to do, 0 complete, 0 failed; '
    mv log auto
    plan_of 0 --ranks-per-node 64 threads.json threads_per_rank=$((cores > 64 ? cores / 64 : 1))
    cmp log auto || complain "64 ranks of a node do not divide its $cores cores"
    plan_of 0 --ranks-per-node 64 threads.json checkpoint_minutes=0 checkpoint_every=0
    mv log none
    plan_of 0 --ranks-per-node 64 threads.json checkpoint_minutes=15
    [ "$(awk '/^threads / {print $(NF - 1), $NF}' none)" != "$(awk '/^threads / {print $(NF - 1), $NF}' log)" ] ||
        complain 'checkpoints take no disk'
    # Without --ranks-per-node 8 GPUs share a node: the plan is the one of phase4_mpi, but for the memory of the process that plans. A
    # thread more takes 2 MiB more for the outputs.
    local gpus=(device=cuda enable_fine_tuning=false reconstruct=false quantizer=absmean eval_samples=0)
    plan_of 0 --ranks 8 --device-memory 80G gpus.json "${gpus[@]}"
    "$PHASE4_MPI" --plan --json --ranks 8 --device-memory 80G large.json model_path=medium "${gpus[@]}" >plan.json
    python3 - <<'END' || complain "the plan of 8 GPUs is not that of phase4_mpi"
import json, re
plan = json.load(open("plan.json"))
wanted = [max(rank[peak]["bytes"] for rank in plan["ranks_planned"]) / 2**20 for peak in ("host_peak", "device_peak")]
found = [float(n) for n in re.search(r"^gpus  *waiting .* ([0-9.]+) MiB  *([0-9.]+) MiB ", open("log").read(), re.M).groups()]
wanted[0] += plan["process_bytes"] / 2**20
assert abs(found[0] - wanted[0]) < 1 and abs(found[1] - wanted[1]) < 0.01, (found, wanted)
END
}

# Configurations alone: ten thousand models are planned in seconds, since those of one shape have one plan.
plans() {
    python3 - "$TMP" <<'END'
import json, os, sys
config = json.load(open(sys.argv[1] + "/six/config.json"))
for i in range(10000):
    os.makedirs(f"big/m{i}")
    json.dump({**config, "num_hidden_layers": 2 + i % 20}, open(f"big/m{i}/config.json", "w"))
END
    echo "{\"models\": \"big\", \"template\": \"$TMP/template.json\"}" >queue.json
    TIMEFORMAT=%U
    { time "$PHASE4_BATCH" --plan --ranks 64 --ranks-per-node 8 queue.json >log 2>&1; } 2>seconds || complain "--plan"
    grep -q '^10000 models to do' log || complain "not all are planned"
    [ "$(cut -d. -f1 seconds)" -lt $((20 * ${P4_TIME_FACTOR:-1})) ] || complain "planning took $(cat seconds) s of CPU time"
}

# Three models of two thirds of the length of the two others: on two ranks longest first takes 7/6 of the time that it must. Plan and
# batch start them in the same, better order.
order() {
    for name in a b c; do derive $name.json order/$name '"fine_tune_max_steps": 2000, "fine_tune_epochs": 100000'; done
    for name in d e; do derive $name.json order/$name '"fine_tune_max_steps": 3000, "fine_tune_epochs": 100000'; done
    printf '{"cfg": "%s.json", "ranks": 1}\n' a b c d e | paste -sd , | sed 's/.*/[&]/' >queue.json
    # Rates of another number of ranks: once, however many models there are.
    "$PHASE4_MPI" --plan --json a.json 2>log | python3 -c '
import json, sys
rates = json.load(sys.stdin)["rates"]
json.dump(rates | {"ranks": 1, "ranks_per_node": 1, "threads": 1}, open("rates.json", "w"))' || complain "phase4_mpi --plan"
    "$PHASE4_BATCH" --plan --ranks 2 --rates rates.json queue.json >log 2>&1 || complain "--plan --rates: status $?"
    [ "$(grep -c '^warning: --rates rates.json: measured with 1 rank of 1 thread on a machine, and this plan has 2 ranks of' log)" = 1 ] ||
        complain 'expected a warning of rates of another number of ranks'
    "$PHASE4_BATCH" --plan --ranks 2 queue.json >log 2>&1 || complain "--plan: status $?"
    local planned
    planned=$(awk '$2 == "waiting" {printf "%s", $1}' log)
    expect 'models planned' "$(grep -o . <<<"$planned" | sort | tr -d '\n')" abcde
    case $planned in de* | ed*) complain "longest first: $planned" ;; esac
    batch 0 2 --check queue.json
    expect 'the order of starts' "$(sed -n 's/.* check \([a-e]\) on 1 rank .*/\1/p' log | tr -d '\n')" "$planned"
}

spawn mixed
spawn broken_off
spawn verdicts
spawn mistyped
spawn growth
spawn entries
spawn plans
spawn order
join
