#!/usr/bin/env python3
"""The peers of phase4_bench on a GPU: PyTorch doing the same work, at the same shapes, in the same run.

A line is "peer PROGRAM | what | figure unit | note", where `what` says which line of phase4_bench it belongs to; a
peer that cannot run prints a line that begins with "# failed" and the others go on. Medians after a warm-up (and
after compiling). Models come from tests/bench/models with random weights, tokens are random.

Needs: torch, and transformers for the training peers. --device cpu --small only checks that the program works.
"""
import argparse
import gc
import json
import os
import signal
import statistics
import time

import torch
import torch.nn.functional as F

from peer_distill import DistillLoss, rows_loss

HERE = os.path.dirname(os.path.abspath(__file__))
THRESHOLD = 0.1  # of the absmean rule
DISTILL, CHUNK = 0.9, 4096  # weight of the distillation, rows of logits at a time
GIB = 2**30


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peers", nargs="*", metavar="PEER", help="all unless named: " + ", ".join(PEERS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny sizes and models/demo.json")
    parser.add_argument("--steps", type=int, default=8, help="timed training steps")
    parser.add_argument("--limit", type=int, default=120, help="seconds for one peer")
    parser.add_argument("--whole", action="store_true",
                        help="compile the whole model in one piece: a longer start than block by block")
    return parser.parse_args()


def line(program, what, figure, unit, note):
    print(f"peer {program} | {what} | {figure:.4g} {unit} | {note}" if figure < 1000 else
          f"peer {program} | {what} | {figure:.0f} {unit} | {note}", flush=True)


def wait():
    if ARGUMENTS.device == "cuda":
        torch.cuda.synchronize()


def seconds_of(work, calls):
    wait()
    started = time.perf_counter()
    for _ in range(calls):
        work()
    wait()
    return time.perf_counter() - started


def measure(work):
    """Seconds of one call: the median of 5 measurements of about 20 ms each, calls queued back to back."""
    seconds_of(work, 3)
    calls = max(1, min(2000, int(0.02 / (seconds_of(work, 3) / 3))))
    return statistics.median(seconds_of(work, calls) / calls for _ in range(5))


# --- ceilings -----------------------------------------------------------------------------------------------


def peer_copy():
    count = 2**24 if ARGUMENTS.small else 2**31
    a = torch.randint(0, 127, (count,), dtype=torch.int8, device=ARGUMENTS.device)
    b = torch.empty_like(a)
    rate = 2 * count / measure(lambda: b.copy_(a)) * 1e-9
    line("torch", "copy", rate, "GB/s", f"{count >> 20} MiB read and written")


def peer_gemm():
    n = 256 if ARGUMENTS.small else 8192
    a, b = (torch.randn(n, n, device=ARGUMENTS.device, dtype=torch.bfloat16) for _ in range(2))
    line("torch", "gemm bf16", 2 * n**3 / measure(lambda: a @ b) * 1e-12, "TFLOP/s", f"{n}^3")
    a, b = (torch.randint(-127, 127, (n, n), device=ARGUMENTS.device, dtype=torch.int8) for _ in range(2))
    b = b.t()
    line("torch", "gemm int8", 2 * n**3 / measure(lambda: torch._int_mm(a, b)) * 1e-12, "TOP/s", f"{n}^3")


# --- ternarise ----------------------------------------------------------------------------------------------


def pack(sign):
    """t in -1, 0, 1 -> 2-bit codes t + 1, four a byte, low bits first."""
    u = (sign + 1).to(torch.uint8).view(sign.shape[0], -1, 4)
    return u[..., 0] | (u[..., 1] << 2) | (u[..., 2] << 4) | (u[..., 3] << 6)


def absmean(w):
    values = w.float()
    scale = values.abs().mean(1, keepdim=True).clamp_min(1e-8)
    return pack(torch.where(values.abs() >= THRESHOLD * scale, torch.sign(values), 0.0)), scale.half()


def exact(w):
    """The least-squares set of each row, by sorting."""
    values = w.float()
    ordered = values.abs().sort(1, descending=True).values
    sums = ordered.cumsum(1)
    counts = torch.arange(1, w.shape[1] + 1, device=w.device, dtype=torch.float32)
    best = (sums * sums / counts).argmax(1, keepdim=True)
    cut = ordered.gather(1, best)
    scale = sums.gather(1, best) / (best + 1)
    return pack(torch.where(values.abs() >= cut, torch.sign(values), 0.0)), scale.half()


def ternarise(name, rule, programs):
    rows, cols = (256, 512) if ARGUMENTS.small else (65536, 8192)
    w = (0.02 * torch.randn(rows, cols, device=ARGUMENTS.device)).to(torch.bfloat16)
    minimal = rows * (2.25 * cols + 2)
    for program in programs:
        work = torch.compile(rule) if program == "torch.compile" else rule
        taken = measure(lambda: work(w))
        line(program, name, minimal / taken * 1e-9, "GB/s", f"{1e3 * taken:.3f} ms, [{rows}, {cols}] bf16")


