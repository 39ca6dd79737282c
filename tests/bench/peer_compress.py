#!/usr/bin/env python3
"""The peer of a whole phase4 run: its method with AdamW (docs/methods.md 1, 3 and 3.1) in PyTorch on one GPU.

Load, tokenize, evaluate; reconstruct the blocks two at a time from the calibration windows; evaluate; fine-tune from
the reconstructed masters with distillation from the original; evaluate; write the FP16 model. Masters and optimizer
are fp32, products bf16 (autocast), attention is SDPA's causal kernel, AdamW is fused. The models are small, so what a
step costs is mostly launching kernels: --mode says what is done about that.

  eager           nothing
  graph           the whole step (forward, backward, clipping, AdamW) is one CUDA graph; on a CPU as eager
  compile         the blocks and the loss are compiled
  compiled-graph  both: the fastest step, but compiling takes longer than a short training does

The last line is JSON: seconds of each stage and of all from the start of the interpreter, perplexities, peak memory.
What it leaves out beside phase4: statistics of activations, KL and intervals, packed codes, the gradient-flow test.

Needs: pip install torch 'transformers>=5' tokenizers. Families: Llama, Qwen3, GPT-2.
"""
import time

STARTED = time.perf_counter()

import argparse  # noqa: E402  (imports count)
import contextlib  # noqa: E402
import copy  # noqa: E402
import gzip  # noqa: E402
import json  # noqa: E402
import math  # noqa: E402
import os  # noqa: E402
import random  # noqa: E402
import shutil  # noqa: E402

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402
from transformers.pytorch_utils import Conv1D  # noqa: E402
from transformers.utils.logging import disable_progress_bar  # noqa: E402

from peer_distill import DistillLoss, rows_loss  # noqa: E402

THRESHOLD, DISTILL, CLIP = 0.5, 0.9, 1.0
WINDOW, PASSES, SEQUENCES, RECONSTRUCT_LR, RECONSTRUCT_WARMUP, WARMUP = 2, 20, 16, 1e-3, 20, 50
EVAL_BATCH = 32
CHUNK = 8192  # rows of logits at a time


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="Hugging Face directory")
    parser.add_argument("--train", required=True, nargs="+", help=".jsonl or .jsonl.gz, field text")
    parser.add_argument("--eval", required=True, nargs="+", help="the same")
    parser.add_argument("--output", required=True, help="directory for the FP16 model")
    parser.add_argument("--calibration-samples", type=int, default=512)
    parser.add_argument("--eval-samples", type=int, default=0, help="evaluation windows; 0: all")
    parser.add_argument("--length", type=int, default=512, help="tokens of a window")
    parser.add_argument("--steps", type=int, default=500, help="of fine-tuning; 0: none")
    parser.add_argument("--batch-tokens", type=int, default=2048, help="tokens of a step of fine-tuning")
    parser.add_argument("--reconstruct-steps", type=int, default=0, help="per pair of blocks; 0: 20 passes")
    parser.add_argument("--lr", type=float, default=0.0, help="of fine-tuning; 0: phase4's rule \"auto\"")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--mode", choices=["eager", "graph", "compile", "compiled-graph"], default="graph")
    return parser.parse_args()


class Machine:
    """Where and how to compute."""

    def __init__(self, arguments):
        self.device = torch.device(arguments.device)
        self.cuda = self.device.type == "cuda"
        self.dtype = torch.bfloat16 if self.cuda else torch.float32
        self.graph = self.cuda and "graph" in arguments.mode
        self.compile = "compile" in arguments.mode
        self.rows = torch.compile(rows_loss, dynamic=False) if self.compile else rows_loss
        self.block = torch.compile(call_block, dynamic=False) if self.compile else call_block

    def autocast(self):
        return torch.autocast("cuda", dtype=self.dtype) if self.cuda else contextlib.nullcontext()

    def synchronize(self):
        if self.cuda:
            torch.cuda.synchronize()


# --- text ---------------------------------------------------------------------------------------------------


def read_texts(paths):
    texts = []
    for path in paths:
        with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8") as file:
            texts += [json.loads(line)["text"] for line in file]
    return texts


def make_windows(tokenizer, texts, end_of_text, length, count):
    """[windows, length]: at most `count` of them, after which no more text is tokenized; 0: all."""
    ids, most = [], count * length if count else math.inf
    for at in range(0, len(texts), 512):
        for encoding in tokenizer.encode_batch_fast(texts[at:at + 512], add_special_tokens=False):
            ids += encoding.ids
            ids.append(end_of_text)
        if len(ids) >= most:
            break
    windows = len(ids) // length
    windows = min(windows, count) if count else windows
    return torch.tensor(ids[:windows * length]).view(windows, length)


