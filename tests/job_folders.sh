#!/usr/bin/env bash
# Paths are relative to the folder where a program is started. What a run records of them is absolute: its phase4_config.json makes the
# same model from anywhere. A run that was stopped continues from another folder with the same files, however they are named there,
# and not with other files that have the same names there.
set -eu
. "$(dirname "$0")/job.sh"
cd "$TMP"
mkdir -p x/data y/data
cp -r "$FIXTURES/models/gpt2-plain" x/model
cp -r x/model y/model
for folder in x y; do # 100 windows of 12 token ids, others in each
    awk -v seed=${#folder}$folder 'BEGIN {srand(seed == "1x" ? 3 : 4); for (i = 0; i < 1200; i++) printf "\\%o\\000", (i * 7 + int(rand() * 9)) % 40}' >octal
    # shellcheck disable=SC2059
    printf "$(cat octal)" >$folder/data/ids.bin
done
cat >x/cfg.json <<JSON
{"model_path": "model", "output_path": "out", "wandb_enabled": false, "device": "cpu", "calibration_dataset": "custom",
 "calibration_files": ["./data/*.bin"], "eval_files": ["data/ids.bin"], "eval_sets": {"again": ["data/ids.bin"], "twice": ["../x/data/ids.bin"]},
 "calibration_sequence_length": 12, "eval_samples": 8, "calibration_samples": 16, "calibration_batch_size": 2, "global_batch_tokens": 48,
 "reconstruct": false, "fine_tune_threshold": 0, "fine_tune_max_steps": 4, "fine_tune_epochs": 9, "log_every": 1, "checkpoint_every": 1,
 "threads_per_rank": 1, "num_workers": 1}
JSON
cp x/cfg.json y/cfg.json
weights=dequantized_fp16/model.safetensors
run() { # run STATUS WORDS FOLDER ARGUMENT...: phase4_mpi, started in that folder
    local expected=$1 words=$2 status=0
    cd "$3"
    "$PHASE4_MPI" "${@:4}" >"$TMP/log" 2>&1 || status=$?
    cd "$TMP"
    [ $status = "$expected" ] || complain "in $3: status $status, expected $expected"
    grep -qF -- "$words" log || complain "in $3: expected \"$words\""
}
stopped() { # stopped OUTPUT: of the first folder, with a checkpoint in it
    LD_PRELOAD=$P4_FAULTS P4_FAULT=0,${at:-4},stop P4_FAULT_UNDER=metrics.jsonl run 75 'the same command continues it' x cfg.json output_path="$1"
    [ -n "$(ls "x/$1/checkpoints")" ] || complain 'the run left no checkpoint'
}
export ASAN_OPTIONS=verify_asan_link_order=0

run 0 "Verdict" x cfg.json
python3 - "$TMP/x" x/out/phase4_config.json <<'END'
import json, sys
folder, file = sys.argv[1:]
c = json.load(open(file))
assert c["model_path"] == folder + "/model" and c["output_path"] == folder + "/out", c
assert c["calibration_files"] == [folder + "/data/*.bin"] and c["eval_files"] == [folder + "/data/ids.bin"], c
assert c["eval_sets"] == {"again": [folder + "/data/ids.bin"], "twice": [folder + "/data/ids.bin"]}, c["eval_sets"]
assert c["train_files"] == [] and c["dataset_root"] == "" and c["token_cache"] == "" and c["resume"] == "auto", c
metadata = json.load(open(folder + "/out/compression_metadata.json"))
assert metadata["config"] == c and {i["path"] for i in metadata["inputs"]} == {folder + "/model/" + f for f in ("config.json", "model.safetensors")}, metadata
END
# From another folder: the recorded configuration; the one that the user wrote, with other names of the same files.
run 0 "Verdict" / "$TMP/x/out/phase4_config.json" output_path="$TMP/again"
cmp "again/$weights" "x/out/$weights" || complain 'the recorded configuration makes another model'
run 2 'out: is complete already with this configuration' / "$TMP/x/out/phase4_config.json"
there=(model_path=../x/model 'calibration_files=["../x/data/*.bin"]' 'eval_files=["../x/data/ids.bin"]'
    'eval_sets={"again": ["../x/data/ids.bin"], "twice": ["../x/data/ids.bin"]}')
run 2 'out: is complete already with this configuration' y cfg.json output_path=../x/out "${there[@]}"
run 2 'out: holds the results of another run (it differs in model_path' y cfg.json output_path=../x/out
"$PHASE4_EVALUATE" x/out >log 2>&1 || complain 'phase4_evaluate does not find the files of the run from another folder'

status=0
(cd y && "$PHASE4_INSPECT" --json ../x/out >"$TMP/said.json" 2>"$TMP/log") || status=$?
[ $status = 0 ] && python3 -c 'import json; assert {i["state"] for i in json.load(open("said.json"))["inputs"]} == {"same"}' ||
    complain "phase4_inspect does not find the files of the run from another folder: status $status"

# A run that is continued.
stopped half
run 0 'continues from ../x/half/checkpoints/' y ../x/cfg.json output_path=../x/half "${there[@]}"
cmp "x/half/$weights" "x/out/$weights" || complain 'continued from another folder, the run makes another model'
cmp <(sed 's,/x/half",/x/out",' x/half/phase4_config.json) x/out/phase4_config.json || complain 'another configuration is recorded'
stopped other
run 2 'is a checkpoint of other input' y cfg.json output_path=../x/other