def peer_ternarise():
    ternarise("ternarise absmean", absmean, ["torch.compile", "torch"])


def peer_ternarise_exact():
    ternarise("ternarise exact", exact, ["torch"])


# --- training -----------------------------------------------------------------------------------------------


class TernaryLinear(torch.nn.Linear):
    """Straight-through: ternary weights by the absmean rule, inputs rounded to int8 per token if int8 is set."""

    int8 = False

    def forward(self, x):
        w = self.weight
        scale = w.float().abs().mean(1, keepdim=True).clamp_min(1e-8)
        q = torch.where(w.float().abs() >= THRESHOLD * scale, torch.sign(w.float()) * scale, 0.0).to(w.dtype)
        if self.int8:
            s = 127.0 / x.abs().amax(-1, keepdim=True).clamp_min(1e-5)
            x = x + ((x * s).round().clamp(-128, 127) / s - x).detach()
        return F.linear(x, w + (q - w).detach(), self.bias)


def load_config(name):
    from transformers import AutoConfig
    with open(os.path.join(HERE, "models", name + ".json"), encoding="utf-8") as file:
        values = json.load(file)
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    config.use_cache = False
    if ARGUMENTS.small:
        config.num_hidden_layers = 2
    return config


def make_model(name):
    from transformers import AutoModelForCausalLM
    with torch.device(ARGUMENTS.device):
        model = AutoModelForCausalLM.from_config(load_config(name), dtype=torch.bfloat16,
                                                 attn_implementation="sdpa")
    return model.train()


def blocks_of(model):
    return model.model.layers if hasattr(model, "model") else model.transformer.h


def compile_model(model):
    if ARGUMENTS.whole:
        model.compile()
        model.base_model.compile()
    else:
        for block in blocks_of(model):
            block.compile()
        model.loss_function = torch.compile(model.loss_function)


def make_distill(model, name):
    """The distilled loss of a batch, weight 0.9, at all positions. The teacher is a plain model of the same shapes,
    resident in bf16."""
    teacher = make_model(name).eval().requires_grad_(False)
    compile_model(teacher)
    rows = torch.compile(rows_loss, dynamic=False)

    def loss_of(ids):
        with torch.no_grad():
            wanted = teacher.base_model(ids).last_hidden_state
        hidden = model.base_model(ids).last_hidden_state
        return DistillLoss.apply(hidden, model.get_output_embeddings().weight, wanted,
                                 teacher.get_output_embeddings().weight, ids, DISTILL, hidden.dtype, CHUNK, rows)

    return loss_of


class Masters:
    """fp32 masters of bf16 parameters, and fp32 gradients clipped to norm 1, as phase4 has them."""

    def __init__(self, parameters):
        self.parameters = list(parameters)
        self.masters = [torch.nn.Parameter(p.detach().float()) for p in self.parameters]
        for master in self.masters:
            master.grad = torch.zeros_like(master)

    def take_gradients(self):
        torch._foreach_copy_([m.grad for m in self.masters], [p.grad for p in self.parameters])
        torch.nn.utils.clip_grad_norm_(self.masters, 1.0, foreach=True)

    @torch.no_grad()
    def give_parameters(self):
        torch._foreach_copy_(self.parameters, self.masters)


