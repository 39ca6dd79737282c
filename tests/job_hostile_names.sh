#!/usr/bin/env bash
# Names and values in downloaded files that hold escape codes and newlines: they are escaped in every message, so that they
# neither control a terminal nor begin a line of their own.
set -u
cd "$TMP"
model=$FIXTURES/models/llama-gqa
failures=0
forged=$'\nphase4: error: forged\033]0;title\007\033[2J'
json_forged='\nphase4: error: forged\u001b]0;title\u0007\u001b[2J\u202e'

copy() { # copy NAME: a writable copy of the model directory
    cp -rL "$model" "$1"
    chmod -R u+w "$1"
}

# refused WORDS [key=value ...]: status 2; one error, of one line, that holds WORDS, after what is warned of; nothing but
# printable text
refused() {
    local words=$1 status
    shift
    timeout 600 "$PHASE4_MPI" --quiet cfg.json "$@" >log 2>&1
    status=$?
    if [ $status -ne 2 ] || [ "$(grep -vc "^warning: " log)" != 1 ] || ! grep -qF -- "$words" log || ! grep -qF 'forged\x1b]0;title\x07\x1b[2J' log ||
        LC_ALL=C grep -q $'[\x01-\x09\x0b-\x1f\x7f]' log; then
        echo "$*: status $status, expected 2 and one printable line with \"$words\"; got:"
        cat -v log
        failures=$((failures + 1))
    fi
}

for ((i = 0; i < 400; i++)); do printf "\\$(printf %o $((i % 40)))\\000"; done >ok.bin
cat >cfg.json <<JSON
{"model_path": "$model", "output_path": "out", "wandb_enabled": false, "calibration_dataset": "custom", "calibration_files": ["ok.bin"],
 "eval_files": ["ok.bin"], "calibration_sequence_length": 8, "eval_samples": 4, "calibration_samples": 4,
 "enable_fine_tuning": false, "threads_per_rank": 1}
JSON

mkdir type && echo "{\"model_type\": \"x$json_forged\"}" >type/config.json
refused 'model_type' model_path=type
copy activation && sed -i "s/\"silu\"/\"x${json_forged//\\/\\\\}\"/" activation/config.json
refused 'hidden_act' model_path=activation

header="{\"x$json_forged\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}"
copy tensor && { printf "\\$(printf %o $((${#header} % 256)))\\0\\0\\0\\0\\0\\0\\0%s\\0\\0\\0\\0" "$header"; } >tensor/model.safetensors
refused '1 unexpected' model_path=tensor

copy index && rm index/model.safetensors
echo "{\"weight_map\": {\"a\": \"x$json_forged.safetensors\"}}" >index/model.safetensors.index.json
refused 'index/x\nphase4' model_path=index

mkdir texts && printf '{"text": 1}\n' >"texts/a$forged.jsonl"
copy with_tokenizer && cp "$FIXTURES/tokenizers/$(ls "$FIXTURES/tokenizers" | head -1)/tokenizer.json" with_tokenizer/
refused 'texts/a\nphase4' model_path=with_tokenizer 'calibration_files=["texts/*.jsonl"]'
tar -cf texts.tar texts
refused 'texts/a\nphase4' model_path=with_tokenizer 'calibration_files=["texts.tar"]'
[ $failures = 0 ]
