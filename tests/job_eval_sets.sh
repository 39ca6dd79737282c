#!/usr/bin/env bash
# Several evaluation texts (eval_sets): each gives what a run gives that has it as eval_files, on 1 to 3 ranks; a verdict each, and
# all must pass; a run that is stopped within the second set continues there; every output has them; what cannot be evaluated is refused.
set -eu
. "$(dirname "$0")/job.sh"
cd "$TMP"
ids() { # ids SEED WINDOWS: windows of 12 token ids; some end a text
    printf "$(awk -v seed="$1" -v count="$(($2 * 12))" \
        'BEGIN {srand(seed); for (i = 0; i < count; i++) printf "\\%o\\000", (i * (5 + seed) + int(rand() * 9)) % 40}')" >"ids$1.bin"
}
ids 1 60
ids 2 60
ids 3 50
ids 4 30
head -c 22 ids4.bin >short.bin
cp -r "$FIXTURES/models/qwen3-bias" qwen # which gets worse by being quantized, so that it is fine-tuned
cat >cfg.json <<'JSON'
{"model_path": "qwen", "output_path": "a", "wandb_enabled": false, "calibration_dataset": "custom", "device": "cpu",
 "calibration_files": ["ids1.bin"], "eval_files": ["ids2.bin"], "calibration_sequence_length": 12, "eval_samples": 40,
 "calibration_samples": 20, "calibration_batch_size": 4, "fine_tune_threshold": 0, "fine_tune_max_steps": 3, "fine_tune_lr": 1e-2,
 "global_batch_tokens": 120, "warmup_steps": 1, "reconstruct": false, "sparsity_threshold": 0.1, "threads_per_rank": 1, "sample_texts": 0}
JSON
sets='eval_sets={"one": "ids3.bin", "two-b": ["ids4.bin", "ids1.bin"]}'
run() { # run key=value...
    "$PHASE4_MPI" cfg.json "$@" >log 2>&1 || complain "the run $*"
}
cat >same.py <<'END'
"""same.py BOUND A MEMBERS B [SET]: the evaluations of B, or of a set of B, are those of A, or of its set."""
import json, math, sys
bound, a, b = float(sys.argv[1]), json.load(open(sys.argv[2])), json.load(open(sys.argv[4]))
if len(sys.argv) > 5:
    sets = [{s["name"]: s for s in x.get("eval_sets", [])} for x in (a, b)]
    a, b = sets[0].get(sys.argv[5], a), sets[1][sys.argv[5]]
for member in sys.argv[3].split(","):
    for key, want in a[member].items():
        got = b[member][key]
        near = got is not None and want is not None and math.isclose(got, want, rel_tol=bound, abs_tol=bound)
        assert got == want or (near and key not in ("agreement", "accuracy")), (member, key, got, want)
END
same() { python3 same.py "$@" || complain "the evaluations: $*"; }

run "$sets"
run output_path=plain
run output_path=b eval_files=ids3.bin enable_fine_tuning=false
run output_path=c 'eval_files=["ids4.bin", "ids1.bin"]' enable_fine_tuning=false
all=pre_compression,post_compression,final
same 0 plain/results.json $all a/results.json
same 0 b/results.json pre_compression,post_compression a/results.json one
same 0 c/results.json pre_compression,post_compression a/results.json two-b
# Other windows; and an evaluation text that is set aside from the calibration data.
run output_path=d eval_files=ids3.bin eval_stride=5 eval_bos=true enable_fine_tuning=false
run "$sets" output_path=e eval_stride=5 eval_bos=true enable_fine_tuning=false
same 0 d/results.json pre_compression,post_compression e/results.json one
run output_path=f eval_files=[] eval_samples=9 enable_fine_tuning=false
run "$sets" output_path=g eval_files=[] eval_samples=9 enable_fine_tuning=false
same 0 f/results.json pre_compression,post_compression g/results.json
python3 - <<'END' || complain 'the outputs'
import json, os
def read(path):
    return json.load(open(path))
