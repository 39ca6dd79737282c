#!/usr/bin/env python3
"""Training speed of the peer: PyTorch on the CPU, eager, float32, transformers' model with SDPA attention.

A step is what a step of phase4 is: forward with the loss, backward, clip by the global norm, optimizer. The
model is a Hugging Face directory (its weights, or random ones when it holds only config.json); the ids are
random, the same for every step. The last line is "peer: N tokens/s median ..."; run_train_bench.sh reads the
number before "tokens/s".

Needs: pip install torch 'transformers>=4.56'
"""
import argparse
import math
import os
import statistics
import time


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, help="Hugging Face directory")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10, help="timed steps, after 2 to warm up")
    parser.add_argument("--quantizer", choices=["none", "absmean", "exact"], default="none")
    parser.add_argument("--optimizer", choices=["adamw", "mugrokfast"], default="adamw",
                        help="mugrokfast: Muon for the matrices of blocks; Grokfast itself is off on both sides")
    parser.add_argument("--teacher", choices=["none", "resident"], default="none",
                        help="resident: distillation from a second, unquantized model, as in phase4_bench")
    parser.add_argument("--distill", type=float, default=0.9, help="weight of the distillation")
    return parser.parse_args()


ARGUMENTS = parse_arguments()
os.environ["OMP_NUM_THREADS"] = str(ARGUMENTS.threads)

import torch  # noqa: E402  (reads the number of threads when it is imported)
import torch.nn.functional as F  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402

from peer_distill import DistillLoss, rows_loss  # noqa: E402


def quantize(weight, method):
    """Ternary weight with one scale a row: the rules of src/quant.c, written as PyTorch expressions."""
    magnitude = weight.abs()
    if method == "absmean":
        scale = magnitude.mean(dim=1, keepdim=True).clamp(min=1e-8)
        keep = magnitude >= 0.05 * scale
    else:
        ordered = magnitude.sort(dim=1, descending=True).values
        sums = ordered.cumsum(dim=1)
        count = torch.arange(1, weight.shape[1] + 1, dtype=weight.dtype)
        best = (sums * sums / count).argmax(dim=1, keepdim=True)
        scale = sums.gather(1, best) / (best + 1)
        keep = magnitude >= ordered.gather(1, best)
    return torch.where(keep, weight.sign() * scale.half().float(), torch.zeros(()))


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, method):
        return quantize(weight, method)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


class TernaryLinear(torch.nn.Linear):
    method = "exact"

    def forward(self, inputs):
        return F.linear(inputs, StraightThrough.apply(self.weight, self.method), self.bias)


class Muon:
    """Muon for the block matrices, with the 0.2 * sqrt(max(rows, cols)) rule."""

    def __init__(self, matrices, lr):
        self.matrices, self.lr = matrices, lr
        self.momentum = [torch.zeros_like(matrix) for matrix in matrices]

    @staticmethod
    def orthogonalise(update):
        x = update / (update.norm() + 1e-7)
        tall = x.shape[0] > x.shape[1]
        x = x.T if tall else x
        for _ in range(5):
            a = x @ x.T
            x = torch.addmm(x, torch.addmm(a, a, a, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
        return x.T if tall else x

    @torch.no_grad()
    def step(self):
        for matrix, momentum in zip(self.matrices, self.momentum):
            momentum.mul_(0.95).add_(matrix.grad)
            update = self.orthogonalise(matrix.grad + 0.95 * momentum)
            matrix.sub_(update, alpha=self.lr * 0.2 * math.sqrt(max(matrix.shape)))


def load_model(arguments, quantizer):
    has_weights = any(name.endswith(".safetensors") for name in os.listdir(arguments.model))
    options = {"attn_implementation": "sdpa", "dtype": torch.float32}
    if has_weights:
        model = AutoModelForCausalLM.from_pretrained(arguments.model, **options)
    else:
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(arguments.model), **options)
    model.config.use_cache = False
    if quantizer != "none":
        TernaryLinear.method = quantizer
        for layer in model.model.layers:
            for module in layer.modules():
                if type(module) is torch.nn.Linear:
                    module.__class__ = TernaryLinear
    return model.train()


def make_optimizers(model, arguments):
    muon = arguments.optimizer == "mugrokfast"
    blocks = {id(p) for p in model.model.layers.parameters() if muon and p.ndim == 2}
    matrices = [p for p in model.parameters() if id(p) in blocks]
    others = [p for p in model.parameters() if id(p) not in blocks]
    optimizers = [torch.optim.AdamW(others, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0, fused=True)]
    return optimizers + ([Muon(matrices, 1e-3)] if matrices else [])


def make_loss(model, arguments):
    """The loss of a batch of ids: cross-entropy, or distillation at all positions."""
    if arguments.teacher == "none":
        return lambda ids: model(input_ids=ids, labels=ids).loss
    teacher = load_model(arguments, "none").eval().requires_grad_(False)

    def loss_of(ids):
        with torch.no_grad():
            wanted = teacher.base_model(ids).last_hidden_state
        hidden = model.base_model(ids).last_hidden_state
        return DistillLoss.apply(hidden, model.get_output_embeddings().weight, wanted,
                                 teacher.get_output_embeddings().weight, ids, arguments.distill, hidden.dtype, 512,
                                 rows_loss)

    return loss_of


def main():
    arguments = ARGUMENTS
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    model = load_model(arguments, arguments.quantizer)
    loss_of = make_loss(model, arguments)
    optimizers = make_optimizers(model, arguments)
    ids = torch.randint(0, model.config.vocab_size, (arguments.batch, arguments.length))
    seconds = []
    for _ in range(2 + arguments.steps):
        started = time.perf_counter()
        loss_of(ids).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - started)
    rates = sorted(arguments.batch * arguments.length / s for s in seconds[2:])
    print(f"peer: {statistics.median(rates):.1f} tokens/s median ({rates[0]:.1f} to {rates[-1]:.1f}) of "
          f"{arguments.steps} steps, PyTorch {torch.__version__}, {arguments.batch} x {arguments.length}, "
          f"{arguments.threads} threads, {arguments.quantizer}, {arguments.optimizer}"
          f"{', distilled' if arguments.teacher != 'none' else ''}")


if __name__ == "__main__":
    main()
