#!/usr/bin/env bash
# Bad input of every kind, on 1 and on 3 ranks: every rank ends with status 2, one clear line names what is wrong, and nothing
# half-written is left.
set -eu
. "$(dirname "$0")/job.sh"
cd "$TMP"
model=$FIXTURES/models/llama-gqa # 53 tokens
demo
mkdir three
# 400 token ids, uint16.
printf "$(awk 'BEGIN {for (i = 0; i < 400; i++) printf "\\%o\\000", i % 40}')" >ok.bin

cfg() { # cfg NAME key=json ...: NAME.json, a small valid configuration with keys replaced
    local file=$1.json
    shift
    {
        echo '{"wandb_enabled": false, "calibration_dataset": "custom", "calibration_sequence_length": 8, "eval_samples": 4,'
        echo '"calibration_samples": 4, "calibration_batch_size": 2, "enable_fine_tuning": false, "threads_per_rank": 1'
        local pair
        for pair in "model_path=\"$model\"" 'output_path="out"' "calibration_files=[\"$TMP/ok.bin\"]" "eval_files=[\"$TMP/ok.bin\"]" "$@"; do
            echo "${pair%%=*} ${pair#*=}"
        done | awk '{key = $1; $1 = ""; value[key] = $0} END {for (k in value) printf ",\"%s\":%s\n", k, value[k]}'
        echo '}'
    } >"$file"
}

# refused NAME WORDS [key=value ...]: NAME.json, with these keys on the command line, ends with status 2 and one message, which
# holds WORDS: alone, and on three ranks, together with others (tool_cases.c). refused_all_ways: also in processes of its own, on
# three ranks that end by themselves, and as users start it, where mpirun ends the others once a rank has ended.
count=0
refused() {
    local name=$1 words=$2
    shift 2
    count=$((count + 1))
    spawn check_way "$words" alone "$TMP/$name.json" "$@"
    plan planned "$TMP/three/$count" - --quiet "$TMP/$name.json" "$@"
    echo "$words" >"three/$count.words"
}
refused_all_ways() {
    refused "$@"
    spawn check_way "$2" on_three "$TMP/$1.json" "${@:3}"
    spawn check_way "$2" by_mpirun "$TMP/$1.json" "${@:3}"
}
alone() { timeout "$HANG_S" "$PHASE4_MPI" --quiet "$@" >log 2>&1; }
on_three() { on_ranks 3 "$PHASE4_MPI" --quiet "$@"; }
by_mpirun() { timeout "$HANG_S" "$MPIRUN" -n 3 "$PHASE4_MPI" --quiet "$@" >log 2>&1; }
check_way() { # check_way WORDS WAY ARGUMENT...
    local words=$1 status=0
    shift
    "$@" || status=$?
    check "$words" $status "$*"
}
check() { # check WORDS STATUS WHAT: the run in the current directory
    if [ "$2" != 2 ] || [ "$(grep -c 'phase4: error' log)" != 1 ] || ! grep -qF -- "$1" log; then
        complain "$3: status $2, expected 2 and one message with \"$1\""
        return
    fi
    local output=out
    [[ $3 != */disk.json* ]] || output=$TMP/tiny/out
    find "$output" -type f ! -name results.json ! -name .phase4_run >left 2>/dev/null || true # it need not exist
    [ ! -s left ] || complain "$3: $(wc -l <left) files are left: $(cat left)"
}

copy() { # copy NAME: a writable copy of the model directory, and NAME.json, which names it
    cp -rL "$model" "$1"
    chmod -R u+w "$1"
    cfg "$1" "model_path=\"$TMP/$1\""
}

cfg valid
alone valid.json || complain 'the valid configuration fails'
cfg taken "output_path=\"$TMP/taken\""
alone taken.json || complain 'a second run of the valid configuration fails'

# configuration
refused missing 'missing.json'
echo '{"model_path": "x",}' >syntax.json; refused syntax 'syntax.json'
cfg unknown 'calibration_sampels=4' && refused_all_ways unknown 'calibration_samples'
cfg type 'seed="many"' && refused type 'seed'
cfg range 'max_accuracy_drop=0.9' && refused range 'max_accuracy_drop must be between 0.0 and 0.5'
cfg bits 'quantization_bits=8' && refused bits 'Phase 4 uses BitNet 1.58-bit quantization only'
awk 'BEGIN {for (i = 0; i < 100000; i++) printf "["}' >deep.json; refused deep 'deep.json'
# a value of the command line, and one that may be the file's or the command line's
refused valid 'command line: key "seed": found "many"' seed=many
refused valid 'valid.json and command line: ' calibration_files=[]

