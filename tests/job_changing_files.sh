#!/usr/bin/env bash
# Files that change while a run uses them: the run ends with a message that names the file, and never with success.
set -u
. "$(dirname "$0")/held.sh"
cd "$TMP"
failures=0
model=$FIXTURES/models/llama-gqa
awk 'BEGIN {srand(3); for (i = 0; i < 4096; i++) printf "\\%o\\000", (i * 7 + int(rand() * 9)) % 40}' >octal
printf "$(cat octal)" >eval.bin
for ((i = 0; i < 16; i++)); do cat eval.bin; done >kept.bin
cat >cfg.json <<JSON
{"model_path": "model", "output_path": "out", "overwrite": true, "wandb_enabled": false, "calibration_dataset": "custom",
 "calibration_files": ["eval.bin"], "eval_files": ["eval.bin"], "train_files": ["train.bin"], "calibration_sequence_length": 12,
 "eval_samples": 0, "calibration_samples": 4, "quantizer": "absmean", "sparsity_threshold": 1.6, "fine_tune_threshold": 0,
 "fine_tune_epochs": 100000, "fine_tune_max_steps": 400, "global_batch_tokens": 60, "warmup_steps": 1, "log_every": 1, "threads_per_rank": 1}
JSON

# ended NAME STATUS WORDS COMMAND [key=value ...]: COMMAND during fine-tuning ends the run with STATUS and WORDS
ended() {
    local name=$1 expected=$2 words=$3 command=$4 success=false status
    [ "$expected" != 0 ] || success=true
    shift 4
    rm -rf model out
    cp -rL "$model" model && chmod -R u+w model && cp kept.bin train.bin
    hold_at 1 '"kind":"train"' /metrics.jsonl
    "${hold[@]}" "$PHASE4_MPI" --quiet cfg.json "$@" >log 2>&1 &
    is_held $! || echo "$name: the run has ended before it trains"
    eval "$command"
    let_go
    wait $!
    status=$?
    if [ $status -ne "$expected" ] || ! grep -qF -- "$words" log || grep -q 'Process received signal\|PASSED' log; then
        echo "$name: status $status, expected $expected and \"$words\"; got:"
        cat log
        failures=$((failures + 1))
    fi
    if [ -e out/results.json ] && ! grep -q "\"success\":[[:space:]]*$success" out/results.json; then
        echo "$name: results.json says:"
        head -5 out/results.json
        failures=$((failures + 1))
    fi
}

ended undisturbed 0 Verdict :
ended rewritten 2 'model/model.safetensors: was written or replaced while' 'touch -d "1 hour ago" model/model.safetensors' # whatever the file system's clock can tell apart
ended replaced 2 'model/config.json: was written or replaced while' 'cp model/config.json c && mv c model/config.json'
ended longer 2 'eval.bin: changed while the run was using it: 8193 bytes, it had 8192' 'printf x >>eval.bin'
printf "$(cat octal)" >eval.bin
ended gone 2 'model/model.safetensors: cannot examine: No such file' 'rm model/model.safetensors'
ended shortened 2 'train.bin: a part of the file is gone while the run reads it' ': >train.bin' fine_tune_max_steps=1000000
ended metrics 2 'out/metrics.jsonl: was removed while the run was under way' 'rm out/metrics.jsonl'
ended results 2 'out/results.json.tmp: cannot replace an older temporary file' 'mkdir out/results.json.tmp'
[ ! -e out/results.json ] || { echo 'results: results.json is there, and cannot say how the run ended'; failures=$((failures + 1)); }
ended directory 4 'out: this run no longer holds its output directory' 'rm -rf out'

# Two nodes that see different copies of the model, as two ranks with their own working directories.
mkdir one two && cp -rL "$model" one/model && cp -rL "$model" two/model && chmod -R u+w two
sed -i 's/"bos_token_id": 1/"bos_token_id": 3/' two/model/config.json
cp cfg.json eval.bin one && cp cfg.json eval.bin two && cp kept.bin one/train.bin && cp kept.bin two/train.bin
"$MPIRUN" -n 2 bash -c '[ $OMPI_COMM_WORLD_RANK = 0 ] && cd one || cd two; exec "$PHASE4_MPI" -q cfg.json output_path="$TMP/both"' >log 2>&1
status=$?
if [ $status -ne 2 ] || ! grep -q 'model/config.json: is another file on host .* than on host' log; then
    echo "different copies: status $status, got:"
    cat log
    failures=$((failures + 1))
fi

# Finite weights so large that activations overflow: every byte of them 0x5d, 1e18.
rm -rf model && cp -rL "$model" model && chmod -R u+w model
read -r low high < <(od -An -tu1 -N2 model/model.safetensors)
head -c $((8 + low + 256 * high)) "$model/model.safetensors" >model/model.safetensors
head -c $(($(stat -Lc %s "$model/model.safetensors") - 8 - low - 256 * high)) /dev/zero | tr '\0' ']' >>model/model.safetensors
"$PHASE4_MPI" --quiet cfg.json eval_samples=4 >log 2>&1
status=$?
if [ $status -ne 2 ] || ! grep -q 'model: the mean loss of the original model is not a number' log || ! grep -q '"success":[[:space:]]*false' out/results.json
then
    echo "overflow: status $status, got:"
    cat log
    failures=$((failures + 1))
fi
[ $failures = 0 ]
