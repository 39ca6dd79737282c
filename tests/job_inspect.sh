#!/usr/bin/env bash
# phase4_inspect: what it says of a result is what the run says and what the files hold, counted independently; damage and
# disagreement are found and named, with the status that tells them apart.
set -eu
. "$(dirname "$0")/job.sh"
cd "$TMP"
awk 'BEGIN {srand(3); for (i = 0; i < 1200; i++) printf "\\%o\\000", (i * 7 + int(rand() * 9)) % 40}' >octal
printf "$(cat octal)" >ids.bin # 100 windows of 12 token ids
compress() { # compress MODEL OUT key=value...
    cat >"$2.json" <<JSON
{"model_path": "$FIXTURES/models/$1", "output_path": "$2", "wandb_enabled": false, "calibration_dataset": "custom",
 "calibration_files": ["ids.bin"], "eval_files": ["ids.bin"], "calibration_sequence_length": 12, "eval_samples": 8,
 "calibration_samples": 8, "enable_fine_tuning": false, "reconstruct": false, "threads_per_rank": 1, "recipe": "seed"}
JSON
    "$PHASE4_MPI" "$2.json" "${@:3}" >log 2>&1 || complain "the run of $1"
}
# inspected STATUS WORDS ARGUMENT...: the status, and WORDS in one line of what is printed; of bad input that line is all.
inspected() {
    local expected=$1 words=$2 status=0
    shift 2
    "$PHASE4_INSPECT" "$@" >log 2>&1 || status=$?
    [ $status = "$expected" ] || complain "inspect $*: status $status, expected $expected"
    [ "$(grep -cF -- "$words" log)" = 1 ] || complain "inspect $*: expected \"$words\" in one line"
    [ "$expected" != 2 ] || [ "$(wc -l <log)" = 1 ] || complain "inspect $*: expected one line"
}
compress llama-gqa a sparsity_threshold=0.1
compress llama-gqa b sparsity_threshold=0.9 packing=2bit
compress gpt2-plain c preserve_embedding_precision=false
compress llama-gqa d sparsity_threshold=0.1 save_dequantized_fp16=false

for run in a b c; do
    inspected 0 'result     intact' $run
    inspected 0 'bit for bit' $run/model.h5 --threads 2
done
inspected 0 'not compared' d
# A file whose length cannot be found out is an error of its name, not one of 0 bytes.
export ASAN_OPTIONS=verify_asan_link_order=0
for call in 1 2; do
    LD_PRELOAD=$P4_FAULTS P4_NO_STAT=$call,a/model.h5 inspected 2 'a/model.h5: cannot examine: Input/output error' a
done
LD_PRELOAD=$P4_FAULTS P4_NO_STAT=1,a/compression_metadata.json inspected 2 'a/compression_metadata.json: cannot examine: Input/output error' a
status=0
LD_PRELOAD=$P4_FAULTS P4_NO_STAT=1,unseen/model.h5 "$PHASE4_MPI" d.json save_dequantized_fp16=false output_path=unseen >log 2>&1 || status=$?
[ $status = 2 ] && grep -q 'unseen/model.h5: cannot examine: Input/output error' log ||
    complain "a run that cannot examine its model.h5: status $status"
"$PHASE4_INSPECT" --quiet a >log 2>&1 && [ ! -s log ] || complain '--quiet prints'
inspected 0 'Usage: phase4_inspect' --help
inspected 0 'phase4_inspect ' --version

