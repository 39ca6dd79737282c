#!/usr/bin/env bash
# phase4_evaluate: its numbers are those of the run that made the result, on the run's text and on another, on any number of
# ranks, with and without the original.
set -eu
. "$(dirname "$0")/job.sh"
cd "$TMP"
ids() { # ids SEED: 100 windows of 12 token ids
    printf "$(awk -v seed="$1" 'BEGIN {srand(seed); for (i = 0; i < 1200; i++) printf "\\%o\\000", (i * 7 + int(rand() * 9)) % 40}')" >"ids$1.bin"
}
ids 3
ids 4
ids 5
cp -r "$FIXTURES/models/llama-gqa" llama
cat >cfg.json <<'JSON'
{"model_path": "llama", "output_path": "a", "wandb_enabled": false, "calibration_dataset": "custom",
 "calibration_files": ["ids3.bin"], "eval_files": ["ids4.bin"], "calibration_sequence_length": 12, "eval_samples": 30,
 "calibration_samples": 30, "fine_tune_threshold": 0, "fine_tune_max_steps": 3, "fine_tune_lr": 1e-2, "global_batch_tokens": 120,
 "warmup_steps": 1, "reconstruct_steps": 3, "threads_per_rank": 1}
JSON
compress() { # compress key=value...
    "$PHASE4_MPI" cfg.json "$@" >log 2>&1 || complain "the run $*"
}
# measured BOUND RESULTS ARGUMENT...: phase4_evaluate's numbers are those of RESULTS, within the bound.
cat >same.py <<'END'
import json, sys
bound, said, results = float(sys.argv[1]), json.load(open("said.json")), json.load(open(sys.argv[2]))
original = said["original"] is not None
for mine, theirs in ("original", "pre_compression"), ("compressed", "final"):
    if mine == "original" and not original:
        continue
    for key, want in results[theirs].items():
        got = said[mine][key]
        if key in ("kl", "agreement", "degradation_low", "degradation_high") and not original:
            assert got is None
        else:
            assert (got is None) == (want is None) and (got is None or abs(got - want) <= bound * abs(want)), (mine, key, got, want)
if original:
    for key in "passed", "degradation_low", "degradation_high":
        assert said["quality"][key] == results["quality"][key] or abs(said["quality"][key] - results["quality"][key]) < 1e-6, key
assert said["compressed"]["tokens"] > 0
END
measured() {
    local bound=$1 results=$2
    shift 2
    "$@" >said.json 2>log || complain "$*: status $?"
    python3 same.py "$bound" "$results" || complain "$*"
}
evaluate() { "$PHASE4_EVALUATE" --json "$@"; }
# refused STATUS WORDS ARGUMENT...: the status, and one line with WORDS.
refused() {
    local expected=$1 words=$2 status=0
    shift 2
    "$PHASE4_EVALUATE" -q "$@" >log 2>&1 || status=$?
    [ $status = "$expected" ] || complain "evaluate $*: status $status, expected $expected"
    [ "$(grep -cF -- "$words" log)" = 1 ] || complain "evaluate $*: expected \"$words\" in one line"
}

other='The run measured on other windows or another text: what it recorded is not comparable'
# texts SAME TIMES DIR key=value...: what JSON and table say of the text; the sentence stands so many times in the table.
texts() {
    local same=$1 times=$2
    shift 2
    evaluate "$@" >said.json 2>log && grep -q "\"same_text\":[[:space:]]*$same\b" said.json || complain "evaluate $*: expected same_text $same"
    "$PHASE4_EVALUATE" -q "$@" >table 2>log || complain "evaluate $*"
    [ "$(grep -cF "$other" table)" = "$times" ] || complain "evaluate $*: expected \"$other\" in $times lines"
}

