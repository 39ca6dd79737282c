#!/usr/bin/env bash
# Bad input of every kind, with 1 and with 3 ranks: exit status 2 within seconds, one clear line that names the thing, nothing
# half-written.
set -u
cd "$TMP"
model=$FIXTURES/models/llama-gqa
"$PHASE4_DEMO" demo --stories 60 >/dev/null || exit 1
head -c 4000 /dev/zero | tr '\0' '\1' >ids.bin # uint16 token ids 257 are out of range; made right below
i=0
: >ok.bin
while [ $i -lt 400 ]; do
    printf "\\$(printf %o $((i % 40)))\\000" >>ok.bin
    i=$((i + 1))
done
failures=0

cfg() { # cfg NAME key=json ...: NAME.json, a small valid configuration with keys replaced
    local file=$1.json
    shift
    {
        echo '{"wandb_enabled": false, "calibration_dataset": "custom", "calibration_sequence_length": 8, "eval_samples": 4,'
        echo '"calibration_samples": 4, "calibration_batch_size": 2, "enable_fine_tuning": false, "threads_per_rank": 1'
        local pair
        for pair in "model_path=\"$model\"" 'output_path="out"' 'calibration_files=["ok.bin"]' 'eval_files=["ok.bin"]' "$@"; do
            echo "${pair%%=*} ${pair#*=}"
        done | awk '{key = $1; $1 = ""; value[key] = $0; order[key] = NR} END {for (k in value) printf ",\"%s\":%s\n", k, value[k]}'
        echo '}'
    } >"$file"
}

# refused NAME WORDS [key=value ...]: the configuration NAME.json ends with status 2 and one line that holds WORDS
refused() {
    local name=$1 words=$2 ranks
    shift 2
    for ranks in 1 3; do
        rm -rf out
        if [ $ranks = 1 ]; then
            timeout 30 "$PHASE4_MPI" --quiet "$name.json" "$@" >log 2>&1
        else
            timeout 30 "$MPIRUN" -n 3 "$PHASE4_MPI" --quiet "$name.json" "$@" >log 2>&1
        fi
        local status=$?
        if [ $status -ne 2 ] || [ "$(grep -c 'phase4: error' log)" != 1 ] || ! grep -qF -- "$words" log; then
            echo "$name, $ranks ranks: status $status, expected 2 and one message with \"$words\"; got:"
            cat log
            failures=$((failures + 1))
        fi
        if [ -e out ] && find out -type f ! -name results.json ! -name '.phase4_run' | grep -q .; then
            echo "$name, $ranks ranks: files are left:"
            find out -type f
            failures=$((failures + 1))
        fi
    done
}

copy() { # copy NAME: a writable copy of the model directory
    rm -rf "$1"
    cp -rL "$model" "$1"
    chmod -R u+w "$1"
}

cfg valid
timeout 60 "$PHASE4_MPI" --quiet valid.json >log 2>&1 || { echo "the valid configuration fails:"; cat log; exit 1; }

# configuration
refused missing 'missing.json'
echo '{"model_path": "x",}' >syntax.json; refused syntax 'syntax.json'
cfg unknown 'calibration_sampels=4' && refused unknown 'calibration_samples'
cfg type 'seed="many"' && refused type 'seed'
cfg range 'max_accuracy_drop=0.9' && refused range 'max_accuracy_drop must be between 0.0 and 0.5'
cfg bits 'quantization_bits=8' && refused bits 'Phase 4 uses BitNet 1.58-bit quantization only'
awk 'BEGIN {for (i = 0; i < 100000; i++) printf "["}' >deep.json; refused deep 'deep.json'
# a value of the command line, and one that may be the file's or the command line's
refused valid 'command line: key "seed": found "many"' seed=many
refused valid 'valid.json with the command line: ' calibration_files=[]