def train(name, what, batch, length, ternary=False, int8=False, prepare=None, program="torch.compile", distill=False,
          masters=False):
    """bf16 weights and fused AdamW. masters: its state, masters and gradients in fp32, and clipping, as phase4 has
    them; otherwise everything is bf16, without clipping."""
    if ARGUMENTS.small:
        name, batch, length = "demo" if name != "gpt2" else name, 1, 32
    if ARGUMENTS.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    model = make_model(name)
    if ternary:
        for module in blocks_of(model).modules():
            if type(module) is torch.nn.Linear:
                module.__class__ = TernaryLinear
                module.int8 = int8
    if prepare is not None:
        prepare(model)
    held = Masters(model.parameters()) if masters else None
    trained = held.masters if masters else model.parameters()
    optimizer = torch.optim.AdamW(trained, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    compile_model(model)
    loss_of = make_distill(model, name) if distill else lambda ids: model(input_ids=ids, labels=ids).loss
    ids = torch.randint(0, model.config.vocab_size, (batch, length), device=ARGUMENTS.device)

    def step():
        loss_of(ids).backward()
        if masters:
            held.take_gradients()
        optimizer.step()
        if masters:
            held.give_parameters()
        model.zero_grad(set_to_none=True)

    start = seconds_of(step, 3)
    taken = statistics.median(seconds_of(step, 1) for _ in range(ARGUMENTS.steps))
    line(program, what, batch * length / taken, "tokens/s",
         f"B {batch}, T {length}, {1e3 * taken:.1f} ms a step, {start:.0f} s to compile")
    if ARGUMENTS.device == "cuda":
        line(program, what + " memory", torch.cuda.max_memory_allocated() / GIB, "GiB", "max_memory_allocated")


def peer_train_llama():
    train("llama1b", "train llama1b ternary int8", 8, 2048, ternary=True, int8=True)


def peer_train_llama_ternary():
    train("llama1b", "train llama1b ternary", 8, 2048, ternary=True)


def peer_train_llama_distill():
    train("llama1b", "train llama1b ternary distill", 8, 2048, ternary=True, distill=True)


def peer_train_llama_distill_masters():
    train("llama1b", "train llama1b ternary distill masters", 8, 2048, ternary=True, distill=True, masters=True)


def peer_train_llama_distill_int8():
    train("llama1b", "train llama1b ternary distill int8", 8, 2048, ternary=True, int8=True, distill=True)


def peer_train_llama_distill_int8_masters():
    train("llama1b", "train llama1b ternary distill int8 masters", 8, 2048, ternary=True, int8=True, distill=True,
          masters=True)


def peer_train_llama_plain():
    train("llama1b", "train llama1b plain", 8, 2048)


def peer_train_torchao():
    from torchao.prototype.quantized_training import bitnet_training
    from torchao.quantization import quantize_
    train("llama1b", "train llama1b ternary int8", 8, 2048, program="torchao",
          prepare=lambda model: quantize_(blocks_of(model), bitnet_training()))


def peer_train_gpt2():
    train("gpt2", "train gpt2 plain", 32, 1024)


# --- Muon ---------------------------------------------------------------------------------------------------


def peer_muon():
    config = load_config("demo" if ARGUMENTS.small else "llama1b")
    hidden, wide = config.hidden_size, config.intermediate_size
    kv = hidden // config.num_attention_heads * config.num_key_value_heads
    shapes = [(hidden, hidden), (kv, hidden), (kv, hidden), (hidden, hidden), (wide, hidden), (wide, hidden),
              (hidden, wide)]
    parameters = []
    for _ in range(config.num_hidden_layers):
        for shape in shapes:
            parameter = torch.nn.Parameter(0.02 * torch.randn(shape, device=ARGUMENTS.device))
            parameter.grad = 1e-3 * torch.randn(shape, device=ARGUMENTS.device)
            parameters.append(parameter)
    optimizer = torch.optim.Muon(parameters, lr=1e-9, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    count = sum(p.numel() for p in parameters)
    taken = measure(optimizer.step)
    line("torch.optim.Muon", "muon llama1b", 1e3 * taken, "ms", f"{count / 1e6:.0f} M parameters, fp32")


# --- all ----------------------------------------------------------------------------------------------------

PEERS = {"copy": peer_copy, "gemm": peer_gemm, "ternarise": peer_ternarise, "muon": peer_muon,
         "train_llama": peer_train_llama, "train_gpt2": peer_train_gpt2,
         "train_llama_ternary": peer_train_llama_ternary, "train_llama_distill": peer_train_llama_distill,
         "train_llama_distill_masters": peer_train_llama_distill_masters,
         "train_llama_distill_int8": peer_train_llama_distill_int8,
         "train_llama_distill_int8_masters": peer_train_llama_distill_int8_masters,
         "train_llama_plain": peer_train_llama_plain, "train_torchao": peer_train_torchao,
         "ternarise_exact": peer_ternarise_exact}


def out_of_time(_signal, _frame):
    raise TimeoutError(f"more than {ARGUMENTS.limit} s")


def main():
    unknown = [name for name in ARGUMENTS.peers if name not in PEERS]
    if unknown:
        raise SystemExit(f"no such peer: {', '.join(unknown)}; there are {', '.join(PEERS)}")
    torch.manual_seed(1)
    torch.backends.cuda.matmul.allow_tf32 = False
    signal.signal(signal.SIGALRM, out_of_time)
    print(f"# torch {torch.__version__} on "
          f"{torch.cuda.get_device_name() if ARGUMENTS.device == 'cuda' else ARGUMENTS.device}", flush=True)
    for name in ARGUMENTS.peers or PEERS:
        try:
            signal.alarm(ARGUMENTS.limit)
            PEERS[name]()
        except Exception as error:  # one peer that cannot run must not take the others with it
            message = (str(error).splitlines() or [""])[0]
            print(f"# failed: {name}: {type(error).__name__}: {message}", flush=True)
        finally:
            signal.alarm(0)
        torch._dynamo.reset()
        gc.collect()
        if ARGUMENTS.device == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    ARGUMENTS = parse_arguments()
    main()