compress
texts true 0 a
texts false 1 a eval_files=ids5.bin
texts false 1 a eval_samples=7
texts false 1 a calibration_sequence_length=6 eval_samples=60
cp -r a alone
rm alone/compression_metadata.json
texts null 0 alone eval_files=ids5.bin
measured 0 a/results.json evaluate a device=cpu threads_per_rank=1
grep -q '"recorded"' said.json
measured 1e-9 a/results.json "$MPIRUN" -n 2 "$PHASE4_EVALUATE" --json a/model.h5
measured 1e-9 a/results.json "$MPIRUN" -n 3 "$PHASE4_EVALUATE" --json a
# Another text: as a run that had it. Windows set aside from the calibration data: the same ones.
compress output_path=b 'eval_files=["ids5.bin"]' eval_samples=7 enable_fine_tuning=false
compress output_path=c 'eval_files=["ids4.bin"]' eval_samples=7 enable_fine_tuning=false
measured 0 b/results.json evaluate c eval_files=ids5.bin eval_samples=7 threads_per_rank=1
compress output_path=d eval_files=[] eval_samples=5 activation_bits=8
measured 0 d/results.json evaluate d threads_per_rank=1
"$PHASE4_EVALUATE" a >log 2>&1
grep -q 'Verdict  ' log || complain 'no verdict'
# The rows are called what the run's table calls them.
"$PHASE4_MPI" cfg.json output_path=rows >run.log 2>&1 || complain 'the run whose table is compared'
for row in 'loss (nats per token)' 'next token guessed right' 'agrees with the original' 'KL to the original (nats)' '  95 % interval'; do
    grep -qF "  $row  " log && grep -qF "  $row  " run.log || complain "not in both tables: $row"
done

# The original: moved, exchanged, another model.
mv llama elsewhere
measured 0 a/results.json evaluate a threads_per_rank=1
grep -q '"original":.null' said.json || complain 'the original is not there'
grep -q 'is not there; model_path=DIRECTORY' said.json || complain 'nothing says why'
measured 0 a/results.json evaluate a model_path=elsewhere threads_per_rank=1
grep -q '"original":.{' said.json || complain 'the original is there'
measured 1e-9 a/results.json "$MPIRUN" -n 2 "$PHASE4_EVALUATE" --json a
refused 2 '--strict asks for a verdict, but the original is not at hand' --strict a
refused 2 'key "model_path": the original was asked for, but' a model_path=none
cp -r elsewhere changed
python3 - <<'END'
with open("changed/model.safetensors", "r+b") as f:
    f.seek(-2, 2)
    f.write(b"\1")
END
refused 2 'is none of the files that the run read' a model_path=changed
refused 2 'key "model_path": the original was asked for, but' a model_path="$FIXTURES/models/gpt2-plain"
compress model_path="$FIXTURES/models/qwen3-bias" output_path=f enable_fine_tuning=false reconstruct=false sparsity_threshold=0.1
grep -q '"passed":.false' f/results.json || complain 'this model should get worse'
refused 3 'Verdict         FAILED' --strict f
refused 0 'Verdict         PASSED' --strict f max_accuracy_drop=0.5

# What it does not take.
refused 2 'key "sparsity_threshold": an evaluation does not read it' a sparsity_threshold=0.3
refused 2 'eval_sample' a eval_sample=3
refused 2 'key "eval_samples": found 0' a eval_samples=0
refused 2 'key "calibration_sequence_length"' a calibration_sequence_length=100000
refused 2 'none/model.h5: is not there; expected the output directory of a run, or its model.h5' none/model.h5
refused 2 'none: is not there; expected the output directory of a run, or its model.h5' none
refused 2 'none.bin' a eval_files=none.bin
refused 2 'no result is given'
refused 0 'Usage: phase4_evaluate' --help
head -c 5000 a/model.h5 >cut.h5
refused 2 'cut.h5' cut.h5

# Text, with the tokenizer that model.h5 holds and nothing beside it.
demo 30
model small "${SMALL[@]}"
cat >text.json <<'JSON'
{"model_path": "small", "output_path": "e", "init": "random", "wandb_enabled": false, "calibration_dataset": "custom",
 "calibration_files": ["demo/stories-train.jsonl"], "eval_files": ["demo/stories-valid.jsonl"], "calibration_sequence_length": 64,
 "eval_samples": 4, "calibration_samples": 4, "enable_fine_tuning": false, "threads_per_rank": 1}
JSON
"$PHASE4_MPI" text.json >log 2>&1 || complain 'the run on text'
cp e/model.h5 alone.h5
measured 0 e/results.json evaluate alone.h5 threads_per_rank=1
grep -q 'the run began with random weights' said.json || complain 'nothing says why'