# model directory
cfg nomodel 'model_path="nowhere"' && refused nomodel 'nowhere/config.json'
refused nomodel 'expected a Hugging Face model directory (model_path)'
copy truncated; head -c 3000 "$model/model.safetensors" >truncated/model.safetensors
cfg t1 'model_path="truncated"' && refused t1 'truncated/model.safetensors'
copy emptyfile; : >emptyfile/model.safetensors
cfg t2 'model_path="emptyfile"' && refused t2 'emptyfile/model.safetensors'
copy hugeheader; printf '\377\377\377\377\377\377\377\177{}' >hugeheader/model.safetensors
cfg t3 'model_path="hugeheader"' && refused t3 'hugeheader/model.safetensors'
copy nan; size=$(stat -c %s nan/model.safetensors)
printf '\377\377\377\377' | dd of=nan/model.safetensors bs=1 seek=$((size - 40)) conv=notrunc 2>/dev/null
cfg t4 'model_path="nan"' && refused t4 'NaN'
copy family; sed -i 's/"model_type": "llama"/"model_type": "mamba"/' family/config.json
families=$("$PHASE4_MPI" --help | awk '/^Supported families/ {on = 1; next} on && /^$/ {exit} on {printf "%s%s", sep, $1; sep = ", "}')
cfg t5 'model_path="family"' && refused t5 "supported: $families"
copy noconfig; rm noconfig/config.json
cfg t6 'model_path="noconfig"' && refused t6 'config.json'
copy shape; sed -i 's/"intermediate_size": [0-9]*/"intermediate_size": 1000/' shape/config.json
cfg t7 'model_path="shape"' && refused t7 'mlp'
copy outside; rm outside/model.safetensors
echo '{"metadata": {}, "weight_map": {"model.norm.weight": "../../etc/passwd"}}' >outside/model.safetensors.index.json
cfg t8 'model_path="outside"' && refused t8 'outside'
copy pickle; mv pickle/model.safetensors pickle/pytorch_model.bin
cfg t9 'model_path="pickle"' && refused t9 'pytorch_model'

# text, tokens, tokenizer
cfg notext 'eval_files=["nothing-*.jsonl"]' && refused notext 'nothing-*.jsonl'
cp ids.bin outofrange.bin
cfg ids 'eval_files=["outofrange.bin"]' && refused ids 'outofrange.bin'
head -c 401 ok.bin >odd.bin
cfg odd 'eval_files=["odd.bin"]' && refused odd 'odd.bin'
echo '{"text": "unfinished' >broken.jsonl
cfg jsonl 'init="random"' 'model_path="demo/model"' 'eval_files=["broken.jsonl"]' && refused jsonl 'broken.jsonl'
cfg notok 'eval_files=["demo/stories-valid.jsonl"]' && refused notok 'tokenizer.json'
cp -r demo/model badtok; echo '{"model": {"type": "Unigram"}}' >badtok/tokenizer.json
cfg badtok 'init="random"' 'model_path="badtok"' 'eval_files=["demo/stories-valid.jsonl"]' && refused badtok 'badtok/tokenizer.json'
: >empty.jsonl
cfg empty 'init="random"' 'model_path="demo/model"' 'eval_files=["empty.jsonl"]' && refused empty 'empty.jsonl'
printf 'PAR1xxxxPAR1' >data.parquet
cfg parquet 'eval_files=["data.parquet"]' && refused parquet 'parquet'

# output
echo file >occupied
cfg occupied 'output_path="occupied"' && refused occupied 'occupied'
cfg full 'output_path="/dev/full/out"' && refused full '/dev/full'
"$PHASE4_MPI" --quiet valid.json output_path=taken >log 2>&1 || { cat log; exit 1; }
cfg taken 'output_path="taken"' && refused taken 'overwrite'
if mkdir tiny && mount -t tmpfs -o size=64k tmpfs tiny 2>/dev/null; then
    cfg disk 'output_path="tiny/out"' && refused disk 'No space left on device'
    umount tiny
else
    echo "a full disk was not tried: that needs root"
fi

echo "$failures failures"
[ $failures = 0 ]
