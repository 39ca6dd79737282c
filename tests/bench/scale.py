#!/usr/bin/env python3
"""Writes docs/scale.md: plans of three Llama models and a mixture of experts on 1 to 1,024 GPUs, each from config.json alone.

usage: tests/bench/scale.py PHASE4_MPI [docs/scale.md]

What was measured, and its plans, come from tests/test_plan_time beside PHASE4_MPI.
"""
import json
import os
import resource
import subprocess
import sys
import tempfile

MODELS = [
    ("7B", dict(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=32,
                vocab_size=32000)),
    ("70B", dict(hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64, num_key_value_heads=8,
                 vocab_size=128256)),
    ("405B", dict(hidden_size=16384, intermediate_size=53248, num_hidden_layers=126, num_attention_heads=128,
                  num_key_value_heads=8, vocab_size=128256)),
    ("30B, a mixture of 128 experts", dict(architectures=["Qwen3MoeForCausalLM"], model_type="qwen3_moe", hidden_size=2048,
                                           intermediate_size=6144, moe_intermediate_size=768, num_experts=128, num_experts_per_tok=8,
                                           norm_topk_prob=True, num_hidden_layers=48, num_attention_heads=32, num_key_value_heads=4,
                                           head_dim=128, vocab_size=151936, decoder_sparse_step=1, mlp_only_layers=[])),
]
DEVICES = [("H100", "80G"), ("H200", "141G")]
RANKS = [1, 8, 64, 256, 1024]
CONFIG = dict(device="cuda", calibration_dataset="custom", calibration_files=["text.jsonl"], train_files=["text.jsonl"],
              eval_files=["eval.jsonl"], calibration_samples=1024, eval_samples=256, calibration_sequence_length=2048,
              calibration_batch_size=1, global_batch_tokens=4 << 20, fine_tune_max_steps=1000, reconstruct_window=1,
              optimizer_state="bf16", wandb_enabled=False)
HEAD = """# Large models and many GPUs

This page is made by `tests/bench/scale.py` from `phase4_mpi --plan`, and its comparison from `tests/test_plan_time.c`. None of the runs of
7B parameters and more was made. A plan takes the memory from the functions by which a run takes it, so the bytes of a GPU are those of
a run but for attention's workspace, which is an upper bound. The times come from the model below, which was compared with runs of
models up to 1.7B parameters on one and two GPUs. For large models on many GPUs they say no more than an order of magnitude.

Each plan: 1,024 windows of 2,048 tokens to calibrate and reconstruct on, 256 to evaluate, 1,000 training steps of 4,194,304 tokens
with Muon and distillation, `optimizer_state` `bf16`, `reconstruct_window` 1, `calibration_batch_size` 1. `recompute`, `micro_batch_size`
and `distill_teacher` are left to the plan.

## The model of time and communication

- A kernel takes the time of a small kernel, 5 us, and beyond that its operations at the rate of products, 680 TFLOP/s, or its
  bytes at the rate of memory, 4.27 TB/s on an H200 and 3.0 TB/s on an H100, whichever is longer.
- The kernels are counted as the program launches them: in a block 7 to 16 forward and 14 to 22 back, twice with `recompute`
  `blocks`, and forward again for a teacher; head and loss for each chunk of logits; 17 for Muon's matrices of one shape; and those
  that square gradients, quantize and unpack.
- Attention runs at half the rate of products. Muon's products are 5 (3 m^2 n + m^3) operations for a matrix of m by n, m <= n.
- On CPUs the rates of products count all the work of a pass, so that nothing but operations, and what an update reads and writes
  of the weights, takes time.
- The ranks of a pipeline, and those that share windows, divide the operations evenly. The pipeline fills and drains once a pass.
- A ring over n ranks moves 2 (n-1)/n of what is summed to all, and (n-1)/n of what is summed to its owner or published by it.
- Eight GPUs of a node are joined by NVLink, taken as 360 GB/s each way. Beyond a node the slowest link counts:
  InfiniBand NDR, 400 Gbit/s a GPU, taken as 45 GB/s. Neither latency nor other jobs on the network is in the model, which makes
  many ranks look better than they are.
- Gradient sums run beside the backward pass, two thirds of what a micro-batch takes: that of the last micro-batch or, with
  `zero_stage` 2, of each. What is left of them is waited for, and on CPUs all. Codes and the sums of embeddings, head and norms are waited for whole.

The rate of memory is what copies reach ([Speed](speed.md#1-ceilings)). The rate of products and the time of a kernel are those, of a
grid of values, with which the plans of the runs marked "fitted" come nearest to what was measured. The other rows were not used for
that. How the model counts kernels was settled with all rows in view but those of the mixture, the dense model beside it and the Qwen3.

Fine-tuning and reconstruction of models with up to 12 layers are the timing in `results.json` of runs of the recipe `quality` on random
weights and random tokens: 4,096 steps of 2,048 tokens with Muon and a resident teacher, evaluated twice; 640 steps of 16 windows for
every two blocks. Windows have 512 tokens; 512 windows calibrate and 100 evaluate. The whole runs are those of a batch on one GPU, in
which no process starts anew; models that were not fine-tuned there, as quantizing random weights had cost them little, are left out.
The fine-tuning of the GPT-2 with 12 layers is of an earlier version. The reconstruction of the Llama with 22 layers is that of 512
windows of 2,048 tokens, with 128 steps for every two blocks. The steps are 100 of those that [GPUs](gpus.md#measured-speed) and
[Speed](speed.md#2-goals) report, the mixture and its neighbors in 5.11; those of GPT-2 on an H200 are of an earlier version.

| model | work | GPUs | measured | planned | |
|---|---|---|---|---|---|
"""
TABLE = """| GPUs | most of a GPU | where | fits | training step | whole run | CPU time of the plan |
|---|---|---|---|---|---|---|
"""


