#!/usr/bin/env bash
# A small mixture of experts (Qwen3-MoE), trained here by the program from random weights: quantized with statistics of each
# expert, reconstructed and fine-tuned with the original as teacher, on 1, 2 and 3 ranks. The dequantized model that is written
# predicts as the run said. An expert that no token is routed to is named, and quantized without statistics.
set -eu
. "$(dirname "$0")/job.sh"
cd "$TMP"
demo 400

mkdir model
cp "$TMP"/demo/model/tokenizer* model
cat >model/config.json <<JSON
{"model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "vocab_size": 1024, "hidden_size": 48,
 "intermediate_size": 96, "moe_intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 3,
 "num_key_value_heads": 1, "head_dim": 16, "num_experts": 7, "num_experts_per_tok": 2, "norm_topk_prob": true,
 "max_position_embeddings": 64, "rope_theta": 10000.0, "bos_token_id": 0, "eos_token_id": 0, "torch_dtype": "float32"}
JSON
cat >common.json <<JSON
{
  "model_path": "unset", "output_path": "unset", "wandb_enabled": false,
  "calibration_dataset": "custom", "calibration_files": ["$TMP/demo/stories-train.jsonl"],
  "train_files": ["$TMP/demo/stories-train.jsonl"], "eval_files": ["$TMP/demo/stories-valid.jsonl"],
  "eval_samples": 24, "calibration_samples": 32, "calibration_batch_size": 16, "calibration_sequence_length": 48,
  "fine_tune_threshold": 0, "fine_tune_lr": 3e-3, "warmup_steps": 2, "global_batch_tokens": 768, "enable_grokfast": false,
  "threads_per_rank": 1, "num_workers": 1, "seed": 5
}
JSON

number() { # number RUN OBJECT KEY
    sed -n "/\"$2\":/,/}/s/.*\"$3\":[[:space:]]*\([0-9.e+-]*\).*/\1/p" "$TMP/$1/results.json" | head -n 1
}
within() { # within A B LOW HIGH WHAT: LOW * B < A < HIGH * B
    awk -v a="$1" -v b="$2" -v l="$3" -v h="$4" 'BEGIN {exit !(a > 0 && b > 0 && a > l * b && a < h * b)}' ||
        complain "$5: $1, expected $3 to $4 times $2"
}
run() { # run NAME RANKS [key=value ...]: in the current directory, which no other run uses
    local name=$1 ranks=$2
    shift 2
    on_ranks "$ranks" "$PHASE4_MPI" "$TMP/common.json" output_path="$TMP/$name" "$@" || complain "$name: failed"
    cp log "$TMP/$name.log"
}

run trained 1 model_path=model init=random quantizer=none fine_tune_max_steps=60 calibration_samples=0 save_quantized=false
within "$(number trained final loss)" "$(number trained pre_compression loss)" 0.1 0.8 "loss after training, and before"

compress() { # compress RANKS
    run "small$1" "$1" model_path="$TMP/trained/dequantized_fp16" quantizer=exact-diagonal distill=0.9 fine_tune_lr=1e-3 fine_tune_max_steps=12 \
        reconstruct=true reconstruct_steps=12 reconstruct_lr=5e-3 zero_stage=2
    within "$(number "small$1" reconstruction loss_after)" "$(number "small$1" reconstruction loss_before)" 0 0.95 \
        "$1 ranks: error of the first block after reconstruction, and before"
    within "$(number "small$1" final loss)" "$(number "small$1" post_compression loss)" 0.1 1 "$1 ranks: loss after fine-tuning, and before"
    within "$(number "small$1" pre_compression loss)" "$(number trained final loss)" 0.998 1.002 \
        "$1 ranks: loss of the original as it was read, and as it was trained"
    grep -q '"passed":[[:space:]]*true' <(sed -n '/"gradient_flow_test"/,/}/p' "$TMP/small$1/results.json") ||
        complain "$1 ranks: the gradient-flow test failed"
}
for ranks in 1 2 3; do
    spawn compress $ranks
done
join
within "$(number small1 final loss)" "$(number small2 final loss)" 0.99 1.01 "loss on 1 rank and on 2"
within "$(number small1 final loss)" "$(number small3 final loss)" 0.99 1.01 "loss on 1 rank and on 3"
run again 1 model_path="$TMP/small1/dequantized_fp16" quantizer=none enable_fine_tuning=false calibration_samples=0
within "$(number again pre_compression loss)" "$(number small1 final loss)" 0.999 1.001 "loss of what was written, and of the run"

