#!/usr/bin/env python3
"""Quantization speed of the peer: the two rules as PyTorch expressions on [4096, 4096] float32, on the CPU.

Best of several runs, in ms and GB/s of the weight read once; with --ours the program tests/phase4_bench is run
beside it with the same number of threads, and the ratios are printed. Both depend on what else the machine does:
the runs alternate, and the best of each counts.

Needs: pip install torch
"""
import argparse
import os
import re
import subprocess
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--ours", help="the built phase4_bench")
parser.add_argument("--rows", type=int, default=4096, help="phase4_bench ops --shape demo knows 4096 only")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--rounds", type=int, default=3)
arguments = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = str(arguments.threads)

import torch  # noqa: E402  (reads the number of threads when it is imported)

THRESHOLD = 0.1


def absmean(w):
    """The seed's rule: codes and the scale of each row."""
    s = w.abs().mean(1, keepdim=True).clamp(min=1e-8)
    return torch.where(w.abs() >= THRESHOLD * s, torch.sign(w), 0).to(torch.int8), s


def exact(w):
    """The least-squares set of each row, by sorting."""
    magnitude = w.abs()
    ordered, order = magnitude.sort(1, descending=True)
    sums = ordered.double().cumsum(1)
    counts = torch.arange(1, w.shape[1] + 1, dtype=torch.float64)
    best = (sums * sums / counts).argmax(1, keepdim=True)
    cut = ordered.gather(1, best)
    scale = sums.gather(1, best) / (best + 1)
    return torch.where(magnitude >= cut, torch.sign(w), 0).to(torch.int8), scale


def time_peer(rule, w, runs):
    best = float("inf")
    for _ in range(runs):
        start = time.perf_counter()
        rule(w)
        best = min(best, time.perf_counter() - start)
    return best


def time_ours(name):
    """Seconds of one op, without and with the report of its error."""
    command = [arguments.ours, "ops", "--device", "cpu", "--shape", "demo", "--threads", str(arguments.threads),
               "--filter", "quantize_" + name]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = re.findall(r"^ops demo (quantize_\w+) .*\| ([\d.]+) ms,", text, re.M)
    return {op: float(milliseconds) / 1e3 for op, milliseconds in lines}


def main():
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    w = torch.randn(arguments.rows, 4096)
    giga = w.numel() * 4 / 1e9
    for rule, runs in ((absmean, 10), (exact, 2)):
        name, peer, ours = rule.__name__, float("inf"), {}
        for _ in range(arguments.rounds):
            peer = min(peer, time_peer(rule, w, runs))
            for op, seconds in (time_ours(name) if arguments.ours else {}).items():
                ours[op] = min(ours.get(op, seconds), seconds)
        print(f"peer {name}: {peer * 1e3:.1f} ms, {giga / peer:.2f} GB/s")
        for op, seconds in ours.items():
            ratio = f"{peer / seconds:.1f} times the peer's speed"
            print(f"  {op}: {seconds * 1e3:.1f} ms, {giga / seconds:.2f} GB/s, {ratio}")


main()