a, plain = read("a/results.json"), read("plain/results.json")
assert "eval_sets" not in plain and "eval_sets" not in read("plain/compression_metadata.json")["evaluations"]
assert [s["name"] for s in a["eval_sets"]] == ["one", "two-b"]
assert a["fine_tuning"]["steps"] == 3
for s in a["eval_sets"]:
    q = s["quality"]
    ratio = s["final"]["perplexity"] / s["pre_compression"]["perplexity"] - 1
    assert abs(q["degradation_ratio"] - ratio) < 1e-9 and q["passed"] == (ratio <= 0.1), q
    assert q["degradation_low"] == s["final"]["degradation_low"] < ratio < q["degradation_high"], q
assert a["quality"]["passed"] == (a["quality"]["degradation_ratio"] <= 0.1 and all(s["quality"]["passed"] for s in a["eval_sets"]))
kept = read("a/compression_metadata.json")["evaluations"]
assert all(kept[key] == a[key] for key in ("pre_compression", "post_compression", "final", "quality", "eval_sets")), kept
lines = [json.loads(line) for line in open("a/metrics.jsonl")]
stages = [(line["stage"], line.get("set")) for line in lines if line["kind"] == "evaluation" and line["stage"] != "fine_tune"]
assert stages == [(stage, s) for stage in ("pre", "post", "final") for s in (None, "one", "two-b")], stages
assert read("a/phase4_config.json")["eval_sets"] == {
    "one": [os.path.abspath("ids3.bin")], "two-b": [os.path.abspath("ids4.bin"), os.path.abspath("ids1.bin")]}
page = open("a/report.html").read()
assert "two-b" in page[page.index("<caption>Sets"):], "the report"
END
"$PHASE4_INSPECT" a >log 2>&1 || complain 'phase4_inspect'
{ grep -q 'set "two-b": ' log && [ "$(grep -c '95 % interval' log)" = 10 ]; } || complain 'phase4_inspect shows neither sets nor intervals'
# Sums in one order: the same figures on any number of ranks.
exact=("$sets" exact_sums=true)
run "${exact[@]}" output_path=r1
for ranks in 2 3; do
    "$MPIRUN" -n $ranks "$PHASE4_MPI" cfg.json "${exact[@]}" output_path=r$ranks >log 2>&1 </dev/null || complain "$ranks ranks"
    same 1e-12 r1/results.json $all r$ranks/results.json
    same 1e-12 r1/results.json $all r$ranks/results.json one
    same 1e-12 r1/results.json $all r$ranks/results.json two-b
done

# phase4_evaluate: the run's sets, and another.
"$PHASE4_EVALUATE" --json a threads_per_rank=1 >said.json 2>log || complain 'phase4_evaluate'
python3 - <<'END' || complain 'phase4_evaluate'
import json
said, a = json.load(open("said.json")), json.load(open("a/results.json"))
assert len(said["eval_sets"]) == 2
for mine, theirs in zip(said["eval_sets"], a["eval_sets"]):
    assert mine["name"] == theirs["name"] and mine["original"] == theirs["pre_compression"] == mine["recorded"]["original"]
    assert mine["compressed"] == theirs["final"] == mine["recorded"]["compressed"] and mine["quality"] == theirs["quality"]
assert said["quality"]["passed"] == a["quality"]["passed"]
END
"$PHASE4_EVALUATE" --json a threads_per_rank=1 eval_sets=new=ids3.bin >said.json 2>log || complain 'phase4_evaluate with another set'
python3 - <<'END' || complain 'phase4_evaluate with another set'
import json
said, a = json.load(open("said.json")), json.load(open("a/results.json"))
assert [s["name"] for s in said["eval_sets"]] == ["new"] and said["eval_sets"][0]["recorded"]["original"] is None
assert said["eval_sets"][0]["compressed"] == a["eval_sets"][0]["final"]
END

# The text with the smallest rise passes; with the one with the largest rise as a set beside it the verdict fails.
run enable_fine_tuning=false output_path=v 'eval_sets={"x": "ids3.bin", "y": "ids4.bin"}'
few=$(grep -c 'key "eval_samples": asked for 40 windows of 12 tokens, but set "y" has only 30$' log)
{ [ "$few" = 1 ] && ! grep -q 'set "x" has only' log; } || complain 'no warning of the set with few windows'
python3 - >chosen <<'END'
import json
v = json.load(open("v/results.json"))
rises = sorted([(v["quality"]["degradation_ratio"], "ids2.bin")] +
               [(s["quality"]["degradation_ratio"], f) for s, f in zip(v["eval_sets"], ("ids3.bin", "ids4.bin"))])
