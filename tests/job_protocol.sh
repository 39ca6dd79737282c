#!/usr/bin/env bash
# The protocol of an evaluation: windows that begin with the BOS (eval_bos) and windows that overlap (eval_stride), against losses
# of transformers; on several ranks; what does not fit together is refused.
set -eu
. "$(dirname "$0")/job.sh"
cd "$TMP"
printf "$(awk 'BEGIN {for (i = 0; i < 240; i++) printf "\\%o\\000", (i * 7 + i * i % 11) % 40}')" >ids.bin
cp -r "$FIXTURES/models/gpt2-plain" gpt2
cat >cfg.json <<'JSON'
{"model_path": "gpt2", "output_path": "o", "wandb_enabled": false, "calibration_dataset": "custom", "mixed_precision": false,
 "calibration_files": ["ids.bin"], "eval_files": ["ids.bin"], "calibration_sequence_length": 12, "eval_samples": 1000,
 "calibration_samples": 8, "calibration_batch_size": 4, "enable_fine_tuning": false, "reconstruct": false, "threads_per_rank": 1,
 "overwrite": true}
JSON
# expect LOSS COUNT RESULTS MEMBER: the loss within fp32 sums, the predictions exactly; and an interval around it.
cat >expect.py <<'END'
import json, math, sys
loss, count, evaluation = float(sys.argv[1]), int(sys.argv[2]), json.load(open(sys.argv[3]))[sys.argv[4]]
assert evaluation["tokens"] == count, evaluation
assert math.isclose(evaluation["loss"], loss, rel_tol=3e-7), (evaluation["loss"], loss)
assert evaluation["perplexity_low"] < evaluation["perplexity"] < evaluation["perplexity_high"], evaluation
assert evaluation["bits_per_byte"] is None and evaluation["documents"] == 8, evaluation # ids alone; 7 of them end a text
END
# tests/fixtures/make_perplexities.py tests/fixtures/models/gpt2-plain
while read -r stride bos loss count; do
    "$PHASE4_MPI" -q cfg.json "$stride" "$bos" >log 2>&1 || complain "$stride $bos"
    python3 expect.py "$loss" "$count" o/results.json pre_compression || complain "$stride $bos on one rank"
    "$MPIRUN" -n 3 "$PHASE4_MPI" -q cfg.json "$stride" "$bos" output_path=o3 >log 2>&1 </dev/null || complain "$stride $bos on three ranks"
    python3 expect.py "$loss" "$count" o3/results.json pre_compression || complain "$stride $bos on three ranks"
done <<'END'
eval_stride=0 eval_bos=false 4.447437122 220
eval_stride=0 eval_bos=true 4.454374834 220
eval_stride=5 eval_bos=false 4.476161983 236
eval_stride=5 eval_bos=true 4.507132820 236
eval_stride=1 eval_bos=false 4.515002063 239
END
grep -q '"why_no_bits_per_byte":.*token ids' o/results.json || complain 'nothing says why there are no bits per byte'
# phase4_evaluate measures in the same way, and in the run's where no key says otherwise.
"$PHASE4_EVALUATE" --json o eval_stride=5 eval_bos=true >said.json 2>log || complain 'phase4_evaluate with a stride'
python3 expect.py 4.507132820 236 said.json original || complain 'phase4_evaluate with a stride'
"$PHASE4_EVALUATE" --json o >said.json 2>log || complain 'phase4_evaluate'
python3 expect.py 4.515002063 239 said.json original || complain 'phase4_evaluate'
# The ternary model beside the original: tests/fixtures/make_agreement.py tests/fixtures/models/gpt2-plain
cat >agree.py <<'END'
import json, math, sys
result = json.load(open(sys.argv[1]))
for member in "post_compression", "final":
    evaluation = result[member]
    assert evaluation["agreement"] == 33 / 220, evaluation
    assert math.isclose(evaluation["kl"], 0.439166085, rel_tol=1e-5), evaluation
assert result["pre_compression"]["agreement"] is None
lines = [json.loads(line) for line in open(sys.argv[1].replace("results.json", "metrics.jsonl"))]
assert [line["agreement"] for line in lines if line["kind"] == "evaluation"] == [None, 33 / 220], lines
END
for ranks in 1 2 3; do
    "$MPIRUN" -n $ranks "$PHASE4_MPI" -q cfg.json output_path=o$ranks sparsity_threshold=0.5 >log 2>&1 </dev/null ||
        complain "agreement on $ranks ranks"
    python3 agree.py o$ranks/results.json || complain "agreement on $ranks ranks"
done
# Fewer windows than there are: each has its last tokens predicted, and only the first of the stream more, which seed 5 draws.
while read -r seed tokens; do
    "$PHASE4_MPI" -q cfg.json eval_stride=5 eval_samples=9 seed="$seed" >log 2>&1 || complain "nine windows, seed $seed"
    python3 - "$tokens" <<'END' || complain "nine windows, seed $seed: expected $tokens tokens"
import json, sys
assert json.load(open("o/results.json"))["pre_compression"]["tokens"] == int(sys.argv[1])
END
done <<'END'
42 45
5 51
END

refused() { # refused WORDS key=value...
    local words=$1 check status
    shift
    for check in '' --check; do
        status=0
        "$PHASE4_MPI" -q $check cfg.json "$@" >log 2>&1 || status=$?
        [ $status = 2 ] || complain "$check $*: status $status, expected 2"
        [ "$(grep -cF -- "$words" log)" = 1 ] || complain "$check $*: expected \"$words\" in one line"
    done
    cmp -s results.json o/results.json || complain "$*: the older results are gone"
}
cp o/results.json .
refused 'key "eval_stride": found 12, expected less than calibration_sequence_length, which is 12' eval_stride=12
refused 'key "eval_stride": found 5, expected 0 where windows are set aside' eval_stride=5 eval_files=[] eval_samples=3
sed -i 's/"bos_token_id": 0/"bos_token_id": null/' gpt2/config.json
refused 'key "eval_bos": found true, but config.json of gpt2 names no bos_token_id' eval_bos=true
"$PHASE4_MPI" -q cfg.json eval_bos=true eval_samples=0 eval_files=[] >log 2>&1 || complain 'eval_bos without an evaluation'

# So does phase4_evaluate: a model without BOS, and windows that the run set aside.
"$PHASE4_MPI" -q cfg.json output_path=plain >log 2>&1 || complain 'a model without BOS'
"$PHASE4_MPI" -q cfg.json output_path=aside eval_files=[] eval_samples=3 >log 2>&1 || complain 'windows set aside'
unfit() { # unfit WORDS OUTPUT key=value
    local status=0
    "$PHASE4_EVALUATE" "$2" "$3" >log 2>&1 || status=$?
    [ $status = 2 ] || complain "phase4_evaluate $2 $3: status $status, expected 2"
    [ "$(grep -cF -- "$1" log)" = 1 ] || complain "phase4_evaluate $2 $3: expected \"$1\" in one line"
}
unfit 'key "eval_bos": found true, but config.json of ' plain eval_bos=true
unfit 'key "eval_stride": found 5, expected 0 where windows are set aside' aside eval_stride=5
