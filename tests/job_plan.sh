#!/usr/bin/env bash
# What --plan says before the work is what a run then takes: the peak of anonymous memory within 5 % in every configuration, beside
# a constant for the process, which is measured on a run that has nothing to do. Plans from config.json alone, of any size, come at once.
set -eu
. "$(dirname "$0")/job.sh"
here=$(cd "$(dirname "$0")" && pwd)
cd "$TMP"

# A model whose weights and states are large beside the process, and tokens.
python3 - <<'END'
import json, os, struct
V, C, F, L, H, kv = 256, 192, 512, 8, 4, 2
os.mkdir("model")
json.dump({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": C, "intermediate_size": F, "num_hidden_layers": L,
           "num_attention_heads": H, "num_key_value_heads": kv, "vocab_size": V, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
           "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2},
          open("model/config.json", "w"))
D = C // H
shapes = {"model.embed_tokens.weight": [V, C], "model.norm.weight": [C], "lm_head.weight": [V, C]}
for l in range(L):
    p = f"model.layers.{l}."
    shapes |= {p + "self_attn.q_proj.weight": [C, C], p + "self_attn.k_proj.weight": [kv * D, C], p + "self_attn.v_proj.weight": [kv * D, C],
               p + "self_attn.o_proj.weight": [C, C], p + "mlp.gate_proj.weight": [F, C], p + "mlp.up_proj.weight": [F, C],
               p + "mlp.down_proj.weight": [C, F], p + "input_layernorm.weight": [C], p + "post_attention_layernorm.weight": [C]}
signs = bytes(0x3c | b & 0x80 for b in range(256)) # bf16 from 0.0078 to 0.031, of either sign
def write(directory, shapes):
    header, at, data = {}, 0, bytearray()
    for name, shape in shapes.items():
        n = shape[0] * (shape[1] if len(shape) > 1 else 1)
        values = bytearray(2 * n)
        values[0::2], values[1::2] = os.urandom(n), os.urandom(n).translate(signs)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + 2 * n]}
        at += 2 * n
        data += values
    text = json.dumps(header).encode()
    open(directory + "/model.safetensors", "wb").write(struct.pack("<Q", len(text)) + text + data)
write("model", shapes)

# One whose files hold matrices as [in, out], and with a tokenizer, so that it continues texts: a token for each byte.
C = 256
os.mkdir("conv")
json.dump({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": C, "n_layer": L, "n_head": 8, "n_positions": 512,
           "vocab_size": V, "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new", "bos_token_id": 1, "eos_token_id": 2},
          open("conv/config.json", "w"))
shapes = {"wte.weight": [V, C], "wpe.weight": [512, C], "ln_f.weight": [C], "ln_f.bias": [C]}
for l in range(L):
    for name, shape in (("attn.c_attn", [C, 3 * C]), ("attn.c_proj", [C, C]), ("mlp.c_fc", [C, 4 * C]), ("mlp.c_proj", [4 * C, C]),
                        ("ln_1", [C]), ("ln_2", [C])):
        shapes[f"h.{l}.{name}.weight"], shapes[f"h.{l}.{name}.bias"] = shape, shape[-1:]
write("conv", shapes)
printed = [*range(33, 127), *range(161, 173), *range(174, 256)] # the bytes that stand for themselves in byte-level tokenizers
letters = [chr(byte) if byte in printed else chr(256 + sum(b not in printed for b in range(byte))) for byte in range(256)]
level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
json.dump({"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": level, "post_processor": None, "decoder": level,
           "model": {"type": "BPE", "vocab": {letter: byte for byte, letter in enumerate(letters)}, "merges": []}},
          open("conv/tokenizer.json", "w"))
open("tokens.bin", "wb").write(bytes(b for _ in range(128 * 80) for b in (os.urandom(1)[0], 0)))
END
cat >cfg.json <<JSON
{
  "model_path": "$TMP/model", "output_path": "out", "wandb_enabled": false, "device": "cpu", "threads_per_rank": 1,
  "calibration_dataset": "custom", "calibration_files": ["$TMP/tokens.bin"], "eval_files": ["$TMP/tokens.bin"],
  "train_files": ["$TMP/tokens.bin"], "calibration_samples": 8, "eval_samples": 0, "calibration_batch_size": 4,
  "calibration_sequence_length": 128, "global_batch_tokens": 512, "fine_tune_max_steps": 1, "warmup_steps": 0, "reconstruct_steps": 1,
  "checkpoint_minutes": 0, "save_quantized": false
}
JSON