assert rises[2][0] > 0, rises
print(rises[0][1], rises[2][1], (max(rises[0][0], 0) + rises[2][0]) / 2)
END
read -r best worst allowed <chosen
verdict() { # verdict STATUS WORDS OUT key=value...
    local expected=$1 words=$2 status=0 out=$3
    shift 3
    "$PHASE4_MPI" --strict cfg.json enable_fine_tuning=false output_path="$out" max_accuracy_drop="$allowed" "$@" >log 2>&1 || status=$?
    [ $status = "$expected" ] || complain "$*: status $status, expected $expected"
    [ "$(grep -cE -- "$words" log)" = 1 ] || complain "$*: expected \"$words\" in one line"
}
verdict 3 'Verdict +FAILED: perplexity .*; failed on the sets: hard(; but the original is no better than guessing.*)?$' w eval_files="$best" "eval_sets=hard=$worst"
grep -q 'Failed on the sets: ' w/report.html || complain 'the report does not name the set'
verdict 0 'Verdict +PASSED: perplexity .*; passed on the sets: easy(; but the original is no better than guessing.*)?$' x eval_files="$best" "eval_sets=easy=$best"
status=0
"$PHASE4_EVALUATE" --strict w >log 2>&1 || status=$?
{ [ $status = 3 ] && grep -qE '; failed on the sets: hard(; but the original is no better than guessing.*)?$' log; } || complain 'phase4_evaluate --strict with a set that fails'
"$PHASE4_EVALUATE" --strict w eval_sets={} >log 2>&1 || complain 'phase4_evaluate --strict without the set'
python3 - "$best" "$worst" "$allowed" <<'END'
import json, sys
best, worst, allowed = sys.argv[1:]
json.dump(json.load(open("cfg.json")) | {"output_path": "batched", "enable_fine_tuning": False, "eval_files": best, "eval_sets": {"hard": worst}, "max_accuracy_drop": float(allowed)},
          open("model.json", "w"))
END
echo '["model.json"]' >queue.json
"$PHASE4_BATCH" queue.json >log 2>&1 </dev/null || true
grep -q '^model  *verdict_failed .*  failed on the sets: hard$' log || complain 'the batch does not name the set that failed'

# Fine-tuning runs if a set needs it.
tuned=(fine_tune_threshold="$allowed" eval_files="$best" overwrite=true output_path=n)
run "${tuned[@]}"
grep -q '"fine_tuning":.null' n/results.json || complain 'fine-tuning was not needed'
run "${tuned[@]}" "eval_sets=hard=$worst"
grep -q '"fine_tuning":.{' n/results.json || complain 'a set needs fine-tuning'

# Stopped when the line of set "one" was to be written, thus before "two-b" is done: the last but one line of the first and of the
# final stage. What was measured is not measured again, and nothing differs. Call 1 opens the file.
figures() { # figures FILE: its lines without what depends on the time
    python3 -c "
import json, sys
for line in open(sys.argv[1]):
    print({key: value for key, value in json.loads(line).items() if key not in ('tokens_per_s', 'elapsed_s')})" "$1"
}
figures a/metrics.jsonl >wanted
continued() { # continued WORDS key=value...: refuses to go on, and leaves the run as it was
    local words=$1 status=0
    shift
    "$PHASE4_MPI" -q cfg.json output_path=s "$@" >refusal 2>&1 || status=$?
    { [ $status = 2 ] && grep -qF -- "$words" refusal; } || { cat refusal; complain "$*: status $status, expected 2 and \"$words\""; }
}
mkdir moved
cp ids3.bin moved/ids.bin
for at in 3 "$(wc -l <wanted)"; do
    rm -rf s
    status=0
    LD_PRELOAD="$P4_FAULTS" P4_FAULT=0,$at,stop P4_FAULT_UNDER=metrics.jsonl "$PHASE4_MPI" cfg.json "$sets" output_path=s >log 2>&1 ||
        status=$?
    [ $status = 75 ] || complain "stopped at call $at: status $status, expected 75"
    grep -q 'set "one": loss' log || complain "stopped at call $at: set \"one\" is not measured"
    # Sets go on under their names, with the same text wherever it lies.
    continued 'key "eval_sets": found "two" as set 2, the checkpoint has "two-b" as set 2' 'eval_sets={"one": "ids3.bin", "two": "ids4.bin"}'
    continued 'key "eval_sets": found 1 set, the checkpoint has "two-b" as set 2' eval_sets=one=ids3.bin
    continued 'the text of set "one"' 'eval_sets={"one": "ids2.bin", "two-b": ["ids4.bin", "ids1.bin"]}'
    run 'eval_sets={"one": "moved/ids.bin", "two-b": ["ids4.bin", "ids1.bin"]}' output_path=s
    ones=$(grep -c 'set "one": loss' log) twos=$(grep -c 'set "two-b": loss' log)
    [ "$twos" = $((ones + 1)) ] || complain "stopped at call $at: measured then: \"one\" $ones times, \"two-b\" $twos times"
    same 0 a/results.json $all s/results.json
    same 0 a/results.json $all s/results.json one
    same 0 a/results.json $all s/results.json two-b
    figures s/metrics.jsonl >found
    cmp wanted found || complain "stopped at call $at: metrics.jsonl differs"
