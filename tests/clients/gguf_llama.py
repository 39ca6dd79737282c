#!/usr/bin/env python3
"""model.gguf in llama.cpp against dequantized_fp16 in transformers: tokens, perplexity and greedy text.

    gguf_llama.py OUTPUT_DIR... --text FILE [--tokens N] [--loss-bound RATIO] [--greedy N]

Each OUTPUT_DIR holds both models. Both read the same tokens; llama.cpp's activations are int8 in products with ternary
matrices, so its numbers differ a little. A model without a tokenizer reads random tokens, and greedy text is compared
where the reference does not hesitate: at each token its two best logits differ by more than the two programs do.
"""
import argparse
import math
import os
import sys

import llama_cpp
import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer


class Llama:
    """One sequence in llama.cpp's C API."""

    def __init__(self, path):
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        assert self.model, f"{path}: llama.cpp does not load it"
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.positions = min(1024, llama_cpp.llama_model_n_ctx_train(self.model))
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = self.positions
        params.n_threads = params.n_threads_batch = 2
        params.type_k = params.type_v = 0  # fp32
        params.flash_attn_type = 0  # off
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        assert self.context, f"{path}: llama.cpp makes no context"
        self.vocab_count = llama_cpp.llama_vocab_n_tokens(self.vocab)

    def encode(self, text):
        data = text.encode()
        ids = (llama_cpp.llama_token * (len(data) + 8))()
        count = llama_cpp.llama_tokenize(self.vocab, data, len(data), ids, len(ids), True, True)
        return list(ids[:count])

    def logits(self, ids, first):
        """Logits [len(ids), V] of tokens at positions `first` and on."""
        batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i] = int(token)
            batch.pos[i] = first + i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = 1
        assert llama_cpp.llama_decode(self.context, batch) == 0, "llama_decode failed"
        rows = llama_cpp.llama_get_logits(self.context)
        flat = np.ctypeslib.as_array(rows, shape=(len(ids) * self.vocab_count,))
        result = flat.reshape(len(ids), self.vocab_count).copy()
        llama_cpp.llama_batch_free(batch)
        return result

    def close(self):
        llama_cpp.llama_free(self.context)
        llama_cpp.llama_model_free(self.model)

    def forget(self):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)


@llama_cpp.llama_log_callback
def QUIET(level, text, user):
    if os.environ.get("VERBOSE"):
        print(text.decode(errors="replace"), end="")


def loss_of(logits, ids):
    logits = torch.from_numpy(logits).double()
    return torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:])).item()


def reference_logits(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].float().numpy()


def compare_tokens(llama, directory, text):
    if not any(os.path.exists(f"{directory}/{name}") for name in ["tokenizer.json", "tokenizer.model"]):
        return np.random.default_rng(1).integers(0, llama.vocab_count, 4096).tolist()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    ids, want = llama.encode(text), tokenizer(text)["input_ids"]
    first = next((i for i, pair in enumerate(zip(ids, want)) if pair[0] != pair[1]), min(len(ids), len(want)))
    assert ids == want, f"tokens differ from place {first} of {len(want)}: {ids[first:first + 5]}, {want[first:first + 5]}"
    print(f"  {len(ids)} tokens, the same in both")
    return ids


def compare_loss(llama, model, ids, window, count, bound):
    losses, worst, squares, spread = [], 0.0, [], 0.0
    for at in range(0, min(count, len(ids) - 1), window):
        part = ids[at:at + window]
        if len(part) < 2:
            break
        llama.forget()
        got, want = llama.logits(part, 0), reference_logits(model, part)
        worst = max(worst, float(np.abs(got - want).max()))
        squares.append(float(np.square(got - want).mean()))
        spread = max(spread, float(want.std()))
        losses.append((loss_of(got, part), loss_of(want, part), len(part) - 1))
    total = sum(n for _, _, n in losses)
    got, want = (math.exp(sum(row[k] * row[2] for row in losses) / total) for k in (0, 1))
    ratio = got / want - 1
    print(f"  perplexity of {total} tokens: llama.cpp {got:.5g}, transformers {want:.5g} ({100 * ratio:+.3f} %); "
          f"logits differ by up to {worst:.3g}, their deviation is {spread:.3g}")
    assert abs(ratio) <= bound, f"perplexity differs by more than {100 * bound} %"
    assert math.sqrt(max(squares)) <= 0.1 * spread, f"logits differ by {math.sqrt(max(squares)):.3g} on average"
    return worst


def compare_greedy(llama, model, prompt, count, noise):
    """Ids chosen by both; where the reference is undecided the two are led on with its choice."""
    ids, equal, undecided = list(prompt), 0, 0
    llama.forget()
    logits = llama.logits(ids, 0)[-1]
    for _ in range(count):
        want = reference_logits(model, ids)[-1]
        best = np.partition(want, -2)[-2:]
        token = int(want.argmax())
        if int(logits.argmax()) == token:
            equal += 1
        else:
            undecided += 1
            gap = float(best[1] - best[0])
            assert gap <= 2 * noise, f"token {len(ids)}: {logits.argmax()} instead of {token}, {gap:.3g} apart"
        ids.append(token)
        logits = llama.logits([token], len(ids) - 1)[0]
    print(f"  greedy: {equal} of {count} tokens the same" + (f", {undecided} undecided" if undecided else ""))


def compare(output, arguments):
    print(f"{output}:", flush=True)
    directory = f"{output}/dequantized_fp16"
    llama = Llama(f"{output}/model.gguf")
    window = min(256, llama.positions // 2)
    config = AutoConfig.from_pretrained(directory)
    if config.pad_token_id is not None and config.pad_token_id >= config.vocab_size:
        config.pad_token_id = None  # the family's default, which a small vocabulary does not have; nothing is padded here
    model = AutoModelForCausalLM.from_pretrained(directory, config=config, dtype=torch.float32,
                                                 attn_implementation="eager",
                                                 experts_implementation="eager").eval()  # experts of any width
    with open(arguments.text, encoding="utf-8") as file:
        text = file.read(40000)
    ids = compare_tokens(llama, directory, text)
    noise = compare_loss(llama, model, ids, window, min(arguments.tokens, 16 * window), arguments.loss_bound)
    compare_greedy(llama, model, ids[:min(16, window // 2)], min(arguments.greedy, window // 2), noise)
    llama.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("outputs", nargs="+")
    parser.add_argument("--text", required=True)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--loss-bound", type=float, default=0.005)
    parser.add_argument("--greedy", type=int, default=32)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    llama_cpp.llama_log_set(QUIET, None)
    llama_cpp.llama_backend_init()
    failed = []
    for output in arguments.outputs:
        try:
            compare(output, arguments)
        except AssertionError as error:
            print(f"  FAILED: {error}")
            failed.append(output)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
