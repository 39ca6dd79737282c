#!/usr/bin/env bash
# The key exports and phase4_export: what they write, that both write the same bytes, and what is refused before the work.
# tests/clients loads the files in the programs that they are for.
set -eu
. "$(dirname "$0")/job.sh"
cd "$TMP"
config() { # config FILE MODEL OUT EXPORTS
    cat >"$1" <<JSON
{"model_path": "$2", "init": "random", "output_path": "$3", "exports": $4, "wandb_enabled": false, "calibration_samples": 0,
 "eval_samples": 0, "enable_fine_tuning": false, "reconstruct": false, "calibration_sequence_length": 8, "checkpoint_minutes": 0}
JSON
}
refused() { # refused WORDS COMMAND...: status 2, one line
    local words=$1 status=0
    shift
    "$@" >printed 2>log || status=$?
    [ $status = 2 ] || complain "$*: status $status, expected 2"
    [ "$(grep -cF -- "$words" log)" = 1 ] || complain "$*: expected \"$words\" in one line"
}
mkdir model
cat >model/config.json <<'JSON'
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 64, "intermediate_size": 256,
 "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 99, "max_position_embeddings": 64,
 "rms_norm_eps": 1e-5, "tie_word_embeddings": true}
JSON
config a.json model out/model '["gguf", "compressed_tensors", "mlx"]'
"$PHASE4_MPI" a.json >log 2>&1 || complain 'the run with three exports'
for name in gguf compressed_tensors mlx; do
    grep -q "\"$name\":[[:space:]]*\"out/model/" out/model/results.json || complain "results.json does not list $name"
done
grep -q '"bitnet":[[:space:]]*null' out/model/results.json || complain 'results.json lists bitnet'
[ "$(head -c 4 out/model/model.gguf)" = GGUF ] || complain 'model.gguf is none'
grep -q '"quant_method"' out/model/compressed_tensors/config.json || complain 'no quantization_config'
grep -q '"group_size"' out/model/mlx/config.json || complain 'no quantization'

# Later, from the finished result: the same bytes. What is there is not replaced unasked.
mkdir kept
mv out/model/model.gguf out/model/compressed_tensors out/model/mlx kept
"$PHASE4_EXPORT" out/model --to gguf compressed_tensors mlx >log 2>&1 || complain 'phase4_export'
wrote() { # wrote LINE PATH: the log says LINE of PATH, with the bytes that it has
    local bytes kib
    bytes=$(find "$2" -type f -printf '%s\n' | awk '{sum += $1} END {print sum}')
    kib=$(awk -v b="$bytes" 'BEGIN {printf "%.2f KiB", b / 1024}')
    grep -qxF "$2: $1; $kib" log || complain "expected \"$2: $1; $kib\", found: $(cat log)"
}
wrote 'GGUF, TQ2_0 for 2 of 14 ternary tensors, Q2_0 for 12 of 14 ternary tensors' out/model/model.gguf
wrote 'safetensors, pack-quantized: 2 bits, a scale a row' out/model/compressed_tensors
wrote 'safetensors, MLX: 2 bits, groups of 64' out/model/mlx
cmp kept/model.gguf out/model/model.gguf && diff -r kept/mlx out/model/mlx &&
    diff -r kept/compressed_tensors out/model/compressed_tensors || complain 'phase4_export writes other bytes than the run'
refused 'out/model/model.gguf: is there already; --overwrite replaces it' "$PHASE4_EXPORT" out/model --to gguf
"$PHASE4_EXPORT" --overwrite out/model --to gguf:q2_0 >log 2>&1 || complain 'gguf:q2_0'
wrote 'GGUF, Q2_0' out/model/model.gguf
"$PHASE4_EXPORT" --overwrite -q out/model --to gguf:tq1_0 >log 2>&1 && [ ! -s log ] || complain '--overwrite -q'

refused '--to: found "ggml", expected some of gguf, gguf:q2_0' "$PHASE4_EXPORT" out/model --to ggml
refused '--to: found "gguf:q2_0" after another gguf' "$PHASE4_EXPORT" out/model --to gguf gguf:q2_0
refused 'one scale a tensor' "$PHASE4_EXPORT" out/model --to bitnet
refused "bitnet.cpp's I2_S takes one scale a tensor" "$PHASE4_EXPORT" --overwrite out/model --to gguf:i2_s
refused 'expected a directory and a format' "$PHASE4_EXPORT" out/model
refused 'nowhere: is not a directory' "$PHASE4_EXPORT" nowhere --to gguf
[ "$(ls -A out/model | grep -c tmp)" = 0 ] || complain 'temporary files are left'

# A mixture of experts: MLX and GGUF have one tensor for all experts of a layer, dequantized_fp16 one for each.
mkdir mixture
cat >mixture/config.json <<'JSON'
{"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "hidden_size": 64, "intermediate_size": 128, "num_local_experts": 3,
 "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "num_experts_per_tok": 2, "vocab_size": 99,
 "max_position_embeddings": 64, "rope_parameters": {"rope_type": "default", "rope_theta": 70000.0}, "sliding_window": null}