def plan(program, folder, memory, ranks, extra):
    started = resource.getrusage(resource.RUSAGE_CHILDREN)
    text = subprocess.run([program, "--plan", "--json", os.path.join(folder, "cfg.json"), "--ranks", str(ranks),
                           "--device-memory", memory] + extra, check=True, capture_output=True, text=True).stdout
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return json.loads(text), ended.ru_utime + ended.ru_stime - started.ru_utime - started.ru_stime


def gib(bytes_):
    return f"{bytes_ / 2**30:,.1f} GiB"


def hours(seconds):
    return f"{seconds:,.1f} s" if seconds < 120 else f"{seconds / 60:,.1f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def row(p, made_s):
    most = max(p["ranks_planned"], key=lambda rank: rank["device_peak"]["bytes"])["device_peak"]
    step = p["stages"]["fine_tune"]["seconds"] / p["training_steps"]
    fits = "yes" if p["fits"] else f"no; with `{p['advice']}`" if p["advice"] else "no"
    speeds = (hours(step), hours(p["seconds"])) if p["fits"] else ("", "")
    return f"| {p['ranks']:,} | {gib(most['bytes'])} | {most['stage']} | {fits} | {speeds[0]} | {speeds[1]} | {made_s:.2f} s |\n"


def main():
    program, out = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "docs/scale.md"
    compared = subprocess.run([os.path.join(os.path.dirname(program), "tests/test_plan_time")], check=True, capture_output=True, text=True)
    text = HEAD + "".join(line + "\n" for line in compared.stdout.splitlines() if line.startswith("| ")) + "\n"
    with tempfile.TemporaryDirectory() as folder:
        for name, shape in MODELS:
            model = dict(architectures=["LlamaForCausalLM"], model_type="llama", hidden_act="silu", max_position_embeddings=8192,
                         rms_norm_eps=1e-5, rope_theta=500000.0, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2) | shape
            os.makedirs(os.path.join(folder, name))
            with open(os.path.join(folder, name, "config.json"), "w", encoding="utf-8") as file:
                json.dump(model, file)
            with open(os.path.join(folder, "cfg.json"), "w", encoding="utf-8") as file:
                json.dump(dict(CONFIG, model_path=os.path.join(folder, name), output_path=os.path.join(folder, "out")), file)
            for device, memory in DEVICES:
                plans = [plan(program, folder, memory, ranks, []) for ranks in RANKS]
                last = plans[-1][0]
                least = f"{last['least_ranks']:,}" if last["least_ranks"] else f"none up to {last['ranks_tried']:,}"
                text += f"## {name} on {device} ({memory}B)\n\n{TABLE}" + "".join(row(*p) for p in plans)
                text += f"\nSmallest number of GPUs that fits with these keys: {least}. "
                disk = last["disk"]
                text += f"Outputs: {gib(disk['outputs'])}; a checkpoint: {gib(disk['checkpoint'])}.\n\n"
    with open(out, "w", encoding="utf-8") as file:
        file.write(text.rstrip() + "\n")


if __name__ == "__main__":
    main()