def load_text(arguments, config, machine):
    tokenizer = Tokenizer.from_file(os.path.join(arguments.model, "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    end = config.eos_token_id[0] if isinstance(config.eos_token_id, list) else config.eos_token_id
    texts = read_texts(arguments.train)
    random.Random(arguments.seed).shuffle(texts)
    batch = arguments.batch_tokens // arguments.length
    needed = max(arguments.calibration_samples, arguments.steps * batch)
    train = make_windows(tokenizer, texts, end, arguments.length, needed)
    valid = make_windows(tokenizer, read_texts(arguments.eval), end, arguments.length, arguments.eval_samples)
    return train.to(machine.device), valid.to(machine.device)


# --- ternary layers -----------------------------------------------------------------------------------------


def ternarize(weight, inputs):
    """sign * scale by the absmean rule with one scale per output; `inputs` is the dimension of the inputs."""
    scale = weight.abs().mean(inputs, keepdim=True).clamp_min(1e-8)
    return torch.where(weight.abs() >= THRESHOLD * scale, weight.sign() * scale.half().float(), 0.0)


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, inputs):
        return ternarize(weight, inputs)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


class TernaryLinear(torch.nn.Linear):
    inputs = 1

    def forward(self, x):
        return F.linear(x, StraightThrough.apply(self.weight, 1), self.bias)


class TernaryConv1D(Conv1D):
    """GPT-2 keeps its weights as [in, out]."""

    inputs = 0

    def forward(self, x):
        return F.linear(x, StraightThrough.apply(self.weight, 0).t(), self.bias)


def make_ternary(blocks):
    classes = {torch.nn.Linear: TernaryLinear, Conv1D: TernaryConv1D}
    for module in blocks.modules():
        module.__class__ = classes.get(type(module), type(module))


# --- the model ----------------------------------------------------------------------------------------------


def call_block(block, x, context):
    """One block without a mask: SDPA then takes its causal kernel."""
    output = block(x, **context)
    return output[0] if isinstance(output, tuple) else output


class Decoder:
    """The parts of a Hugging Face model, called one by one. The residual stream has the machine's dtype."""

    def __init__(self, model, machine):
        if model.config.model_type not in ("llama", "qwen3", "gpt2"):
            raise SystemExit(f"{model.config.model_type}: expected llama, qwen3 or gpt2")
        self.model, self.base, self.machine = model, model.base_model, machine
        self.is_gpt2 = model.config.model_type == "gpt2"
        self.blocks = self.base.h if self.is_gpt2 else self.base.layers
        self.norm = self.base.ln_f if self.is_gpt2 else self.base.norm
        self.head = model.get_output_embeddings().weight
        self.contexts = {}

    def embed(self, ids):
        if self.is_gpt2:
            positions = torch.arange(ids.shape[1], device=ids.device)
            return (self.base.wte(ids) + self.base.wpe(positions)).to(self.machine.dtype)
        return self.base.embed_tokens(ids).to(self.machine.dtype)

    def context(self, x):
        """What blocks need beside x: rotary angles, computed once per length."""
        length = x.shape[1]
        if not self.is_gpt2 and length not in self.contexts:
            positions = torch.arange(length, device=x.device)[None]
            self.contexts[length] = {"position_embeddings": self.base.rotary_emb(x, positions)}
        return self.contexts.get(length, {})

    def run(self, blocks, x, block=call_block):
        context = self.context(x)
        with self.machine.autocast():
            for each in blocks:
                x = block(each, x, context)
        return x

    def hidden(self, ids, block=call_block):
        x = self.run(self.blocks, self.embed(ids), block)
        with self.machine.autocast():
            return self.norm(x)


@torch.no_grad()
def perplexity(decoder, windows):
    total = torch.zeros((), dtype=torch.float64, device=windows.device)
    head = decoder.head.to(decoder.machine.dtype)
    for ids in windows.split(EVAL_BATCH):
        x = decoder.hidden(ids)[:, :-1].flatten(0, 1).to(head.dtype)
        total += F.cross_entropy((x @ head.t()).float(), ids[:, 1:].flatten(), reduction="none").double().sum()
    return math.exp(total.item() / (windows.shape[0] * (windows.shape[1] - 1)))


# --- steps --------------------------------------------------------------------------------------------------


class TrainStep:
    """Forward, backward, clipping and AdamW on fixed buffers: copy a batch to `buffers`, set `lr`, call run()."""

    def __init__(self, loss_of, parameters, buffers, weight_decay, machine):
        self.loss_of, self.parameters, self.buffers = loss_of, list(parameters), buffers
        self.lr = torch.zeros((), device=machine.device)
        groups = [{"params": [p for p in self.parameters if p.ndim > 1], "weight_decay": weight_decay},
                  {"params": [p for p in self.parameters if p.ndim <= 1], "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=self.lr, betas=(0.9, 0.95), eps=1e-8, fused=True,
                                           capturable=machine.graph)
        self.graph = None
        if machine.graph:
            self.capture()

    def compute(self):
        loss = self.loss_of(*self.buffers)
        loss.backward()
        self.loss = loss.detach()  # the autograd graph must not outlive the step: capture makes a new one
        torch.nn.utils.clip_grad_norm_(self.parameters, CLIP)
        self.optimizer.step()

    def capture(self):
        """With a learning rate of 0 and real data, so that warming up changes no weight."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.optimizer.zero_grad(set_to_none=True)
                self.compute()
        torch.cuda.current_stream().wait_stream(stream)
        self.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            self.compute()
        self.graph = graph
        self.reset()

    @torch.no_grad()
    def reset(self):
        """The optimizer's state is that of the start."""
        for state in self.optimizer.state.values():
            for value in state.values():
                value.zero_()

    def run(self, lr):
        self.lr.fill_(lr)
        if self.graph is not None:
            self.graph.replay()
        else:
            self.optimizer.zero_grad(set_to_none=True)
            self.compute()


def schedule(peak, warmup, step, steps):
    return peak * min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))


