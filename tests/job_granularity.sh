#!/usr/bin/env bash
# scale_granularity: from quantizing through reconstruction and training to every file. What is written is what was evaluated, on
# one rank and on two; codes and scales of a quantization are recomputed here from the original's weights.
set -eu
. "$(dirname "$0")/job.sh"
cd "$TMP"
printf "$(awk 'BEGIN {srand(3); for (i = 0; i < 1200; i++) printf "\\%o\\000", (i * 7 + int(rand() * 9)) % 40}')" >ids.bin
demo 60
cp demo/stories-train.jsonl stories.jsonl
# refused WORDS ARGUMENT...
refused() {
    local words=$1 status=0
    shift
    "$PHASE4_MPI" "$@" >log 2>&1 || status=$?
    [ $status = 2 ] && grep -qF -- "$words" log || complain "$*: status $status, expected 2 and \"$words\""
}
configuration() { # configuration MODEL OUT
    cat >"$2.json" <<JSON
{"model_path": "$1", "output_path": "$2", "wandb_enabled": false, "calibration_dataset": "custom", "recipe": "seed",
 "calibration_files": ["ids.bin"], "eval_files": ["ids.bin"], "calibration_sequence_length": 12, "eval_samples": 8,
 "calibration_samples": 8, "enable_fine_tuning": false, "reconstruct": false, "threads_per_rank": 1, "sparsity_threshold": 0.5}
JSON
}