JSON
config c.json mixture out/mixture '["gguf", "mlx"]'
"$PHASE4_MPI" c.json >log 2>&1 || complain 'the run with a mixture of experts'
python3 - out/mixture <<'END' || complain 'the experts in mlx'
import json, struct, sys
def read(path):
    data = open(path, "rb").read()
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    return {name: (t["dtype"], t["shape"], body[slice(*t["data_offsets"])]) for name, t in header.items() if name != "__metadata__"}
out = sys.argv[1]
packed, plain = read(out + "/mlx/model.safetensors"), read(out + "/dequantized_fp16/model.safetensors")
assert json.load(open(out + "/mlx/config.json"))["rope_theta"] == 70000
for module, old, rows, cols in (("gate_proj", "w1", 128, 64), ("up_proj", "w3", 128, 64), ("down_proj", "w2", 64, 128)):
    name = "model.layers.0.block_sparse_moe.switch_mlp." + module
    words, scales, biases = packed[name + ".weight"], packed[name + ".scales"], packed[name + ".biases"]
    groups = cols // 64
    assert words[:2] == ("U32", [3, rows, cols // 16]), words[:2]
    assert scales[:2] == biases[:2] == ("F16", [3, rows, groups]), scales[:2]
    scale = struct.unpack("<%de" % (3 * rows * groups), scales[2])
    for e in range(3):
        want = struct.unpack("<%de" % (rows * cols), plain["model.layers.0.block_sparse_moe.experts.%d.%s.weight" % (e, old)][2])
        for i, value in enumerate(want):
            at = e * rows * cols + i
            code = words[2][at // 4] >> 2 * (at % 4) & 3
            assert value == (code - 1) * scale[at // 64], (module, e, i)
END
grep -aq 'blk.0.ffn_gate_exps.weight' out/mixture/model.gguf || complain 'no tensor of experts in model.gguf'

# A model that a format cannot hold is refused by --check and by the run, before it does anything.
config b.json "$FIXTURES/models/gpt2-plain" b '["compressed_tensors", "mlx"]'
refused 'exports: mlx: model family gpt2' "$PHASE4_MPI" --check b.json
refused 'exports: compressed_tensors: model family gpt2' "$PHASE4_MPI" b.json
[ ! -e b/model.h5 ] || complain 'the run went on'
refused 'key "exports": found "gguf:q4_0", expected some of' "$PHASE4_MPI" --validate a.json 'exports=["gguf:q4_0"]'

# One scale a tensor: bitnet as well. An export that the next run does not write goes with the old results.
"$PHASE4_MPI" a.json overwrite=true scale_granularity=tensor 'exports=["bitnet", "gguf"]' >log 2>&1 || complain 'bitnet'
grep -q '"bitnet"' out/model/bitnet/config.json || complain 'bitnet/config.json'
[ ! -e out/model/mlx ] && [ ! -e out/model/compressed_tensors ] || complain 'exports of the older run are left'
"$PHASE4_EXPORT" --overwrite -q out/model --to gguf:i2_s >log 2>&1 && [ "$(head -c 4 out/model/model.gguf)" = GGUF ] || complain 'gguf:i2_s'

# Scales that a format cannot hold are known after the training only: the run goes on without that output, unless it is the only model.
"$PHASE4_MPI" a.json output_path=out/plain quantizer=none 'exports=[]' >log 2>&1 || complain 'quantizer none'
cp -r out/plain/dequantized_fp16 small
python3 - small/model.safetensors <<'END'
import json, sys
with open(sys.argv[1], "r+b") as file:  # all zeros: bitnet stores 1 / scale
    bytes_of_header = int.from_bytes(file.read(8), "little")
    first, end = json.loads(file.read(bytes_of_header))["model.layers.1.mlp.up_proj.weight"]["data_offsets"]
    file.seek(8 + bytes_of_header + first)
    file.write(bytes(end - first))
END
config s.json small out/small '["bitnet", "gguf"]'
"$PHASE4_MPI" s.json init=checkpoint scale_granularity=tensor >log 2>&1 || complain 'the run whose scales bitnet cannot hold'
grep -q '^warning: exports: bitnet: tensor .* fp16 holds values up to 65504; this output is left out' log || complain 'no warning of bitnet'
grep -q '"bitnet":[[:space:]]*null' out/small/results.json && [ ! -e out/small/bitnet ] || complain 'bitnet is listed'
for name in model.gguf model.h5 dequantized_fp16 compression_metadata.json; do
    [ -e "out/small/$name" ] || complain "$name is missing beside the export that was left out"
done
refused 'exports: bitnet: tensor' "$PHASE4_EXPORT" out/small --to bitnet
refused 'exports: bitnet: tensor' "$PHASE4_MPI" s.json init=checkpoint output_path=out/alone scale_granularity=tensor save_quantized=false \
    save_dequantized_fp16=false 'exports=["bitnet"]'
# The disk is not the reason: the same command would fail again, another one takes the state.
grep -q 'continues it' log && ! grep -q 'the same command' log || complain "the run of the only model says $(cat log)"
"$PHASE4_MPI" s.json init=checkpoint output_path=out/alone scale_granularity=tensor save_dequantized_fp16=false 'exports=[]' >log 2>&1 ||
    complain 'the run with other outputs'
grep -q 'continues from out/alone/checkpoints/' log || complain 'the run with other outputs starts anew'
