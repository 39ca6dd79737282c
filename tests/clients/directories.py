#!/usr/bin/env python3
"""The exported directories in the programs that read them, against dequantized_fp16.

    directories.py OUTPUT_DIR [FORMAT...] [--bound FRACTION]

compressed_tensors and bitnet are loaded by transformers, mlx by mlx-lm. Logits of compressed_tensors must equal those of
dequantized_fp16; mlx computes in fp16 and bitnet rounds activations to int8, so weights must be equal and logits near: mlx's
within FRACTION of their deviation (0.1).
"""
import json
import os
import sys

import numpy as np


def reference(output, ids):
    import torch
    from transformers import AutoModelForCausalLM
    torch.set_num_threads(1)
    directory = f"{output}/dequantized_fp16"
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32,
                                                 experts_implementation="eager").eval()  # experts of any width
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].float().numpy()
    return model, logits


def random_ids(output):
    with open(f"{output}/dequantized_fp16/config.json") as file:
        vocabulary = json.load(file)["vocab_size"]
    return np.random.default_rng(2).integers(0, vocabulary, 48).tolist()


def report(name, got, want, bound):
    worst, spread = float(np.abs(got - want).max()), float(want.std())
    print(f"  {name}: logits differ by up to {worst:.3g}, their deviation is {spread:.3g}")
    assert worst <= bound * spread, f"{name}: more than {bound:g} of the deviation"


def check_compressed_tensors(output, _):
    import torch
    from transformers import AutoModelForCausalLM
    ids = random_ids(output)
    model, want = reference(output, ids)
    loaded = AutoModelForCausalLM.from_pretrained(f"{output}/compressed_tensors", dtype=torch.float32).eval()
    with torch.no_grad():
        got = loaded(torch.tensor([ids])).logits[0].float().numpy()
    report("compressed_tensors in transformers", got, want, 1e-5)


def check_bitnet(output, _):
    import torch
    from transformers import AutoModelForCausalLM
    ids = random_ids(output)
    model, want = reference(output, ids)
    loaded = AutoModelForCausalLM.from_pretrained(f"{output}/bitnet", dtype=torch.float32).eval()
    with torch.no_grad():
        got = loaded(torch.tensor([ids])).logits[0].float().numpy()
    report("bitnet in transformers", got, want, 0.5)


def weight_of(weights, name):
    """The weight of a module of mlx-lm; experts, which both programs hold in one tensor, have other names there."""
    before, found, kind = name.partition(".switch_mlp.")
    if not found:
        return weights[f"{name}.weight"].numpy()
    experts = before.replace(".block_sparse_moe", ".mlp") + ".experts."
    if kind == "down_proj":
        return weights[experts + kind].numpy()
    gate, up = np.split(weights[experts + "gate_up_proj"].numpy(), 2, axis=1)
    return gate if kind == "gate_proj" else up


def check_mlx(output, bound):
    import mlx.core as mx
    import mlx.nn
    from mlx_lm.utils import load_model
    from pathlib import Path
    ids = random_ids(output)
    model, want = reference(output, ids)
    mx.set_default_device(mx.cpu)
    loaded, _ = load_model(Path(f"{output}/mlx"))
    quantized = 0
    expected = model.state_dict()
    for name, module in loaded.named_modules():
        if not hasattr(module, "scales"):
            continue
        value = mx.dequantize(module.weight, module.scales, module.biases, module.group_size, module.bits)
        got, weight = np.array(value.astype(mx.float32)), weight_of(expected, name)
        assert np.array_equal(got, weight), f"mlx: {name} differs by {np.abs(got - weight).max():.3g}"
        quantized += 1
    print(f"  mlx: {quantized} quantized matrices equal those of dequantized_fp16")
    assert quantized > 0
    got = np.array(loaded(mx.array([ids])).astype(mx.float32))[0]
    report("mlx-lm", got, want, bound)


def main():
    output, formats, bound = sys.argv[1], sys.argv[2:], 0.1
    if "--bound" in formats:
        at = formats.index("--bound")
        bound = float(formats[at + 1])
        del formats[at:at + 2]
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in formats or ["compressed_tensors", "mlx", "bitnet"]:
        if os.path.isdir(f"{output}/{name}"):
            globals()[f"check_{name}"](output, bound)
        elif formats:
            sys.exit(f"{output}/{name} is not there")


if __name__ == "__main__":
    main()
