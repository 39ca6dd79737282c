#!/usr/bin/env bash
# What can be known before the work is said before it, all at once: by `--check` alone and by a run, which then has changed nothing.
set -eu
cd "$TMP"
head -c 1200 /dev/zero >ok.bin # 50 windows of 12 token ids
printf '\377\377%.0s' $(seq 600) >beyond.bin
cat >cfg.json <<JSON
{
  "model_path": "$FIXTURES/models/llama-gqa", "output_path": "out", "wandb_enabled": false, "device": "cpu",
  "calibration_dataset": "custom", "calibration_files": ["ok.bin"], "eval_files": ["ok.bin"],
  "eval_samples": 7, "calibration_samples": 9, "calibration_batch_size": 2, "calibration_sequence_length": 12,
  "enable_fine_tuning": false, "threads_per_rank": 1
}
JSON
fail() {
    echo "$1"
    cat log
    exit 1
}
# ended STATUS WORDS... -- ARGUMENT...: the program ends so and says each of WORDS in one line.
ended() {
    local status=$1 got=0 words=()
    shift
    while [ "$1" != -- ]; do
        words+=("$1")
        shift
    done
    shift
    "${RUN[@]}" "$@" >log 2>&1 || got=$?
    [ $got = "$status" ] || fail "$*: status $got, expected $status"
    local each
    for each in "${words[@]}"; do
        [ "$(grep -cF -- "$each" log)" = 1 ] || fail "$*: expected one line with \"$each\""
    done
}
RUN=("$PHASE4_MPI")
tree() { find out -type f -exec sha256sum {} + | sort; }

# A model with a tokenizer, of a token for each letter, blank and line end.
cp -rL "$FIXTURES/models/llama-gqa" spoken
chmod -R u+w spoken
python3 -c '
import json
level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
vocab = {letter: i for i, letter in enumerate("\u0120\u010a" + "abcdefghijklmnopqrstuvwxyz")}
json.dump({"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": level, "post_processor": None, "decoder": level,
           "model": {"type": "BPE", "vocab": vocab, "merges": []}}, open("spoken/tokenizer.json", "w"))'

# Nothing is wrong, and nothing is changed.
ended 0 'cfg.json: no error found' 'Plan and checks' 'memory: the run will need up to' 'threads: 1, on' 'disk: outputs' -- --check cfg.json
[ ! -e out ] || fail '--check made the output directory'
# How long a run will take: where it is more than a second, by how fast this machine is, and where it is long, with the keys that decide.
grep -qF 'time: less than a second (rates: built-in table, CPU, 1 thread a rank)' log || fail 'no time'
ended 0 'time: about' 'rates: measured here in' 'fine_tune_max_steps=12500000 instead of 50000000: about' -- --check cfg.json enable_fine_tuning=true \
    fine_tune_epochs=1000000 global_batch_tokens=12 'train_files=["ok.bin"]' warmup_steps=1
# Temporary files are not among the outputs: tokens of the text to train on, 2 bytes each.
yes 'a few words' | head -c 30000 >text.txt
ended 0 'temporary files' -- --check cfg.json model_path=spoken enable_fine_tuning=true global_batch_tokens=12 'train_files=["text.txt"]' warmup_steps=1
RUN=("$MPIRUN" -n 2 "$PHASE4_MPI")
ended 0 'cfg.json: no error found' 'memory: the 2 ranks on this machine will need up to' 'threads: 1 for each rank' -- --check cfg.json
RUN=("$PHASE4_MPI")

# What a run says it will need, and what --plan says, has the process in it, its libraries and MPI: here most of the peak. Half of it is enough
# for what they take later on, as a sanitizer does.
"$PHASE4_MPI" --plan --json cfg.json >plan.json 2>log || fail '--plan'
"$PHASE4_MPI" cfg.json output_path=measured >log 2>&1 || fail 'a run'
python3 - <<'END'
import json, re, sys
unit = {"KiB": 2**-10, "MiB": 1, "GiB": 2**10}
peak = json.load(open("measured/results.json"))["metrics"]["peak_memory_mb"]
number, of = re.search(r"memory: the run will need up to ([0-9.]+) (\w+);", open("log").read()).groups()
plan = json.load(open("plan.json"))
said = {"the run": float(number) * unit[of], "--plan": (plan["process_bytes"] + plan["ranks_planned"][0]["host_peak"]["bytes"]) / 2**20}
sys.exit(f"a peak of {peak} MiB, planned {said}" if min(said.values()) < peak / 2 else 0)
END