# Of 24 experts, whose second moments are collected 19 at a time in one projection and all at once in the other.
mkdir mixture
cat >mixture/config.json <<JSON
{"model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "vocab_size": 256, "hidden_size": 192, "head_dim": 48,
 "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 3, "intermediate_size": 512, "moe_intermediate_size": 256, "num_experts": 24,
 "num_experts_per_tok": 4, "max_position_embeddings": 512, "bos_token_id": 1, "eos_token_id": 2, "dtype": "bfloat16"}
JSON

# measure NAME key=value...: "planned measured stage" in the file NAME.
measure() {
    local name=$1
    shift
    "$PHASE4_MPI" --plan --json "$TMP/cfg.json" "$@" >plan.json 2>log || { cat log; return 1; }
    python3 "$here/peak_memory.py" "$PHASE4_MPI" --quiet "$TMP/cfg.json" "$@" >peak 2>log || { cat log; return 1; }
    python3 -c "
import json
rank = json.load(open('plan.json'))['ranks_planned'][0]
peak = rank['host_peak']
print(peak['bytes'] + (rank['checkpoint_copy_bytes'] if peak['stage'] == 'fine_tune' else 0), open('peak').read().strip(), peak['stage'])" >"$TMP/$name.peak"
}
base='enable_fine_tuning=false reconstruct=false'
tune='reconstruct=false distill=0'
# shellcheck disable=SC2086
measure process $base calibration_samples=0
# shellcheck disable=SC2086
{
    spawn measure evaluate $base eval_samples=32
    spawn measure diagonal $base quantizer=exact-diagonal
    spawn measure gptq $base quantizer=gptq
    spawn measure blocks enable_fine_tuning=false reconstruct_window=4
    spawn measure one_block enable_fine_tuning=false reconstruct_window=1 recompute=blocks
    spawn measure adamw $tune
    spawn measure mugrokfast $tune optimizer=mugrokfast enable_grokfast=true
    spawn measure half_state $tune optimizer_state=bf16
    spawn measure int8 $tune activation_bits=8
    spawn measure light $tune recompute=light micro_batch_size=4
    spawn measure recompute $tune recompute=blocks
    spawn measure resident reconstruct=false
    spawn measure outputs reconstruct=false distill_blocks=1
    spawn measure cached reconstruct=false distill_teacher=cached
    spawn measure all reconstruct_window=2
    spawn measure checkpoints $tune fine_tune_max_steps=3 checkpoint_every=2
    spawn measure masters $tune quantizer=gptq
    spawn measure epochs $tune quantizer=none eval_samples=32
    spawn measure random init=random quantizer=none
    spawn measure samples $base calibration_samples=0 eval_samples=4 calibration_batch_size=1 model_path="$TMP/conv"
    spawn measure no_samples $base calibration_samples=0 eval_samples=4 calibration_batch_size=1 sample_texts=0 model_path="$TMP/conv"
    spawn measure experts $base init=random quantizer=gptq model_path="$TMP/mixture"
}
join
python3 - <<'END'
import glob, os, sys
read = lambda path: open(path).read().split()
planned, measured, _ = read("process.peak")
process, worst, count = int(measured) - int(planned), 0.0, 0
print(f"the process: {process / 2**20:.1f} MiB")
for path in sorted(glob.glob("*.peak")):
    planned, measured, stage = read(path)
    planned, measured = int(planned) + process, int(measured)
    apart = measured / planned - 1
    if abs(measured - planned) > 2 << 20: # HDF5 and BLAS take a little more or less
        worst = max(worst, abs(apart))
    count += measured >= 40 << 20
    print(f"{path[:-5]:12} {stage:14} planned {planned / 2**20:7.1f} MiB, measured {measured / 2**20:7.1f} MiB, {100 * apart:+.1f} %")
sys.exit(f"{100 * worst:.1f} % apart, expected at most 5 %" if worst > 0.05 or count < 12 else 0)
END

# From config.json alone, on more GPUs than there are.
mkdir outline
sed 's/"num_hidden_layers": 8/"num_hidden_layers": 96/; s/"hidden_size": 192/"hidden_size": 8192/; s/"intermediate_size": 512/"intermediate_size": 28672/' \
    model/config.json >outline/config.json