# Independently of the program: absmean with the mean of a tensor, or of so many neighbors.
cat >recompute.py <<'END'
import json, struct, sys
def tensors(path):
    data = open(path, "rb").read()
    length = struct.unpack("<Q", data[:8])[0]
    for name, t in json.loads(data[8:8 + length]).items():
        if name != "__metadata__":
            begin, end = t["data_offsets"]
            kind = {"F32": "f", "F16": "e"}[t["dtype"]]
            raw = data[8 + length + begin:8 + length + end]
            yield name, t["shape"], struct.unpack("<%d%s" % (len(raw) // struct.calcsize(kind), kind), raw)
def turned(values, shape):
    rows, cols = shape
    return [values[r * cols + c] for c in range(cols) for r in range(rows)]
model, out, granularity = sys.argv[1:4]
said = {t["name"]: t for t in json.load(open("said.json"))["tensors"]}
written = {name: (shape, values) for name, shape, values in tensors(out + "/dequantized_fp16/model.safetensors")}
checked = 0
for name, shape, w in tensors(model + "/model.safetensors"):
    t = said.get(name)
    if t is None or t["encoding"] == "fp16":
        continue
    assert written[name][0] == shape
    got = written[name][1]
    if t["transposed"]:
        w, got = turned(w, shape), turned(got, shape)
    group = {"tensor": len(w), "row": t["shape"][1], "group64": 64, "group128": 128}[granularity]
    assert t["scales"] == len(w) // group, (name, t["scales"])
    for first in range(0, len(w), group):
        part = w[first:first + group]
        mean = struct.unpack("<f", struct.pack("<f", sum(map(abs, part)) / group))[0]
        scale = struct.unpack("<e", struct.pack("<e", mean))[0]
        for a, b in zip(part, got[first:first + group]):
            want = 0 if abs(a) < 0.5 * mean else scale if a > 0 else -scale
            assert b == want, (name, first, a, b, want)
    checked += 1
assert checked > 0
END
quantized() { # quantized MODEL OUT GRANULARITY key=value...
    configuration "$1" "$2"
    "$PHASE4_MPI" "$2.json" scale_granularity="$3" "${@:4}" >log 2>&1 || complain "the run $2"
    "$PHASE4_INSPECT" --json "$2" >said.json || complain "$2 does not verify"
    python3 recompute.py "$1" "$2" "$3" || complain "$2"
}
quantized "$FIXTURES/models/llama-gqa" tensor_llama tensor preserve_embedding_precision=false packing=2bit 'preserve_layers=["*down_proj*"]' 
# Models with rows of whole groups: the demo's, and one with transposed matrices and random weights, written by a run that
# quantizes nothing.
mkdir gpt2
python3 - <<END
import json
config = json.load(open("$FIXTURES/models/gpt2-plain/config.json"))
config.update(n_embd=128, n_head=2, n_inner=None)
json.dump(config, open("gpt2/config.json", "w"))
END
configuration gpt2 base_gpt2
"$PHASE4_MPI" base_gpt2.json init=random quantizer=none >log 2>&1 || complain 'a model with weights'
original=$FIXTURES/../../jobs/demo/model
quantized base_gpt2/dequantized_fp16 tensor_gpt2 tensor
quantized base_gpt2/dequantized_fp16 group_gpt2 group64
quantized base_gpt2/dequantized_fp16 row_gpt2 row
quantized "$original" group64 group64 preserve_embedding_precision=false
quantized "$original" group128 group128 packing=2bit

# What cannot be divided so, and quantizers with scales of rows.
refused 'key "scale_granularity": found "group64", but the rows of' tensor_llama.json output_path=x scale_granularity=group64
refused 'have 27 elements, expected a multiple of 4' tensor_llama.json output_path=x scale_granularity=tensor
refused 'quantizer "gptq" has a scale a row' tensor_llama.json output_path=x scale_granularity=tensor quantizer=gptq
refused 'quantizer "exact-diagonal" has a scale a row' tensor_llama.json output_path=x scale_granularity=tensor quantizer=exact-diagonal
"$PHASE4_MPI" --validate tensor_llama.json scale_granularity=group64 quantizer=exact >log 2>&1 || complain 'exact takes groups'

# Reconstruction, training and evaluation, on one rank and on two, sharded and replicated; evaluated again from the file.
cat >same.py <<'END'
import json, sys
bound, a, b = float(sys.argv[1]), json.load(open(sys.argv[2])), json.load(open(sys.argv[3]))
a = a["compressed"] if "compressed" in a else a["final"]
for key, want in b["final"].items():
    assert abs(a[key] - want) <= bound * abs(want), (key, a[key], want)
assert b["fine_tuning"]["steps"] == 3 and b["reconstruction"]["steps"] == 2
END
trained() { # trained OUT RANKS key=value...
    configuration "$original" "$1"
    sed -i 's/ids.bin/stories.jsonl/g; s/"calibration_sequence_length": 12/"calibration_sequence_length": 32/' "$1.json"
    "$MPIRUN" -n "$2" "$PHASE4_MPI" "$1.json" enable_fine_tuning=true reconstruct=true reconstruct_steps=2 fine_tune_threshold=0 \
        fine_tune_max_steps=3 warmup_steps=1 fine_tune_lr=2e-3 global_batch_tokens=128 distill=0.5 "${@:3}" >log 2>&1 ||
        complain "the training $1"
    "$PHASE4_INSPECT" -q "$1" >log 2>&1 || complain "$1 does not verify"
}
for granularity in tensor group64; do
    trained $granularity-1 1 scale_granularity=$granularity preserve_embedding_precision=false
    trained $granularity-2 2 scale_granularity=$granularity preserve_embedding_precision=false zero_stage=0
    python3 same.py 1e-2 $granularity-2/results.json $granularity-1/results.json || complain "$granularity on two ranks"
    "$PHASE4_EVALUATE" --json $granularity-1 threads_per_rank=1 >said.json 2>log || complain "evaluate $granularity"
    python3 same.py 0 said.json $granularity-1/results.json || complain "evaluate $granularity"
    grep -q "\"scale_granularity\":.\"$granularity\"" $granularity-1/results.json || complain 'results.json does not say it'
done
# Learned scales: others than the quantizer's, on one rank and on two alike, and what is written is what was evaluated.
for ranks in 1 2; do
    trained learned-$ranks $ranks scale_granularity=group64 preserve_embedding_precision=false learn_scales=true zero_stage=$((2 - ranks))
done
python3 same.py 1e-2 learned-2/results.json learned-1/results.json || complain 'learned scales on two ranks'
"$PHASE4_EVALUATE" --json learned-1 threads_per_rank=1 >said.json 2>log || complain 'evaluate learned scales'
python3 same.py 0 said.json learned-1/results.json || complain 'evaluate learned scales'
! "$PHASE4_INSPECT" --diff group64-1 learned-1 >log 2>&1 || complain 'learned scales are those of the quantizer'
trained int8 1 scale_granularity=group128 activation_bits=8
"$PHASE4_EVALUATE" --json int8 threads_per_rank=1 >said.json 2>log || complain 'evaluate int8'
python3 same.py 0 said.json int8/results.json || complain 'evaluate int8'
# Stopped and continued: the same bytes of every tensor.
configuration "$original" halves
sed -i 's/ids.bin/stories.jsonl/g; s/"calibration_sequence_length": 12/"calibration_sequence_length": 32/' halves.json
run=(halves.json scale_granularity=tensor preserve_embedding_precision=false enable_fine_tuning=true reconstruct=true reconstruct_steps=2
    fine_tune_threshold=0 fine_tune_max_steps=3 warmup_steps=1 fine_tune_lr=2e-3 global_batch_tokens=128 distill=0.5 checkpoint_every=1)
status=0
"$PHASE4_MPI" "${run[@]}" max_minutes=0.0001 >log 2>&1 || status=$?
[ $status = 75 ] || complain "status $status, expected 75"
"$PHASE4_MPI" "${run[@]}" >log 2>&1 || complain 'the run is not continued'
"$PHASE4_INSPECT" --diff tensor-1 halves >log 2>&1 || complain 'a continued run differs'