# Several things at once, with a successful run's results in the directory: they stay as they are.
ended 0 -- --quiet cfg.json
cp -r out/dequantized_fp16 kept
touch out/dequantized_fp16/model-F16.gguf
tree >before
for how in --check --quiet; do
    ended 2 'holds "model-F16.gguf", which is no file of a model' 'no-such.bin' -- $how cfg.json overwrite=true 'calibration_files=["no-such.bin"]'
    ended 2 'holds the results of another run' 'model-F16.gguf' 'beyond.bin: token 0 (raw uint16 ids) is 65535' -- $how cfg.json 'eval_files=["beyond.bin"]'
    tree | cmp - before || fail "$how changed the output directory"
done
rm out/dequantized_fp16/model-F16.gguf
mkdir out/dequantized_fp16/.cache
for how in --check --quiet; do
    ended 2 'holds ".cache"' -- $how cfg.json overwrite=true
    rmdir out/dequantized_fp16/.cache
    ended 2 'dequantized_fp16: cannot be written, the model is read from it' -- $how cfg.json overwrite=true model_path=out/dequantized_fp16
    # Nor removed as stale.
    ended 2 'the model is read from it' -- $how cfg.json overwrite=true save_dequantized_fp16=false model_path=out/dequantized_fp16
    mkdir out/dequantized_fp16/.cache
done
rmdir out/dequantized_fp16/.cache
ended 2 'nowhere/config.json' 'holds the results of another run' -- --check cfg.json model_path=nowhere
ended 0 -- --check cfg.json overwrite=true model_path=kept output_path=next
[ ! -e next ] || fail '--check made a directory'

# What the user may not read or write.
cp -rL "$FIXTURES/models/llama-gqa" licensed
echo text >licensed/USE_POLICY.md
chmod 000 licensed/USE_POLICY.md
mkdir -m 555 closed
if [ "$(id -u)" = 0 ]; then # root may read and write everything
    mkdir -m 777 open
    chmod 777 .
    RUN=(setpriv --reuid 54321 --regid 54321 --clear-groups env OMPI_MCA_orte_tmpdir_base="$PWD/open" "$PHASE4_MPI")
fi
ended 2 'licensed/USE_POLICY.md: goes along with the model' 'closed/out: cannot create the directory' -- \
    --check cfg.json model_path=licensed output_path=closed/out
ended 2 'closed: cannot write into this directory' -- --check cfg.json output_path=closed
ended 0 -- --check cfg.json model_path=licensed output_path=new save_dequantized_fp16=false
RUN=("$PHASE4_MPI")
# Nor may root everywhere, and a file system may have no files without a name.
for system in /proc /sys; do
    ended 2 "$system/phase4/out: cannot create the directory" -- --check cfg.json output_path=$system/phase4/out
done

# Settings that do not take effect: a line each, by --check and by a run.
tune='enable_fine_tuning=true fine_tune_epochs=1 global_batch_tokens=60 train_files=["ok.bin"]'
for how in --check --quiet; do
    rm -rf tuned
    # shellcheck disable=SC2086
    ended 0 'key "warmup_steps": 50 steps of warm-up, and there are 10 steps in all' 'key "fine_tune_max_steps": asks for 99 steps' \
        'ok.bin is among the files to evaluate on and to train on' 'warning: key "eval_samples"' 'warning: key "calibration_samples"' -- \
        $how cfg.json output_path=tuned $tune fine_tune_max_steps=99 eval_samples=51 calibration_samples=60
    # shellcheck disable=SC2086
    ended 2 'fine-tuning: key "train_files": ok.bin: found 50 windows of 12 tokens, expected at least 51, as one step takes: give more text or global_batch_tokens=600 or less' -- $how cfg.json output_path=tuned $tune global_batch_tokens=612
    # shellcheck disable=SC2086
    ended 0 -- $how cfg.json output_path=tuned overwrite=true $tune warmup_steps=1 fine_tune_max_steps=2 'eval_files=["beyond.bin"]' eval_samples=0
    ! grep -q warning log || fail "$how warns of nothing"
done

# Where a compressed file hides how many steps there are, the bound on them counts.
gzip -c text.txt >text.txt.gz
ended 0 'key "warmup_steps": 50 steps of warm-up, and there are 2 steps in all' -- --check cfg.json model_path=spoken output_path=packed enable_fine_tuning=true \
    'train_files=["text.txt.gz"]' fine_tune_max_steps=2 warmup_steps=50