"$PHASE4_MPI" --plan cfg.json --ranks 256 --device-memory 80G device=cuda model_path=outline >log 2>&1 || { cat log; exit 1; }
for each in 'on 256 ranks, a GPU of' 'rates: built-in table, NVIDIA H100' 'no weights are there' 'smallest number of GPUs that fits:'; do
    grep -qF -- "$each" log || { echo "expected \"$each\""; cat log; exit 1; }
done
# Host memory counts where it is known: of a node with 8 GPUs, and of the machine that a plan without them is for.
fits() { "$PHASE4_MPI" --plan cfg.json --ranks 256 --device-memory 80G device=cuda model_path=outline "$@" >log 2>&1 || { cat log; exit 1; }; }
fits
grep -qF 'host memory is not judged' log || { cat log; exit 1; }
fits --host-memory 100T
grep -qE 'a node has 90.95 TiB of host memory, and 8 ranks there take up to [0-9.]+ GiB' log && grep -q 'the run fits' log || { cat log; exit 1; }
fits --host-memory 10G
grep -q 'the run does not fit' log || { cat log; exit 1; }
for memory in 1G 10M; do
    "$PHASE4_MPI" --plan --json cfg.json --ranks 4 --ranks-per-node 2 --host-memory $memory >$memory.json 2>log || { cat log; exit 1; }
done
python3 -c '
import json
enough, little = json.load(open("1G.json")), json.load(open("10M.json"))
assert enough["fits"] and enough["memory_bytes"] == 5e8 and enough["node_memory_bytes"] == 1e9 and not little["fits"], (enough, little)'
# What does not fit is said, with what would: keys for a GPU, a number of GPUs.
small=('device=cuda' "model_path=$TMP/outline" 'reconstruct=false' 'distill=0' 'calibration_samples=0' 'global_batch_tokens=262144')
"$PHASE4_MPI" --plan cfg.json --ranks 16 --device-memory 100G "${small[@]}" micro_batch_size=128 >log 2>&1 || { cat log; exit 1; }
grep -q 'the run does not fit' log || { cat log; exit 1; }
advice=$(sed -n 's/^it fits with //p' log)
[ -n "$advice" ] || { cat log; exit 1; }
# shellcheck disable=SC2086
"$PHASE4_MPI" --plan cfg.json --ranks 16 --device-memory 100G "${small[@]}" micro_batch_size=128 $advice >log 2>&1 || { cat log; exit 1; }
grep -q 'the run fits' log || { echo "with $advice:"; cat log; exit 1; }

# The smallest number of GPUs is that with which a plan fits, and with one less none does, also for a mixture of experts.
mkdir experts
python3 - <<'END'
import json
json.dump({"model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "hidden_size": 1024, "intermediate_size": 2048,
           "moe_intermediate_size": 256, "num_experts": 32, "num_experts_per_tok": 4, "norm_topk_prob": True, "num_hidden_layers": 12,
           "num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 64, "vocab_size": 8192, "max_position_embeddings": 4096,
           "rms_norm_eps": 1e-6, "rope_theta": 1e6, "hidden_act": "silu", "tie_word_embeddings": False, "bos_token_id": 1,
           "eos_token_id": 2, "decoder_sparse_step": 1, "mlp_only_layers": []}, open("experts/config.json", "w"))