# model directory
cfg nomodel 'model_path="nowhere"' && refused nomodel 'nowhere/config.json'
refused nomodel 'expected a Hugging Face model directory (model_path)'
copy truncated; head -c 3000 "$model/model.safetensors" >truncated/model.safetensors
refused_all_ways truncated 'truncated/model.safetensors'
copy emptyfile; : >emptyfile/model.safetensors
refused emptyfile 'emptyfile/model.safetensors'
copy hugeheader; printf '\377\377\377\377\377\377\377\177{}' >hugeheader/model.safetensors
refused hugeheader 'hugeheader/model.safetensors'
copy nan; size=$(stat -c %s nan/model.safetensors)
printf '\377\377\377\377' | dd of=nan/model.safetensors bs=1 seek=$((size - 40)) conv=notrunc 2>/dev/null
refused nan 'NaN'
copy family; sed -i 's/"model_type": "llama"/"model_type": "mamba"/' family/config.json
families=$("$PHASE4_MPI" --families | awk '{printf "%s%s", sep, $1; sep = ", "}')
refused family "supported: $families"
copy noconfig; rm noconfig/config.json
refused noconfig 'config.json'
copy shape; sed -i 's/"intermediate_size": [0-9]*/"intermediate_size": 1000/' shape/config.json
refused shape 'mlp'
copy outside; rm outside/model.safetensors
echo '{"metadata": {}, "weight_map": {"model.norm.weight": "../../etc/passwd"}}' >outside/model.safetensors.index.json
refused outside 'outside'
copy pickle; mv pickle/model.safetensors pickle/pytorch_model.bin
refused pickle 'pytorch_model'

# text, tokens, tokenizer
demo_model='model_path="'$TMP'/demo/model"'
eval_file() { # eval_file FILE: the key
    echo "eval_files=[\"$TMP/$1\"]"
}
cfg notext 'eval_files=["nothing-*.jsonl"]' && refused notext 'nothing-*.jsonl'
head -c 4000 /dev/zero | tr '\0' '\1' >outofrange.bin # ids 257
cfg ids "$(eval_file outofrange.bin)" && refused ids 'outofrange.bin'
head -c 401 ok.bin >odd.bin
cfg odd "$(eval_file odd.bin)" && refused odd 'odd.bin'
echo '{"text": "unfinished' >broken.jsonl
cfg jsonl 'init="random"' "$demo_model" "$(eval_file broken.jsonl)" && refused jsonl 'broken.jsonl'
cfg notok "$(eval_file demo/stories-valid.jsonl)" && refused notok 'tokenizer.json'
cp -r demo/model badtok; echo '{"model": {"type": "Unigram"}}' >badtok/tokenizer.json
cfg badtok 'init="random"' "model_path=\"$TMP/badtok\"" "$(eval_file demo/stories-valid.jsonl)" && refused badtok 'badtok/tokenizer.json'
: >empty.jsonl
cfg empty 'init="random"' "$demo_model" "$(eval_file empty.jsonl)" && refused empty 'empty.jsonl'
printf 'PAR1xxxxPAR1' >data.parquet
cfg parquet "$(eval_file data.parquet)" && refused parquet 'parquet'

# output
echo file >occupied
cfg occupied "output_path=\"$TMP/occupied\"" && refused_all_ways occupied 'occupied'
cfg full 'output_path="/dev/full/out"' && refused full '/dev/full'
refused taken 'overwrite'
if mkdir tiny && mount -t tmpfs -o size=64k tmpfs tiny 2>/dev/null; then
    trap 'umount "$TMP/tiny"' EXIT
    cfg disk "output_path=\"$TMP/tiny/out\"" && refused disk 'KiB left'
else
    echo "a full disk was not tried: that needs root"
fi
join

failed=0
run_planned 3 planned || failed=1
for ((i = 1; i <= count; i++)); do
    cd "$TMP/three/$i"
    status=0
    outcome 3 || status=$?
    check "$(cat ../$i.words)" $status "3 ranks, $(sed -n "${i}p" "$TMP/planned")" || failed=1
done
exit $failed
