#!/usr/bin/env python3
"""llama.cpp on a GGUF file: milliseconds a token of a prompt, and of one token at a time behind it.

    peer_generate.py MODEL.gguf THREADS PROMPT_TOKENS TOKENS        prints "PROMPT GENERATION"

Needs cyllama, llama.cpp in a Python package. Nothing but the decoding is timed: no sampling, no text. Called by
run_generate_bench.sh.
"""
import sys
import time

from cyllama.llama import llama_cpp as llama

BATCH = 512


def main():
    path, threads, prompt, tokens = sys.argv[1], *(int(word) for word in sys.argv[2:5])
    llama.disable_logging()
    model_params = llama.LlamaModelParams()
    model_params.n_gpu_layers = 0
    model = llama.LlamaModel(path, model_params)
    params = llama.LlamaContextParams()
    params.n_ctx, params.n_batch = prompt + tokens + 8, BATCH
    params.n_threads = params.n_threads_batch = threads
    context = llama.LlamaContext(model, params)
    batch = llama.LlamaBatch(n_tokens=BATCH, embd=0, n_seq_max=1)
    ids = [(7919 * i + 3) % 1000 + 3 for i in range(prompt + tokens)]

    def seconds(part, past):
        batch.set_batch(part, past, False)
        start = time.perf_counter()
        context.decode(batch)
        context.synchronize()
        return time.perf_counter() - start

    seconds(ids[:2], 0)
    context.kv_cache_clear(True)
    prompt_s = sum(seconds(ids[at:min(at + BATCH, prompt)], at) for at in range(0, prompt, BATCH))
    text_s = sum(seconds([ids[prompt + i]], prompt + i) for i in range(tokens))
    print(f"{1e3 * prompt_s / prompt:.3f} {1e3 * text_s / tokens:.3f}")


main()