END
for model in outline experts; do
    memory=80G
    [ $model = outline ] || memory=4G
    of_gpus() { "$PHASE4_MPI" --plan --json cfg.json --device-memory $memory device=cuda model_path=$model --ranks "$1" 2>log | python3 -c "
import json, sys
plan = json.load(sys.stdin)
print(plan['least_ranks'], 'fits' if plan['fits'] else 'does not fit')"; }
    read -r least fits < <(of_gpus 64)
    [ "$least" -gt 1 ] && [ "$fits" = fits ] || { echo "$model: $least, $fits on 64 GPUs"; cat log; exit 1; }
    [ "$(of_gpus "$least")" = "$least fits" ] && [ "$(of_gpus $((least - 1)))" = "$least does not fit" ] ||
        { echo "$model: $least is not the smallest number of GPUs"; exit 1; }
done

# Ranks on CPUs are those of mpirun on one machine unless the options say otherwise, and divide its memory; the plan says which machines
# it is for. The smallest number of ranks is judged by the memory that so many have.
machines() { # machines WORDS ARGUMENT...
    "$PHASE4_MPI" --plan cfg.json "${@:2}" >log 2>&1 || { cat log; exit 1; }
    grep -qF -- "$1" log || { echo "expected \"$1\""; cat log; exit 1; }
}
machines 'machines: 1, with all 2 ranks (assumed; --ranks-per-node says how many a machine has)' --ranks 2
machines 'machines: 2, with 1 rank on each' --ranks 2 --ranks-per-node 1
machines '; starting the processes and MPI is not counted' --ranks 2
machines '; starting the processes, MPI and the GPUs is not counted' --device-memory 80G device=cuda
machines 'machines: 3, with up to 2 ranks on each' --ranks 5 --ranks-per-node 2
machines 'machines: 2, with 8 ranks on each (assumed;' --ranks 16 device=cuda --device-memory 80G
machines 'a rank has 32.00 GiB of host memory' --ranks 2 --host-memory 64GiB
"$PHASE4_MPI" --plan cfg.json >log 2>&1 && ! grep -q '^machines' log || { cat log; exit 1; }
"$PHASE4_MPI" --plan --json cfg.json --host-memory 1G >plan.json 2>log || { cat log; exit 1; }
alone=$(python3 -c 'import json; plan = json.load(open("plan.json")); print(int(1.2 * (plan["process_bytes"] + plan["ranks_planned"][0]["host_peak"]["bytes"])))')
for ranks in 1 64; do
    "$PHASE4_MPI" --plan --json cfg.json --ranks $ranks --host-memory $alone >plan.json 2>log || { cat log; exit 1; }
    python3 -c '
import json, sys
plan = json.load(open("plan.json"))
assert plan["least_ranks"] == 1 and plan["fits"] == (plan["ranks"] == 1) and plan["machines"] == 1 and plan["ranks_per_node_assumed"], plan' ||
        exit 1
done

# Times of this machine's CPUs are measured; a described machine, a batch and a file of rates are not this machine.
"$PHASE4_MPI" --plan cfg.json >log 2>&1 && grep -qE '^rates: measured here in [0-9.]+ s, 1 thread a rank$' log || { cat log; exit 1; }
for described in '--host-memory 64G' '--device-memory 64G'; do
    # shellcheck disable=SC2086
    "$PHASE4_MPI" --plan cfg.json $described >log 2>&1 && grep -q '^rates: built-in table, CPU, 1 thread a rank$' log || { cat log; exit 1; }
done

# Ranks that share cores are slower than ranks with a core each: for a plan, and for what a run says before its work. More threads
# than cores are no faster.
on_one_core() { # on_one_core COMMAND...
    python3 -c 'import os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
os.execvp(sys.argv[1], sys.argv[1:])' "$@"
}
said() { # said WORDS: the log has them
    grep -qE -- "$1" log || { echo "expected \"$1\" in:"; cat log; exit 1; }
}
on_one_core "$PHASE4_MPI" --plan cfg.json --ranks 3 --ranks-per-node 3 >log 2>&1 || { cat log; exit 1; }
said '^rates: measured here in [0-9.]+ s, 1 thread a rank on 0.333 of a core$'
on_one_core "$PHASE4_MPI" --plan cfg.json threads_per_rank=4 >log 2>&1 || { cat log; exit 1; }
said '^rates: measured here in [0-9.]+ s, 4 threads a rank on 1 core$'
on_one_core "$PHASE4_MPI" --plan cfg.json --ranks 3 --ranks-per-node 3 --host-memory 64G >log 2>&1 || { cat log; exit 1; }
said '^rates: built-in table, CPU, 1 thread a rank$'
on_one_core "$MPIRUN" -n 2 "$PHASE4_MPI" --check cfg.json output_path=crowded >log 2>&1 || { cat log; exit 1; }
said 'threads: 1 for each rank, on 0.5 of a core, since the node has fewer for its 2 ranks$'
said 'rates: .*, 1 thread a rank on 0.5 of a core\)'

# Where the states of much text are what does not fit, the advice is less text, and with it the run fits.
much=(--host-memory 1G 'calibration_files=["absent.jsonl.gz"]' calibration_samples=100000)
"$PHASE4_MPI" --plan cfg.json "${much[@]}" >log 2>&1 && advice=$(sed -n 's/^it fits with //p' log)
[[ "$advice" =~ ^reconstruct_tokens=[0-9]+$ ]] || { cat log; exit 1; }
"$PHASE4_MPI" --plan cfg.json "${much[@]}" "$advice" >log 2>&1 && grep -q ': the run fits$' log || { cat log; exit 1; }
# What a rank needs and has is said once where it is also the node's.
[ "$(grep -c 'takes* up to' log)" = 1 ] || { cat log; exit 1; }

# A long run on CPUs begins with keys that make it shorter, with values and times.
"$PHASE4_MPI" --check cfg.json output_path=long fine_tune_epochs=1000000 fine_tune_max_steps=10000000 >log 2>&1 || { cat log; exit 1; }
grep -qE '      fine_tune_max_steps=2500000 instead of 10000000: about [0-9.]+ (min|h|days)$' log || { cat log; exit 1; }

# Where the windows are the model's 64 positions, because nobody set their length, all that is compared with the plan has such windows too:
# the smallest number of ranks, and the keys that make a long run shorter. None of those makes it longer.
mkdir short
sed 's/"max_position_embeddings": 512/"max_position_embeddings": 64/' model/config.json >short/config.json
ln -s ../model/model.safetensors short/
python3 -c '
import json
config = json.load(open("cfg.json"))
del config["calibration_sequence_length"], config["global_batch_tokens"], config["reconstruct_steps"]
json.dump(config | {"model_path": "short", "calibration_samples": 150}, open("short.json", "w"))'
"$PHASE4_MPI" --plan --json short.json --ranks 1 --host-memory 1G >plan.json 2>log || { cat log; exit 1; }
enough=$(python3 -c 'import json; plan = json.load(open("plan.json")); print(int(1.1 * (plan["process_bytes"] + plan["ranks_planned"][0]["host_peak"]["bytes"])))')
for length in '' calibration_sequence_length=64; do
    # shellcheck disable=SC2086
    "$PHASE4_MPI" --plan short.json --ranks 1 --host-memory "$enough" $length >log 2>&1 || { cat log; exit 1; }
    said 'the run fits$'
    said '^smallest number of ranks that fits: 1$'
done
shorter() { # shorter PART KEY=VALUE...: with each key that --check names the run is shorter, with a quarter of the steps by PART
    "$PHASE4_MPI" --check short.json output_path=long "${@:2}" >log 2>&1 || { cat log; exit 1; }
    python3 - "$@" <<'END'
import re, sys
most, unit = float(sys.argv[1]), {"s": 1, "min": 60, "h": 3600, "days": 86400}
text = open("log").read()
seconds = lambda found: float(found[0]) * unit[found[1]]
whole = seconds(re.search(r"time: about ([0-9.]+) (\w+) from beginning", text).groups())
named = {key: seconds(rest) for key, *rest in re.findall(r"      (\w+)=\d+ instead of \d+: about ([0-9.]+) (\w+)", text)}
quarter = named.get("fine_tune_max_steps", 0) / whole
if any(value >= whole for value in named.values()) or not 0.2 < quarter < most:
    sys.exit(f"{sys.argv[1:]}: {named} of {whole} s:\n{text}")
END
}
shorter 0.3 fine_tune_epochs=1000000 fine_tune_max_steps=10000000 reconstruct_steps=1
# A training on the calibration text evaluates after each of its epochs: with fewer windows there are more of them.
head -c 4096000 /dev/zero >many.bin
shorter 1 'calibration_files=["many.bin"]' 'eval_files=["many.bin"]' 'train_files=[]' calibration_samples=1600 eval_samples=32000 \
    fine_tune_epochs=1000000 fine_tune_max_steps=1000
! grep -q calibration_samples= log || { cat log; exit 1; }

# Rates that are measured with a model, on several ranks with their links, are those of a plan. One rank reads cfg.json; keys that are
# left open have the values of a run.
mkdir elsewhere
export rates="$TMP/rates.json"
"$MPIRUN" -n 2 bash -c '[ "$OMPI_COMM_WORLD_RANK" = 0 ] || cd elsewhere; exec "$PHASE4_MPI" --measure-rates "$rates" cfg.json calibration_batch_size=1' \
    >said 2>log && grep -q "^$rates: written\$" said || { cat said log; exit 1; }
grep -q 'training steps with recompute "none", micro_batch_size "auto"$' log || { cat log; exit 1; }
# On CPUs the rate of training steps is that with which the plan gives the step that was timed; nothing counts kernels.
grep -q '"kernel_seconds":[[:space:]]*0,' rates.json || { cat rates.json; exit 1; }
sed -n 's/.*a training step of this model takes \(.*\) s; by these rates \(.*\) s$/\1 \2/p' log >steps
# Where memory or the link was slow at the moment it was measured, there is no such rate, and the log says so.
awk 'NF == 2 && $1 > 0 && $1 - $2 < 0.01 * $1 && $2 - $1 < 0.01 * $1 {found = 1} END {exit !found}' steps ||
    grep -q 'no rate of products explains the step' log || { cat log; exit 1; }
"$PHASE4_MPI" --plan cfg.json --rates rates.json --ranks 2 >log 2>&1 && grep -q '^rates: measured: CPU, 1 thread, [^,]*$' log || { cat log; exit 1; }
! grep -q '^warning: rates' log || { cat log; exit 1; }
# A plan of another number of ranks says so.
"$PHASE4_MPI" --plan cfg.json --rates rates.json >log 2>&1 || { cat log; exit 1; }
said '^warning: rates: measured with 2 ranks of 1 thread on a machine, and this plan has 1 rank of 1 thread there, whose speed is another$'
"$PHASE4_MPI" --plan --json cfg.json --rates rates.json >plan.json 2>log || { cat log; exit 1; }
python3 -c '
import json
plan = json.load(open("plan.json"))
rates = plan["rates"]
assert [rates[key] for key in ("ranks", "ranks_per_node", "threads")] == [2, 2, 1] and "2 ranks" in plan["rates_note"], plan'
sed 's/"ranks":[^,]*,/"ranks": 0,/' rates.json >broken.json
status=0
"$PHASE4_MPI" --plan cfg.json --rates broken.json >log 2>&1 || status=$?
[ $status = 2 ] || { cat log; exit 1; }
said 'broken.json: ranks: expected a whole number from 1 to'
# They are refused for GPUs.
status=0
"$PHASE4_MPI" --plan cfg.json --rates rates.json device=cuda --device-memory 80G >log 2>&1 || status=$?
[ $status = 2 ] && grep -q 'rates.json: its rates are of CPUs (measured: CPU, 1 thread, .*), and the plan is for GPUs' log || { cat log; exit 1; }
# Rates of the table by the name of a GPU, whatever memory is described; the names where it is none of them.
"$PHASE4_MPI" --plan cfg.json device=cuda --rates H100 --device-memory 141G >log 2>&1 || { cat log; exit 1; }
said '^rates: built-in table, NVIDIA H100$'
"$PHASE4_MPI" --plan cfg.json device=cuda --rates h200 --device-memory 80G >log 2>&1 || { cat log; exit 1; }
said '^rates: built-in table, NVIDIA H200$'
"$PHASE4_MPI" --plan cfg.json --rates cpu >log 2>&1 || { cat log; exit 1; }
said '^rates: built-in table, CPU, 1 thread a rank$'
status=0
"$PHASE4_MPI" --plan cfg.json device=cuda --rates A100 --device-memory 80G >log 2>&1 || status=$?
[ $status = 2 ] || { cat log; exit 1; }
said 'error: --rates: found "A100", expected a file of phase4_mpi --measure-rates, or H100, H200 or CPU of the built-in table$'
# A GPU that is named has its memory, unless other memory is described, and the plan says of which GPU.
status=0
"$PHASE4_MPI" --plan cfg.json --rates H100 >log 2>&1 || status=$?
[ $status = 2 ] || { cat log; exit 1; }
said 'error: H100: its rates are of GPUs .*, and the plan is for CPUs: leave device=cpu out'
named() { # named KIND MEMORY WORDS ARGUMENT...: the plan has this memory, and its text the words
    local expected=$2 words=$3 device
    for device in auto cuda; do
        CUDA_VISIBLE_DEVICES='' "$PHASE4_MPI" --plan --json cfg.json device=$device --rates "$1" "${@:4}" >plan.json 2>log || { cat log; exit 1; }
        python3 -c 'import json, sys; sys.exit(json.load(open("plan.json"))["memory_bytes"] != int(sys.argv[1]))' "$expected" || { cat plan.json; exit 1; }
    done
    CUDA_VISIBLE_DEVICES='' "$PHASE4_MPI" --plan cfg.json device=auto --rates "$1" "${@:4}" >log 2>&1 || { cat log; exit 1; }
    said "$words"
}
named H100 80000000000 'a GPU of 74.51 GiB, as an H100 \(SXM or PCIe\) has; an H100 NVL has 94 GB: --device-memory 94G$'
named h200 141000000000 'a GPU of 131.32 GiB, as an H200 \(SXM or NVL\) has$' --ranks 2
named H100 94000000000 'a GPU of 87.54 GiB$' --device-memory 94G
# A file of such a name is not passed over silently; with a folder before it, it is read.
cp rates.json CPU
status=0
"$PHASE4_MPI" --plan cfg.json --rates CPU >log 2>&1 || status=$?
[ $status = 2 ] || { cat log; exit 1; }
said 'error: --rates: "CPU" is a file here, and also a name of the built-in table; write ./CPU for the file, or rename it to use the table$'
"$PHASE4_MPI" --plan cfg.json --rates ./CPU >log 2>&1 || { cat log; exit 1; }
said '^rates: measured: CPU, 1 thread'
rm CPU

status=0
"$PHASE4_MPI" --measure-rates no/where/rates.json cfg.json >log 2>&1 || status=$?
[ $status = 2 ] && grep -q '^phase4: error: no/where/rates.json: cannot create a file beside it' log || { cat log; exit 1; }

# Work beside the steps counts: evaluations at the ends of epochs (20 steps) and by eval_every, each once, and the pass that makes a
# cached teacher. So do the layers that see all tokens, where others have a window, and the order of windows that are mixed.
plan() { "$PHASE4_MPI" --plan --json "$TMP/cfg.json" reconstruct=false eval_samples=8 fine_tune_epochs=2 fine_tune_max_steps=30 "${@:2}" >"$1.json" 2>log ||
    { cat log; exit 1; }; }
plan steps distill=0 eval_samples=0
plan ends distill=0
plan between distill=0 eval_every=8
plan both distill=0 eval_every=10
plan resident eval_samples=0 distill_teacher=resident
plan cached eval_samples=0 distill_teacher=cached
plan mixed distill=0 'train_weights=[1]'
mkdir all windowed
cp "$FIXTURES/models/gemma2-bias/config.json" windowed
sed 's/"sliding_attention"/"full_attention"/' windowed/config.json >all/config.json
plan all calibration_sequence_length=12 global_batch_tokens=12 distill=0 "model_path=$TMP/all"
plan windowed calibration_sequence_length=12 global_batch_tokens=12 distill=0 "model_path=$TMP/windowed"
python3 - <<'END'
import json, sys
plans = {name: json.load(open(name + ".json")) for name in "steps ends between both resident cached mixed all windowed".split()}
work = lambda name, stage="fine_tune": plans[name]["stages"][stage]["operations"]
one = work("ends", "evaluate_pre")
found = {"evaluations of epochs": (work("ends") - work("steps")) / one, "and every 8 steps": (work("between") - work("steps")) / one,
         "and every 10 steps": (work("both") - work("steps")) / one,
         "windows of the cached teacher": 120 * (work("cached") - work("steps")) / (work("resident") - work("steps")),
         "bytes a mixed window": (plans["mixed"]["ranks_planned"][0]["stages"]["fine_tune"]["host"]["windows"]
                                  - plans["ends"]["ranks_planned"][0]["stages"]["fine_tune"]["host"]["windows"]) / 80,
         "operations of two keys": (work("all", "evaluate_pre") - work("windowed", "evaluate_pre")) / (8 * 12)}
expected = [2, 5, 3, 80, 8, 4 * 2 * 5 * 6]
wrong = [f"{what}: {value}, expected {want}" for (what, value), want in zip(found.items(), expected) if abs(value - want) > 1e-6 * want]
sys.exit("\n".join(wrong) or 0)
END

# Ranks that share the windows unequally are no two alike: all states of reconstruction together are those of 24 windows of both models.
for ranks in 5 8 12 16; do
    for batch in 1 24; do
        "$PHASE4_MPI" --plan --json cfg.json --ranks $ranks calibration_samples=24 calibration_batch_size=$batch enable_fine_tuning=false >$ranks.json 2>log ||
            { cat log; exit 1; }
        python3 - $ranks $batch <<'END'
import json, sys
ranks = json.load(open(sys.argv[1] + ".json"))["ranks_planned"]
states = sum(r["ranks_alike"] * r["stages"]["reconstruct"]["host"].get("states", 0) for r in ranks)
expected = 2 * 24 * 128 * 192 * 4
sys.exit(f"{sys.argv[1]} ranks, micro-batches of {sys.argv[2]}: states of {states} bytes, expected {expected}" if states != expected else 0)
END
    done
done