# Text whose size stands for no window, for one and for two, with windows to evaluate on set aside from it: the plan counts what is there,
# and a run that has none left says so, as --check does, which counts them.
reconstructs='model_path=spoken eval_files=[] enable_fine_tuning=true global_batch_tokens=12 fine_tune_max_steps=1 reconstruct_steps=1 output_path=little overwrite=true'
for bytes in 0 20 36 72; do
    yes 'a few words' | head -c $bytes >little.txt
    expected=0 what='cfg.json: no error found'
    [ $bytes != 0 ] || { expected=2 what='calibration: key "calibration_files": little.txt is empty'; }
    [ $bytes != 20 ] || { expected=2 what='calibration: key "calibration_files": little.txt: one window of 12 tokens is all there is, none is left'; }
    # shellcheck disable=SC2086
    ended $expected "$what" -- --check cfg.json 'calibration_files=["little.txt"]' $reconstructs
    # shellcheck disable=SC2086
    "$PHASE4_MPI" --plan cfg.json 'calibration_files=["little.txt"]' $reconstructs >log 2>&1 || fail "--plan of $bytes bytes"
    ! grep -qi 'nan\|inf ' log || fail "--plan of $bytes bytes"
done
head -c 5 text.txt >short.txt
ended 2 'expected at least 1: give more text or a smaller calibration_sequence_length' -- --check cfg.json output_path=little 'calibration_files=["short.txt"]'
head -c 24 ok.bin >one.bin # a window, as it is read
# shellcheck disable=SC2086
ended 2 'one window of 12 tokens is all there is' -- --quiet cfg.json 'calibration_files=["one.bin"]' $reconstructs
head -c 48 ok.bin >two.bin
# shellcheck disable=SC2086
ended 0 -- --quiet cfg.json 'calibration_files=["two.bin"]' $reconstructs

# What a run finds out about a text that is short when it has read it, --check finds out by reading it, in the same words: the file, its
# key, what is there, what is needed and what helps. Sizes do not tell it: text is compressed, or has more bytes than tokens.
alike() { # alike WORDS KEY=VALUE...: both end with status 2 and one error, the same
    local words=$1 how
    shift
    for how in --check --quiet; do
        ended 2 "$words" -- $how cfg.json model_path=spoken output_path=short overwrite=true "$@"
        grep '^phase4: error' log >"said$how"
    done
    [ "$(wc -l <said--check)" = 1 ] && cmp said--check said--quiet || fail "$*: --check and the run do not say the same"
}
head -c 300 text.txt | gzip >few.txt.gz # 25 windows
for _ in $(seq 100); do echo '{"text": "a few words", "source": "0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz"}'; done >wordy.jsonl
echo 'a few' | gzip >short.txt.gz
for step in 'global_batch_tokens=1212|global_batch_tokens=1200' 'calibration_batch_size=101|calibration_batch_size=100'; do
    alike "fine-tuning: key \"train_files\": wordy.jsonl: found 100 windows of 12 tokens, expected at least 101, as one step takes: give more text or ${step#*|} or less" \
        enable_fine_tuning=true 'train_files=["wordy.jsonl"]' "${step%|*}" warmup_steps=0
done
alike 'fine-tuning: key "train_files": few.txt.gz and 1 more: found 75 windows of 12 tokens, expected at least 76, as one step takes' \
    enable_fine_tuning=true 'train_files=["few.txt.gz", "ok.bin"]' global_batch_tokens=912 warmup_steps=0
alike 'fine-tuning: key "calibration_samples": ok.bin: found 9 windows of 12 tokens, expected at least 10, as one step takes: give train_files, more calibration_samples or global_batch_tokens=108 or less' \
    enable_fine_tuning=true global_batch_tokens=120 warmup_steps=0
alike 'fine-tuning: key "calibration_files": few.txt.gz: found 20 windows of 12 tokens, besides 5 set aside for evaluation, expected at least 21, as one step takes: give train_files, more text or global_batch_tokens=240 or less' \
    enable_fine_tuning=true 'calibration_files=["few.txt.gz"]' 'eval_files=[]' calibration_samples=100 global_batch_tokens=252 warmup_steps=0
