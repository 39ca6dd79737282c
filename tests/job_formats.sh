#!/usr/bin/env bash
# docs/formats.md describes every key of every JSON file that a run writes, and docs/configuration.md every key of the configuration in
# them. The run trains, is stopped and continued, so that all its files are there at some time.
set -eu
. "$(dirname "$0")/held.sh"
cd "$TMP"
docs=$FIXTURES/../../docs
fail() {
    echo "job_formats: $*"
    tail -n 20 log
    exit 1
}
awk 'BEGIN {srand(3); for (i = 0; i < 4800; i++) printf "\\%o\\000", (i * 7 + int(rand() * 9)) % 40}' >octal
printf "$(cat octal)" >ids.bin # 400 windows of 12 token ids
cat >cfg.json <<JSON
{"model_path": "$FIXTURES/models/llama-gqa", "output_path": "out", "wandb_enabled": false, "calibration_dataset": "custom",
 "calibration_files": ["ids.bin"], "eval_files": ["ids.bin"], "eval_sets": {"code": ["ids.bin"]}, "train_files": ["ids.bin"], "calibration_sequence_length": 12,
 "eval_samples": 20, "calibration_samples": 20, "global_batch_tokens": 240, "fine_tune_epochs": 10000, "fine_tune_threshold": 0,
 "warmup_steps": 1, "checkpoint_every": 20, "eval_every": 30, "threads_per_rank": 1}
JSON

# Every kind of line, and a checkpoint; the files of a run that is under way are copied.
hold_at 1 '"stage":"fine_tune"' /metrics.jsonl signal # at step 20, of which there is a checkpoint
"${hold[@]}" "$PHASE4_MPI" cfg.json fine_tune_lr=1e-3 >log 2>&1 &
job=$!
is_held "$job" || fail 'the run ended before it was evaluated in training'
cp out/.phase4_hold hold.json || fail 'no hold'
cp out/results.json under_way.json
kill -USR1 "$job"
status=0
wait "$job" || status=$?
[ $status = 75 ] || fail "status $status, expected 75"
cp "$(ls -d out/checkpoints/step-*[0-9] | sort -V | tail -n 1)/manifest.json" manifest.json
steps=$(($(sed -n 's/.*"step":[[:space:]]*\([0-9]*\),.*/\1/p' manifest.json) + 30))
"$PHASE4_MPI" cfg.json fine_tune_lr=1e-3 fine_tune_max_steps=$steps >log 2>&1 || fail 'the run is not continued'

cat >check.py <<'END'
"""check.py PAGE CONFIGURATION: prints each key of the files that the pages do not have in backticks in the file's section."""
import json, re, sys
page, configuration = (open(path).read() for path in sys.argv[1:3])
sections = dict(re.findall(r"^## (\d+) (.*?)(?=^## |\Z)", page, re.M | re.S))
results = sections["3"]
missing = 0

def look(place, value, sections, nested):
    """sections: where the members of `value` are described; nested: and those of its members."""
    global missing
    if isinstance(value, list):
        for item in value:
            look(place, item, sections, nested)
    if isinstance(value, dict):
        for key, member in value.items():
            if f"`{key}`" not in sections:
                print(f"{place}: \"{key}\" is not described")
                missing += 1
            if key == "eval_sets" and isinstance(member, dict):
                continue # names that the user chose
            look(f"{place}.{key}", member, configuration if key == "config" else nested, nested)

def read(path):
    return json.load(open(path))

for path in "out/results.json", "under_way.json":
    look(path, read(path), results, results)
look("details.json", read("out/details.json"), sections["12"], sections["12"])
look("compression_metadata.json", read("out/compression_metadata.json"), sections["4"], sections["4"] + results)
for line in open("out/metrics.jsonl"):
    look("metrics.jsonl", json.loads(line), sections["5"], "")
look("manifest.json", read("manifest.json"), sections["6"], sections["6"] + results)
look(".phase4_hold", read("hold.json"), sections["7"], "")
look("phase4_config.json", read("out/phase4_config.json"), configuration, "")
provenance = read("out/results.json")["provenance"]
for key in "reconstruction", "fine_tuning":
    assert read("out/results.json")[key], f"the run has no {key}"
assert provenance["continued"]["times"] == 1 and provenance["started"] <= provenance["ended"], provenance
assert provenance["started"] == read("under_way.json")["provenance"]["started"] == read("manifest.json")["started"], provenance
assert read("under_way.json")["provenance"]["ended"] is None
assert {json.loads(line)["kind"] for line in open("out/metrics.jsonl")} == {"train", "evaluation", "reconstruct"}
sys.exit(missing > 0)
END
python3 check.py "$docs/formats.md" "$docs/configuration.md" >missing || fail "$(cat missing)"
# A page that lacks a key is noticed.
for key in first_rank tokens_per_s born updates ternary_mb seed input_peak; do
    sed "s/\`$key\`//" "$docs/formats.md" >formats.md
    sed "s/\`$key\`//" "$docs/configuration.md" >configuration.md
    if python3 check.py formats.md configuration.md >missing; then fail "a page without $key passes"; fi
    grep -qF "\"$key\" is not described" missing || fail "a page without $key: $(cat missing)"
done