def batches(windows, batch, steps, seed):
    """Indices [batch] on the windows' device, pass after pass, each in an order of its own."""
    generator = torch.Generator().manual_seed(seed)
    per_pass = max(1, windows.shape[0] // batch)
    for step in range(steps):
        if step % per_pass == 0:
            order = torch.randperm(windows.shape[0], generator=generator).to(windows.device)
        at = step % per_pass * batch
        yield order[at:at + batch]


# --- reconstruction -----------------------------------------------------------------------------------------


class BlockTrainer:
    """Trains a copy of a few blocks; other blocks of the same shape are loaded into it, so that what was captured
    and compiled serves all of them."""

    def __init__(self, student, blocks, states, target):
        self.student, self.machine = student, student.machine
        self.blocks = copy.deepcopy(blocks)
        self.scale = torch.ones((), device=states.device)  # 1 / mean square of the target
        batch = states[:SEQUENCES]
        self.step = TrainStep(self.loss_of, self.blocks.parameters(), [batch.clone(), target[:SEQUENCES].clone()],
                              0.0, self.machine)

    def loss_of(self, x, target):
        x = x.detach().requires_grad_(self.machine.compile)  # the first block is then compiled as the others are
        output = self.student.run(self.blocks, x, self.machine.block)
        return F.mse_loss(output.float(), target.float()) * self.scale

    @torch.no_grad()
    def measure(self, states, target):
        total = torch.zeros((), device=states.device)
        for x, wanted in zip(states.split(SEQUENCES), target.split(SEQUENCES)):
            total += (self.student.run(self.blocks, x).float() - wanted.float()).square().sum()
        return (total * self.scale).item() / target.numel()

    def train(self, blocks, states, target, steps, seed):
        """The relative error before and after; `blocks` gets the result if it is better."""
        self.blocks.load_state_dict(blocks.state_dict())
        self.scale.copy_(1 / target.float().square().mean())
        self.step.reset()
        before = self.measure(states, target)
        x, wanted = self.step.buffers
        for step, picked in enumerate(batches(states, SEQUENCES, steps, seed)):
            torch.index_select(states, 0, picked, out=x)
            torch.index_select(target, 0, picked, out=wanted)
            self.step.run(schedule(RECONSTRUCT_LR, RECONSTRUCT_WARMUP, step, steps))
        after = self.measure(states, target)
        if after < before:
            blocks.load_state_dict(self.blocks.state_dict())
        return before, after


@torch.no_grad()
def advance(decoder, blocks, states):
    return torch.cat([decoder.run(blocks, x) for x in states.split(SEQUENCES)])


def reconstruct(original, student, windows, arguments):
    steps = arguments.reconstruct_steps or PASSES * max(1, windows.shape[0] // SEQUENCES)
    with torch.no_grad():
        inputs, states = original.embed(windows), student.embed(windows)
    errors, trainers = [], {}
    for first in range(0, len(student.blocks), WINDOW):
        blocks = student.blocks[first:first + WINDOW]
        inputs = advance(original, original.blocks[first:first + WINDOW], inputs)
        if len(blocks) not in trainers:
            trainers[len(blocks)] = BlockTrainer(student, blocks, states, inputs)
        errors.append(trainers[len(blocks)].train(blocks, states, inputs, steps, arguments.seed + first))
        states = advance(student, blocks, states)
    return errors


# --- fine-tuning --------------------------------------------------------------------------------------------


def automatic_lr(tokens, width):
    length = (min(max(tokens, 0.25e6), 16e6) / 16e6) ** 0.75
    return 2e-3 * length * 256 / (min(max(width, 256), 768) * max(1.0, width / 768) ** 2)


def fine_tune(original, student, windows, arguments):
    """The loss of the first and of the last steps."""
    machine, batch = student.machine, arguments.batch_tokens // arguments.length
    lr = arguments.lr or automatic_lr(arguments.steps * batch * arguments.length, student.head.shape[1])

    def loss_of(ids):
        with torch.no_grad():
            teacher = original.hidden(ids, machine.block)
        hidden = student.hidden(ids, machine.block)
        return DistillLoss.apply(hidden, student.head, teacher, original.head, ids, DISTILL, machine.dtype, CHUNK,
                                 machine.rows)

    step = TrainStep(loss_of, student.model.parameters(), [windows[:batch].clone()], 0.1, machine)
    losses = torch.zeros(arguments.steps, device=machine.device)
    for at, picked in enumerate(batches(windows, batch, arguments.steps, arguments.seed)):
        torch.index_select(windows, 0, picked, out=step.buffers[0])
        step.run(schedule(lr, WARMUP, at, arguments.steps))
        losses[at] = step.loss
    few = min(20, max(1, arguments.steps // 2))
    return [losses[:few].mean().item(), losses[-few:].mean().item()]


# --- all ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def save(student, arguments):
    for module in student.blocks.modules():
        if isinstance(module, (TernaryLinear, TernaryConv1D)):
            module.weight.copy_(ternarize(module.weight, module.inputs))
    student.model.half().save_pretrained(arguments.output)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if os.path.exists(os.path.join(arguments.model, name)):
            shutil.copy(os.path.join(arguments.model, name), arguments.output)


class Report:
    def __init__(self, machine):
        self.machine, self.seconds, self.perplexity = machine, {}, {}
        self.last = STARTED

    def stage(self, name):
        """The stage that ends now. Errors of queued work appear here."""
        self.machine.synchronize()
        now = time.perf_counter()
        self.seconds[name] = round(now - self.last, 3)
        self.last = now
        print(f"# {name}: {self.seconds[name]} s", flush=True)

    def evaluate(self, name, decoder, windows):
        self.perplexity[name] = round(perplexity(decoder, windows), 4)
        self.stage("evaluate_" + name)


def load(arguments, machine):
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32, attn_implementation="sdpa")
    model = model.to(machine.device).eval()  # eval: no dropout
    teacher = copy.deepcopy(model).requires_grad_(False)
    for parameter in teacher.parameters():  # not the buffers: rotary frequencies stay fp32
        parameter.data = parameter.data.to(machine.dtype)
    original, student = Decoder(teacher, machine), Decoder(model, machine)
    make_ternary(student.blocks)
    return original, student


def main():
    arguments = parse_arguments()
    machine = Machine(arguments)
    report = Report(machine)
    disable_progress_bar()
    report.stage("import")
    original, student = load(arguments, machine)
    report.stage("load")
    train, valid = load_text(arguments, student.model.config, machine)
    report.stage("tokenize")
    report.evaluate("original", original, valid)
    errors = reconstruct(original, student, train[:arguments.calibration_samples], arguments)
    report.stage("reconstruct")
    report.evaluate("reconstructed", student, valid)
    losses = None
    if arguments.steps > 0:
        reconstructed = copy.deepcopy(student.model.state_dict())
        losses = fine_tune(original, student, train, arguments)
        report.stage("fine_tune")
        report.evaluate("fine_tuned", student, valid)
        if report.perplexity["fine_tuned"] > report.perplexity["reconstructed"]:
            student.model.load_state_dict(reconstructed)
    save(student, arguments)
    report.stage("save")
    report.seconds["total"] = round(time.perf_counter() - STARTED, 3)
    print(json.dumps({
        "torch": torch.__version__, "device": torch.cuda.get_device_name() if machine.cuda else "cpu",
        "mode": arguments.mode, "seconds": report.seconds, "perplexity": report.perplexity,
        "windows": {"train": len(train), "valid": len(valid)}, "fine_tune_losses": losses,
        "reconstruction_errors": [[round(e, 6) for e in pair] for pair in errors],
        "peak_memory_mib": torch.cuda.max_memory_allocated() >> 20 if machine.cuda else None}))


if __name__ == "__main__":
    main()
