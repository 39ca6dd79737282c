#!/usr/bin/env bash
# Small models of families other than the demo's, trained here by the program from random weights: each is quantized,
# reconstructed and fine-tuned with the original as teacher, on 1 and 2 ranks, and the dequantized model that is written predicts
# as the run said.
set -eu
. "$(dirname "$0")/job.sh"
cd "$TMP"
demo 400

# config FAMILY: config.json of a small model that has what the family's blocks have and the demo's have not.
config() {
    python3 - "$1" <<'END'
import json, sys
family = sys.argv[1]
common = {"model_type": family, "vocab_size": 1024, "hidden_size": 48, "intermediate_size": 112, "num_hidden_layers": 2,
          "num_attention_heads": 3, "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 0, "torch_dtype": "float32"}
grouped = {"num_key_value_heads": 1, "head_dim": 24}
print(json.dumps(common | {
    "qwen3": grouped | {"architectures": ["Qwen3ForCausalLM"], "rope_theta": 10000.0, "tie_word_embeddings": True},
    "gemma3_text": grouped | {"architectures": ["Gemma3ForCausalLM"], "query_pre_attn_scalar": 24, "sliding_window": 16,
                              "rope_theta": 10000.0, "layer_types": ["sliding_attention", "full_attention"]},
    "phi": {"architectures": ["PhiForCausalLM"], "partial_rotary_factor": 0.5, "hidden_act": "gelu_new"},
    "cohere": {"architectures": ["CohereForCausalLM"], "num_key_value_heads": 1, "logit_scale": 2.0, "rope_theta": 10000.0},
    "falcon": {"architectures": ["FalconForCausalLM"], "new_decoder_architecture": True, "num_attention_heads": 4, "num_kv_heads": 2,
               "bias": True, "ffn_hidden_size": 112},
    "gpt_neox": {"architectures": ["GPTNeoXForCausalLM"], "rotary_pct": 0.5},
    "olmo3": {"architectures": ["Olmo3ForCausalLM"], "num_key_value_heads": 1, "sliding_window": 16, "rms_norm_eps": 1e-6,
              "layer_types": ["sliding_attention", "full_attention"],
              "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}},
    "olmo2": {"architectures": ["Olmo2ForCausalLM"], "num_key_value_heads": 1, "rms_norm_eps": 1e-6},
}[family]))
END
}

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
    sed -n "/\"$2\":/,/}/s/.*\"$3\":[[:space:]]*\([0-9.e+-]*\).*/\1/p" "$1/results.json" | head -n 1
}
within() { # within A B LOW HIGH WHAT: LOW * B < A < HIGH * B
    awk -v a="$1" -v b="$2" -v l="$3" -v h="$4" 'BEGIN {exit !(a > 0 && b > 0 && a > l * b && a < h * b)}' ||
        complain "$5: $1, expected $3 to $4 times $2"
}
run() { # run NAME RANKS [key=value ...]
    local name=$1 ranks=$2
    shift 2
    on_ranks "$ranks" "$PHASE4_MPI" "$TMP/common.json" output_path="$name" "$@" || complain "$name: failed"
}

family() { # family NAME: everything, in the current directory
    mkdir model
    cp "$TMP"/demo/model/tokenizer* model
    config "$1" >model/config.json
    run trained 1 model_path=model init=random quantizer=none fine_tune_max_steps=60 calibration_samples=0 save_quantized=false
    within "$(number trained final loss)" "$(number trained pre_compression loss)" 0.1 0.8 "$1: loss after training, and before"
    for ranks in 1 2; do
        run "small$ranks" $ranks model_path=trained/dequantized_fp16 quantizer=absmean sparsity_threshold=0.5 distill=0.9 fine_tune_lr=1e-3 \
            fine_tune_max_steps=12 reconstruct=true reconstruct_steps=12 reconstruct_lr=5e-3
        within "$(number "small$ranks" reconstruction loss_after)" "$(number "small$ranks" reconstruction loss_before)" 0 0.95 \
            "$1: error of the first block after reconstruction, and before"
        within "$(number "small$ranks" final loss)" "$(number "small$ranks" post_compression loss)" 0.1 1 \
            "$1: loss after fine-tuning, and before"
        within "$(number "small$ranks" pre_compression loss)" "$(number trained final loss)" 0.998 1.002 \
            "$1: loss of the original as it was read, and as it was trained"
        grep -q '"passed":[[:space:]]*true' <(sed -n '/"gradient_flow_test"/,/}/p' "small$ranks/results.json") ||
            complain "$1: the gradient-flow test failed"
    done
    within "$(number small1 final loss)" "$(number small2 final loss)" 0.99 1.01 "$1: loss on 1 rank and on 2"
    run again 1 model_path=small1/dequantized_fp16 quantizer=none enable_fine_tuning=false calibration_samples=0
    within "$(number again pre_compression loss)" "$(number small1 final loss)" 0.999 1.001 "$1: loss of what was written, and of the run"
}

for name in qwen3 gemma3_text gpt_neox phi cohere falcon olmo2 olmo3; do
    spawn family $name
done
join