# Independently: signs, zeros and largest magnitudes of the fp16 weights are those of codes and scales.
cat >count.py <<'END'
import json, os, struct, sys
def halves(directory):
    data = open(directory + "/dequantized_fp16/model.safetensors", "rb").read()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + length])
    for name, t in header.items():
        if name != "__metadata__":
            begin, end = t["data_offsets"]
            yield name, struct.unpack("<%de" % ((end - begin) // 2), data[8 + length + begin:8 + length + end])
def near(a, b):
    return abs(a - b) <= 1e-9 * abs(b)
if sys.argv[1] == "one":
    run = sys.argv[2]
    said, results = json.load(open("said.json")), json.load(open(run + "/results.json"))
    metadata = json.load(open(run + "/compression_metadata.json"))
    tensors = {t["name"]: t for t in said["tensors"]}
    assert said["verified"] is True and said["findings"] == []
    values = dict(halves(run))
    assert values.keys() == tensors.keys(), values.keys() ^ tensors.keys()
    for name, w in values.items():
        t = tensors[name]
        largest = max(map(abs, w))
        assert t["differing"] == 0
        if t["encoding"] == "fp16":
            assert t["largest"] == largest, name
        else:
            assert near(t["sparsity"], w.count(0) / len(w)), (name, t["sparsity"])
            assert near(t["positive"], sum(x > 0 for x in w) / len(w)), name
            assert t["scale_max"] == largest, name
    for part in "final", "post", "pre":
        theirs = results[{"pre": "pre_compression", "post": "post_compression"}.get(part, part)]
        assert said[part] == theirs, (said[part], theirs)
    m = results["metrics"]
    sizes = said["sizes"]
    assert near(m["compressed_size_mb"] * 2**20, sizes["code_bytes"] + sizes["scale_bytes"] + sizes["preserved_bytes"])
    assert near(m["sparsity_ratio"], sizes["sparsity"]) and m["layers_quantized"] == sizes["layers_quantized"]
    assert said["provenance"] == metadata["provenance"] and said["config"] == metadata["config"]
    assert said["inputs"] and all(i["state"] == "same" for i in said["inputs"])
else:
    said = json.load(open("said.json"))
    a, b = dict(halves("a")), dict(halves("b"))
    sign = lambda x: (x > 0) - (x < 0)
    for t in said["tensors"]:
        before, after = a[t["name"]], b[t["name"]]
        if t["kind"] == "ternary":
            pairs = [(sign(x), sign(y)) for x, y in zip(before, after)]
            assert t["differing"] == sum(x != y for x, y in pairs) > 0, t
            assert t["to_zero"] == sum(x != y == 0 for x, y in pairs) == t["differing"], t
            assert t["scales_changed"] == 0, t
        else:
            assert t["differing"] == 0 and before == after, t
    keys = {k["key"]: (k["a"], k["b"]) for k in said["keys"]}
    assert keys == {"output_path": (os.path.abspath("a"), os.path.abspath("b")), "sparsity_threshold": (0.1, 0.9), "packing": ("base3x5", "2bit")}, keys
    assert said["differs"] is True
END
for run in a b c; do
    "$PHASE4_INSPECT" --json $run >said.json
    python3 count.py one $run
done

# Two results.
inspected 0 'tensors are the same' --diff a d/model.h5
status=0
"$PHASE4_INSPECT" --diff --json a b >said.json || status=$?
[ $status = 5 ] || complain "--diff a b: status $status, expected 5"
python3 count.py two
inspected 5 'key "sparsity_threshold": A 0.1, B 0.9' --diff a b
inspected 5 '0 of 49 tensors are the same' --diff a c
inspected 2 'expected two results to compare' --diff a
inspected 2 'expected one result' a b
inspected 2 'the nearest known option is "--diff"' --dif a b

# What does not agree. damage FILE AT: one bit of a byte.
damage() {
    python3 - "$@" <<'END'
import sys
with open(sys.argv[1], "r+b") as f:
    f.seek(int(sys.argv[2]))
    byte = f.read(1)[0]
    f.seek(int(sys.argv[2]))
    f.write(bytes([byte ^ 1]))
END
}
weights=dequantized_fp16/model.safetensors
cp -r a fp16
damage "fp16/$weights" "$(($(wc -c <"fp16/$weights") - 2))"
inspected 5 '1 elements of' fp16
inspected 5 'NOT INTACT' fp16
status=0
"$PHASE4_INSPECT" -q fp16 >log 2>&1 || status=$?
[ $status = 5 ] && grep -q 'are not those of model.h5; the first, \[' log || complain "-q: status $status"
cp -r a other
cp b/$weights other/dequantized_fp16
inspected 5 'NOT INTACT' other
cp -r a recorded
sed -i 's/"sparsity_ratio":[^,]*/"sparsity_ratio": 0.5/' recorded/compression_metadata.json
inspected 5 'compression_metadata.json: sparsity_ratio is recorded as 0.5, model.h5 gives' recorded

# Inputs that are not as they were say nothing about the result.
cp -r a moved
sed -i "s|$FIXTURES/models/llama-gqa/config.json|config.json|" moved/compression_metadata.json
inspected 0 'config.json is not there' moved
printf 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 2400\n' >config.json
inspected 0 'config.json cannot be read' moved
echo '{}' >config.json
inspected 0 'config.json has changed since the run read it' moved

# What cannot be read: one line.
python3 - <<'END'
import json, struct
data, h5 = open("a/dequantized_fp16/model.safetensors", "rb").read(), open("a/model.h5", "rb").read()
length = struct.unpack("<Q", data[:8])[0]
begin, end = json.loads(data[8:8 + length])["model.embed_tokens.weight"]["data_offsets"]
at = h5.index(data[8 + length + begin:8 + length + end])
open("torn.h5", "wb").write(h5[:at + 10] + bytes([h5[at + 10] ^ 4]) + h5[at + 11:])
open("cut.h5", "wb").write(h5[:len(h5) // 2])
open("text.h5", "w").write("not HDF5\n")
END
inspected 2 'torn.h5: cannot read tensors/model.embed_tokens.weight/data' torn.h5
inspected 2 'cut.h5: cannot open' cut.h5
inspected 2 'text.h5: cannot open' text.h5
inspected 2 'none.h5: is not there' none.h5
mkdir empty
inspected 2 'empty/model.h5: is not there' empty
inspected 2 'torn.h5: cannot read' --diff a torn.h5
cp -r a short
truncate -s 1000 "short/$weights"
inspected 2 "short/$weights" short