alike 'fine-tuning: key "calibration_files": few.txt.gz: found 20 windows of 12 tokens, besides 5 set aside for evaluation, expected at least 21' \
    enable_fine_tuning=true 'calibration_files=["few.txt.gz"]' 'eval_files=[]' calibration_samples=0 global_batch_tokens=252 warmup_steps=0
# shellcheck disable=SC2016
for each in 'calibration: key "calibration_files"|calibration_files=["short.txt.gz"]' 'evaluation: key "eval_files"|eval_files=["short.txt.gz"]' \
    'key "eval_sets": set "a"|eval_sets={"a": "short.txt.gz"}' 'fine-tuning: key "train_files"|train_files=["short.txt.gz"]'; do
    alike "${each%%|*}: short.txt.gz: 7 tokens, less than one window of 12 tokens: give more text or a smaller calibration_sequence_length" \
        "${each#*|}" enable_fine_tuning=true global_batch_tokens=12 warmup_steps=0
done
gzip -c <<<'{"text": "a few words"}' | cat - <(gzip -c <<<nonsense) >broken.jsonl.gz
alike 'broken.jsonl.gz line 2' 'calibration_files=["broken.jsonl.gz"]'
# Text that nothing can read.
ended 2 'few.txt.gz: text needs a tokenizer' -- --check cfg.json 'eval_files=["few.txt.gz"]'

# A window is as long as the model's positions where the default is longer, and is refused where the user set it.
sed 's/ "calibration_sequence_length": 12,//' cfg.json >default.json
for how in --check --plan ''; do
    # shellcheck disable=SC2086
    ended 0 'windows are 40 tokens, all positions that' -- $how default.json output_path=fitted
    # shellcheck disable=SC2086
    ended 2 'key "calibration_sequence_length": found 512, expected at most the 40 positions' -- \
        $how default.json output_path=fitted calibration_sequence_length=512
    # shellcheck disable=SC2086
    ended 2 'key "global_batch_tokens": found 512, expected a multiple of the 40 positions' -- \
        $how default.json output_path=fitted global_batch_tokens=512
done
grep -q '"calibration_sequence_length":[[:space:]]*40' fitted/phase4_config.json || fail 'the effective configuration'

# A tokenizer with ids that the model has not: a warning, and an error where text that is looked at holds them.
cp -rL "$FIXTURES/models/llama-gqa" mismatched
cp "$FIXTURES/tokenizers/gpt2/tokenizer.json" mismatched/
ids=$(python3 -c 'import json; print(max(json.load(open("mismatched/tokenizer.json"))["model"]["vocab"].values()))')
[ "$ids" -gt 52 ] || fail "the tokenizer has ids up to $ids"
printf '{"text": "!!!"}\n{"text": "a few words"}\n' >words.jsonl
for how in --check --quiet; do
    ended 2 'the tokenizer of mismatched has token ids up to' 'words.jsonl: document 2: the tokenizer gives id' -- \
        $how cfg.json model_path=mismatched output_path=mis 'calibration_files=["words.jsonl"]' calibration_sequence_length=2
    [ ! -e mis ] || fail "$how made a directory"
done
yes '!!!!!!!!!!!!' | head -c 600 | tr -d '\n' >marks.txt
ended 0 'the tokenizer of mismatched has token ids up to' -- --check cfg.json model_path=mismatched output_path=mis 'calibration_files=["marks.txt"]' calibration_sequence_length=2
# A line that a sample passes over is no error of the check: the run draws another part.
python3 -c '
for i in range(40000):
    print("{\"text\": \"!!!!!!!!!!!!!!!!!!!!!!!!\"}" if i != 1 else "nonsense")' >nonsense.jsonl
for how in --check --quiet; do
    ended 0 'the tokenizer of mismatched has token ids up to' -- $how cfg.json model_path=mismatched output_path=passed 'calibration_files=["nonsense.jsonl"]'
done
# One with few of the model's.
python3 -c '
import json
vocabulary = {chr(97 + i): i for i in range(26)}
json.dump({"model": {"type": "BPE", "vocab": vocabulary, "merges": []}}, open("mismatched/tokenizer.json", "w"))'
ended 0 'the tokenizer of mismatched has 26 token ids' -- --check cfg.json model_path=mismatched output_path=mis
sed -i 's/"vocab": {/"vocab": {"A": 26, /' mismatched/tokenizer.json
ended 0 -- --check cfg.json model_path=mismatched output_path=mis
! grep -q 'the tokenizer of' log || fail 'a tokenizer of 27 ids of 53 is warned of'

