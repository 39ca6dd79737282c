#!/usr/bin/env python3
"""Small models for the tests of exports: models.py FIXTURES TARGET

TARGET/NAME is a model directory for phase4_mpi: the fixtures' families, some with the numbers that their released models
have, random mixtures of experts, and random Llamas with the fixtures' tokenizers, whose vocabularies they take.
"""
import json
import os
import shutil
import sys

# Not loaded by transformers 5, which wants hidden_size to be a multiple of the heads. Of phi3-short's two sets of
# factors llama.cpp takes one by the size of the context, transformers by the length of the text.
LEFT_OUT = ["llama-gqa", "llama-linear", "phi3-short"]
# With which a fixture is what llama.cpp computes.
USUAL = {
    "gemma2-caps": {"query_pre_attn_scalar": 8},
    "gemma3-new": {"query_pre_attn_scalar": 6, "layer_types": ["sliding_attention"] * 3},
    "smollm3-plain": {"no_rope_layers": [1, 1, 1], "layer_types": None},
}
# Vocabularies of SentencePiece that training with another library made are refused: they lack merges.
TOKENIZERS = ["tokenizers/gpt2", "tokenizers/smollm", "tokenizers/llama3", "tokenizers/qwen", "tokenizers/llama2",
              "tokenizers/gemma", "tokenizer_directories/bpe_model", "tokenizer_directories/bpe_model_llama"]


def families(fixtures, target):
    for name in sorted(os.listdir(f"{fixtures}/models")):
        if name in LEFT_OUT:
            continue
        shutil.copytree(f"{fixtures}/models/{name}", f"{target}/{name}")
        if name in USUAL:
            path = f"{target}/{name}/config.json"
            with open(path) as file:
                config = json.load(file)
            config.update(USUAL[name])
            with open(path, "w") as file:
                json.dump({key: value for key, value in config.items() if value is not None}, file)


def tokenizers(fixtures, target):
    for source in TOKENIZERS:
        directory = f"{target}/tokenizer-{os.path.basename(source)}"
        shutil.copytree(f"{fixtures}/{source}", directory)
        config = {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 64,
            "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
            "vocab_size": 1024, "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
        }
        with open(f"{directory}/config.json", "w") as file:
            json.dump(config, file)


def mixtures(target):
    """Mixtures of experts whose rows fill the blocks of GGUF: 256 weights, or 64 in the last projection."""
    common = {
        "hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2, "vocab_size": 300,
        "max_position_embeddings": 512, "bos_token_id": 1, "eos_token_id": 2, "dtype": "float32", "rms_norm_eps": 1e-5,
        "rope_theta": 50000.0, "tie_word_embeddings": False,
    }
    models = {
        "qwen3_moe": ("Qwen3MoeForCausalLM", {"head_dim": 48, "intermediate_size": 512, "moe_intermediate_size": 64,
                                              "num_experts": 6, "num_experts_per_tok": 2, "norm_topk_prob": True,
                                              "decoder_sparse_step": 1, "mlp_only_layers": []}),
        "mixtral": ("MixtralForCausalLM", {"intermediate_size": 256, "num_local_experts": 3, "num_experts_per_tok": 2,
                                           "sliding_window": None}),
        "olmoe": ("OlmoeForCausalLM", {"num_key_value_heads": 4, "intermediate_size": 128, "num_experts": 7,
                                       "num_experts_per_tok": 3}),
    }
    for name, (architecture, own) in models.items():
        os.makedirs(f"{target}/blocks-{name}")
        with open(f"{target}/blocks-{name}/config.json", "w") as file:
            json.dump({"architectures": [architecture], "model_type": name, **common, **own}, file)


def positions(target):
    """Rotary scalings and windows that mlx-lm computes as transformers does."""
    common = {
        "hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 4,
        "vocab_size": 300, "max_position_embeddings": 512, "bos_token_id": 1, "eos_token_id": 2, "dtype": "float32",
        "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "head_dim": 32,
    }
    llama3 = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
              "original_max_position_embeddings": 16}
    types = ["sliding_attention", "full_attention"] * 2
    models = {
        "llama-linear": ("LlamaForCausalLM", {"rope_theta": 100.0, "rope_scaling": {"rope_type": "linear", "factor": 3.0}}),
        "llama-llama3": ("LlamaForCausalLM", {"rope_parameters": llama3}),
        "qwen3-yarn": ("Qwen3ForCausalLM", {"attention_bias": False, "use_sliding_window": False, "rope_parameters": {
            "rope_type": "yarn", "rope_theta": 1000.0, "factor": 4.0, "original_max_position_embeddings": 16}}),
        "smollm3-windows": ("SmolLM3ForCausalLM", {"rope_theta": 1000.0, "layer_types": types, "sliding_window": 5,
                                                   "use_sliding_window": True, "no_rope_layers": [1, 1, 0, 1],
                                                   "pad_token_id": None}),
        "gemma3_text-pattern": ("Gemma3ForCausalLM", {
            "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            "sliding_window": 5, "sliding_window_pattern": 2, "query_pre_attn_scalar": 32, "tie_word_embeddings": True,
            "hidden_activation": "gelu_pytorch_tanh"}),
    }
    for name, (architecture, own) in models.items():
        os.makedirs(f"{target}/positions-{name}")
        with open(f"{target}/positions-{name}/config.json", "w") as file:
            json.dump({"architectures": [architecture], "model_type": name.split("-")[0], "hidden_act": "silu", **common, **own},
                      file)


if __name__ == "__main__":
    os.makedirs(sys.argv[2])
    mixtures(sys.argv[2])
    positions(sys.argv[2])
    families(sys.argv[1], sys.argv[2])
    tokenizers(sys.argv[1], sys.argv[2])