# Layers without experts beside layers with them: all stages, with blocks of both kinds reconstructed together.
mkdir mixed
cp model/tokenizer* mixed
sed 's/"num_hidden_layers": 2/"num_hidden_layers": 4, "mlp_only_layers": [0], "decoder_sparse_step": 2/' model/config.json >mixed/config.json
run mixed0 1 model_path=mixed init=random quantizer=none fine_tune_max_steps=40 calibration_samples=0 save_quantized=false
compress_mixed() { # compress_mixed RANKS
    run "mixed$1" "$1" model_path="$TMP/mixed0/dequantized_fp16" quantizer=gptq-cd distill=0.9 distill_blocks=1 fine_tune_lr=1e-3 fine_tune_max_steps=6 \
        reconstruct=true reconstruct_window=3 reconstruct_steps=12 reconstruct_lr=2e-4 zero_stage=2
    within "$(number "mixed$1" reconstruction loss_after)" "$(number "mixed$1" reconstruction loss_before)" 0 0.99 \
        "$1 ranks: error of the first blocks after reconstruction, and before"
    within "$(number "mixed$1" final loss)" "$(number "mixed$1" post_compression loss)" 0.1 1 "$1 ranks: loss after fine-tuning, and before"
    grep -q '"passed":[[:space:]]*true' <(sed -n '/"gradient_flow_test"/,/}/p' "$TMP/mixed$1/results.json") ||
        complain "$1 ranks: the gradient-flow test of layers with and without experts failed"
    python3 - "$TMP/mixed$1/results.json" <<'END' || complain "$1 ranks: loads of experts"
import json, sys
loads = json.load(open(sys.argv[1]))["experts"]
layers = loads["layers"]
assert [layer["layer"] for layer in layers] == [1, 3], layers
assert all(sum(layer["tokens"]) == 32 * 48 * 2 and len(layer["tokens"]) == 7 for layer in layers), layers
assert loads["unused"] == sum(layer["unused"] for layer in layers), loads
END
}
for ranks in 1 2 3; do
    spawn compress_mixed $ranks
done
join
within "$(number mixed1 final loss)" "$(number mixed2 final loss)" 0.99 1.01 "loss with layers without experts on 1 rank and on 2"
within "$(number mixed1 final loss)" "$(number mixed3 final loss)" 0.99 1.01 "loss with layers without experts on 1 rank and on 3"
run mixed_again 1 model_path="$TMP/mixed1/dequantized_fp16" quantizer=none enable_fine_tuning=false calibration_samples=0
within "$(number mixed_again pre_compression loss)" "$(number mixed1 final loss)" 0.999 1.001 "loss of what was written, and of the run"

# Nothing is predicted from a window's last token: of many experts for few tokens, those that it alone is routed to have no gradient.
mkdir many
cp model/tokenizer* many
sed 's/"num_experts": 7/"num_experts": 64/; s/"num_hidden_layers": 2/"num_hidden_layers": 3/' model/config.json >many/config.json
run few 1 model_path=many init=random quantizer=absmean calibration_sequence_length=16 enable_fine_tuning=false reconstruct=false
grep -q ' passed: .* of experts without tokens have none' few.log || complain "the gradient-flow test of few tokens: $(grep -A 1 'gradient flow' few.log)"

# The router row of experts 0 and 1 is opposed to that of 2 and 3, and that of 6 is 0: for any token two others come before expert 6,
# however products are rounded.
python3 - trained/dequantized_fp16/model.safetensors <<'END'
import json, struct, sys
data = bytearray(open(sys.argv[1], "rb").read())
(length,) = struct.unpack("<Q", data[:8])
header = json.loads(data[8 : 8 + length])
for layer in range(2):
    at = 8 + length + header["model.layers.%d.mlp.gate.weight" % layer]["data_offsets"][0]
    row = bytes(data[at : at + 96])
    opposed = bytes(b ^ (i % 2 << 7) for i, b in enumerate(row)) # fp16
    for expert, values in (1, row), (2, opposed), (3, opposed), (6, bytes(96)):
        data[at + 96 * expert : at + 96 * (expert + 1)] = values
open(sys.argv[1], "wb").write(data)
END
unreached() { # unreached QUANTIZER
    run "$1" 1 model_path="$TMP/trained/dequantized_fp16" quantizer="$1" enable_fine_tuning=false reconstruct=false
    grep -q 'no token was routed to 2 of 14 experts: expert 6 of layer 0, expert 6 of layer 1;' "$TMP/$1.log" ||
        complain "$1: the experts without a token are not named: $(grep -i expert "$TMP/$1.log")"
    grep -q "quantizer \"$1\": calibration reached no token of 6 matrices of experts" "$TMP/$1.log" ||
        complain "$1: nothing says how matrices without statistics are quantized"
    grep -q 'Experts  *2 of 7 for each token' "$TMP/$1.log" || complain "$1: no line for experts in the final table"
    for file in results compression_metadata; do
        grep -qE '^[[:space:]]{2}"unused":[[:space:]]*2$' "$TMP/$1/$file.json" || complain "$1: $file.json does not say that 2 experts got no token"
    done
    [ "$(number "$1" gradient_flow_test tensors_unused)" -ge 6 ] || complain "$1: the gradient-flow test knows of no unused experts"
    grep -q '"passed":[[:space:]]*true' <(sed -n '/"gradient_flow_test"/,/}/p' "$TMP/$1/results.json") ||
        complain "$1: the gradient-flow test failed"
}
for quantizer in exact-diagonal gptq-cd; do
    spawn unreached $quantizer
done
join