done

refused() { # refused WORDS key=value...
    local words=$1 status=0
    shift
    "$PHASE4_MPI" -q cfg.json output_path=refused "$@" >log 2>&1 || status=$?
    [ $status = 2 ] || complain "$*: status $status, expected 2"
    [ "$(grep -cF -- "$words" log)" = 1 ] || complain "$*: expected \"$words\" in one line"
    [ ! -e refused/model.h5 ] || complain "$*: something was written"
}
refused 'key "eval_sets": set "few": short.bin: found 0 windows of 12 tokens' eval_sets=few=short.bin
refused 'eval_sets "none": "none.bin": no such file' eval_sets=none=none.bin
refused 'key "eval_sets": found 1 set, expected none with eval_samples 0' eval_sets=one=ids3.bin eval_samples=0
refused 'found the name "a b"' 'eval_sets={"a b": "ids3.bin"}'
"$PHASE4_MPI" --check cfg.json output_path=checked train_files=ids3.bin eval_sets=leak=ids3.bin >log 2>&1 || complain '--check'
grep -q 'ids3.bin is among the files to evaluate on and to train on' log || complain 'no warning of a set that is trained on'
"$PHASE4_MPI" --check cfg.json output_path=checked 'eval_sets={"x": "ids3.bin", "y": "ids4.bin"}' >log 2>&1 || complain '--check'
grep -q 'key "eval_samples": asks for 40 windows of 12 tokens, and the files of set "y" hold 30$' log ||
    complain 'no warning of the set with few windows'
planned() { # planned key=value...: operations of the evaluation of the original
    "$PHASE4_MPI" --plan --json cfg.json "$@" >plan.json 2>log || complain '--plan'
    python3 -c 'import json; print(json.load(open("plan.json"))["stages"]["evaluate_pre"]["operations"])'
}
with=$(planned 'eval_sets={"one": "ids3.bin", "two": "ids1.bin"}')
without=$(planned)
python3 -c "assert abs($with / $without - 3) < 1e-6" || complain "--plan does not count the sets: $with and $without operations"

# Text: what a set lacks is known when it is tokenized.
demo 30
model small "${SMALL[@]}"
printf 'One.' >one.txt
cat >text.json <<'JSON'
{"model_path": "small", "output_path": "t", "init": "random", "wandb_enabled": false, "calibration_dataset": "custom",
 "calibration_files": ["demo/stories-train.jsonl"], "eval_files": ["demo/stories-valid.jsonl"], "calibration_sequence_length": 64,
 "eval_samples": 4, "calibration_samples": 4, "enable_fine_tuning": false, "threads_per_rank": 1}
JSON
gzip one.txt
status=0
"$PHASE4_MPI" -q text.json eval_sets=few=one.txt.gz >log 2>&1 || status=$?
{ [ $status = 2 ] && grep -q '^.*key "eval_sets": set "few": one.txt.gz: [0-9]* tokens, less than one window of 64 tokens: give more text' log; } ||
    complain "a set with too little text: status $status"
"$PHASE4_MPI" -q text.json eval_sets=valid=demo/stories-valid.jsonl >log 2>&1 || complain 'a set of text'
python3 - <<'END' || complain 'a set of text'
import json
t = json.load(open("t/results.json"))
assert t["eval_sets"][0]["final"] == t["final"] and t["final"]["bits_per_byte"] > 0, t["eval_sets"]
END