# Output paths that cannot become a directory, one that is asked to stop, one that another run holds.
touch a-file
ln -s nowhere gone
mkdir -p asked held
touch asked/stop
ended 2 'output_path: a-file is a file, expected a directory' -- --check cfg.json output_path=a-file
ended 2 'output_path: a-file/out: cannot create the directory: a-file is a file' -- --check cfg.json output_path=a-file/out
ended 2 'output_path: gone is a link to something that is not there' -- --check cfg.json output_path=gone
ended 2 'asked/stop: asks runs in this directory to stop' -- --check cfg.json output_path=asked
python3 -c '
import fcntl, time
file = open("held/.phase4_hold", "w")
fcntl.lockf(file, fcntl.LOCK_EX)
open("locked", "w")
time.sleep(600)' &
holder=$!
while [ ! -e locked ]; do sleep 0.1; done
ended 2 'held: another run is using this output directory' -- --check cfg.json output_path=held
kill $holder
wait $holder || true
ended 0 -- --check cfg.json output_path=held

# Every split whose files are missing.
ended 2 'no-calibration.bin' 'no-evaluation.bin' 'no-training.bin' -- --check cfg.json enable_fine_tuning=true \
    'calibration_files=["no-calibration.bin"]' 'eval_files=["no-evaluation.bin"]' 'train_files=["no-training.bin"]'

# A model of 70 billion parameters, from its headers: files of holes.
python3 - <<'END'
import json, os
V, C, F, L, kv = 128256, 8192, 28672, 80, 1024
os.mkdir("huge")
json.dump({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": C, "intermediate_size": F, "num_hidden_layers": L,
           "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": V, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
           "rope_theta": 500000.0, "hidden_act": "silu", "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2,
           "torch_dtype": "bfloat16"}, open("huge/config.json", "w"))
shards = [{"model.embed_tokens.weight": [V, C]}]
for i in range(L):
    p = f"model.layers.{i}."
    shards.append({p + "self_attn.q_proj.weight": [C, C], p + "self_attn.k_proj.weight": [kv, C], p + "self_attn.v_proj.weight": [kv, C],
                   p + "self_attn.o_proj.weight": [C, C], p + "mlp.gate_proj.weight": [F, C], p + "mlp.up_proj.weight": [F, C],
                   p + "mlp.down_proj.weight": [C, F], p + "input_layernorm.weight": [C], p + "post_attention_layernorm.weight": [C]})
shards.append({"model.norm.weight": [C], "lm_head.weight": [V, C]})
where = {}
for s, shard in enumerate(shards):
    name, header, at = f"model-{s + 1:05d}-of-{len(shards):05d}.safetensors", {}, 0
    for tensor, shape in shard.items():
        count = 2
        for n in shape:
            count *= n
        header[tensor], where[tensor] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + count]}, name
        at += count
    text = json.dumps(header).encode()
    with open("huge/" + name, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        f.truncate(8 + len(text) + at)
json.dump({"metadata": {}, "weight_map": where}, open("huge/model.safetensors.index.json", "w"))
END
status=0
TIMEFORMAT='%U %S'
used=$({ time "$PHASE4_MPI" --check cfg.json model_path=huge enable_fine_tuning=true fine_tune_max_steps=2 >log 2>&1 || status=$?; } 2>&1)
grep -qE 'memory: the run will need|the memory that 1 rank will need' log || fail 'no word of memory for 70B parameters'
grep -qE 'disk: outputs 14[0-9]|outputs take 14[0-9]' log || fail 'no word of 147 GiB of outputs'
awk -v used="$used" 'BEGIN {split(used, t, " "); exit !(t[1] + t[2] < 2)}' || fail "the check of a 70B directory took $used s of processor time"
echo "70B directory checked with $used s of processor time"
# Speeds are not measured with what no machine has memory for: the plan is asked before anything is taken.
status=0
"$PHASE4_MPI" --measure-rates rates.json cfg.json model_path=huge enable_fine_tuning=true micro_batch_size=65536 \
    global_batch_tokens=$((65536 * 4096)) calibration_sequence_length=4096 >log 2>&1 || status=$?
{ [ $status = 2 ] && grep -q 'the memory that 1 rank will need, .*; the run fits with\|no key makes it fit' log && [ ! -e rates.json ]; } ||
    fail "--measure-rates of what does not fit: status $status"
