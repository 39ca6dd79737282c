#!/usr/bin/env python3
"""The small models on which the recipe's values are chosen (docs/quality.md 2), and many runs on them.

  quality_models.py make --build BUILD_DIR --models DIR --text NAME TRAIN VALID... [--only MODEL...]
  quality_models.py run  --build BUILD_DIR --models DIR --text NAME TRAIN VALID... --runs FILE

--text names a text, "code" or "man": its training and its validation file (.jsonl, compressed or not, field text).
make trains a byte-level BPE tokenizer on the training texts and then, by phase4_mpi itself (init random, quantizer
none), a GPT-2 or Llama of each row of MODELS, all at once on one device: tiny, code, man and mix are those of
section 2.1, code and man8 those of 2.2. run reads lines of FILE:

  name model key=value...

where model is a name of MODELS, which has its text, or a directory, whose files the keys then give; "#" begins a
comment. It keeps --jobs runs going at once and prints one line for each as it ends.

Needs: make: pip install tokenizers.
"""
import argparse
import collections
import gzip
import json
import os
import shutil
import subprocess
import time

LENGTH, VOCABULARY, END = 512, 8192, "<|endoftext|>"
Model = collections.namedtuple("Model", "config texts steps")  # the first of the texts is the one to evaluate on


def llama(width, layers, heads, kv_heads, mlp):
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": width,
            "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
            "intermediate_size": mlp, "max_position_embeddings": LENGTH, "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0, "hidden_act": "silu"}


def gpt2(width, layers, heads):
    return {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": width, "n_layer": layers,
            "n_head": heads, "n_positions": LENGTH, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5}


MODELS = {"tiny": Model(gpt2(128, 4, 4), ["man"], 3000),
          "code": Model(llama(256, 8, 4, 2, 768), ["code"], 2500),
          "man": Model(gpt2(512, 6, 8), ["man"], 2500),
          "man8": Model(gpt2(256, 8, 4), ["man"], 2500),
          "mix": Model(llama(768, 6, 12, 4, 2048), ["code", "man"], 2000)}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["make", "run"])
    parser.add_argument("--build", required=True)
    parser.add_argument("--models", required=True, help="directory of the models")
    parser.add_argument("--text", nargs=3, action="append", default=[], metavar=("NAME", "TRAIN", "VALID"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--steps", type=int, default=0, help="make: of each model; 0: those of MODELS")
    parser.add_argument("--runs", metavar="FILE", help="run: what to run")
    parser.add_argument("--jobs", type=int, default=8, help="run: so many at once")
    parser.add_argument("--work", default="quality_runs", help="run: logs, results and tokenized text")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="run: after these nothing is started")
    arguments = parser.parse_args()
    arguments.text = {name: (train, valid) for name, train, valid in arguments.text}
    if arguments.command == "run" and arguments.runs is None:
        parser.error("run needs --runs FILE")
    return arguments


def text_keys(arguments, name):
    """The keys that give a model of MODELS its text."""
    texts = MODELS[name].texts
    missing = [text for text in texts if text not in arguments.text]
    if missing:
        raise SystemExit(f"model {name} needs --text {missing[0]} TRAIN VALID")
    train = [arguments.text[text][0] for text in texts]
    return {"calibration_dataset": "custom", "calibration_files": train, "train_files": train,
            "eval_files": [arguments.text[texts[0]][1]], "eval_samples": 400, "calibration_sequence_length": LENGTH}


def start(arguments, config, keys=()):
    """phase4_mpi with a configuration beside its output directory."""
    output = config["output_path"]
    with open(output + ".json", "w", encoding="utf-8") as file:
        json.dump(config, file, indent=1)
    environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    with open(output + ".log", "w", encoding="utf-8") as log:
        return subprocess.Popen([os.path.join(arguments.build, "phase4_mpi"), output + ".json", *keys], stdout=log,
                                stderr=subprocess.STDOUT, env=environment)


def read_results(output):
    with open(os.path.join(output, "results.json"), encoding="utf-8") as file:
        return json.load(file)


def last_line(output):
    with open(output + ".log", encoding="utf-8", errors="replace") as file:
        lines = file.read().splitlines()
    return lines[-1] if lines else "no output"


# --- make ---------------------------------------------------------------------------------------------------


def open_text(path):
    if path.endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8")
    if path.endswith(".zst"):
        raise SystemExit(f"{path}: make trains the tokenizer on plain or .gz files")
    return open(path, encoding="utf-8")


def train_tokenizer(arguments, directory):
    """tokenizer.json and tokenizer_config.json; the end-of-text token has id 0."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    texts = []
    for train, _ in arguments.text.values():
        with open_text(train) as file:
            texts += [json.loads(line)["text"] for line in file]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=[END], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != VOCABULARY:
        raise SystemExit(f"the text yields {tokenizer.get_vocab_size()} tokens, expected {VOCABULARY}: give more text")
    os.makedirs(directory, exist_ok=True)
    tokenizer.save(os.path.join(directory, "tokenizer.json"))
    with open(os.path.join(directory, "tokenizer_config.json"), "w", encoding="utf-8") as file:
        json.dump({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": END, "eos_token": END}, file, indent=1)


def write_architecture(directory, config, tokenizer):
    shutil.copytree(tokenizer, directory, dirs_exist_ok=True)
    with open(os.path.join(directory, "config.json"), "w", encoding="utf-8") as file:
        json.dump(dict(config, vocab_size=VOCABULARY, tie_word_embeddings=True, bos_token_id=0, eos_token_id=0,
                       torch_dtype="float32"), file, indent=1)


def make(arguments):
    tokenizer = os.path.join(arguments.models, "tokenizer")
    texts = {name: text_keys(arguments, name) for name in arguments.only}
    train_tokenizer(arguments, tokenizer)
    running = {}
    for name in arguments.only:
        output = os.path.join(arguments.models, name)
        write_architecture(output + "-architecture", MODELS[name].config, tokenizer)
        running[name] = start(arguments, dict(
            texts[name], model_path=output + "-architecture", output_path=output, overwrite=True, init="random",
            quantizer="none", device=arguments.device, calibration_samples=0, fine_tune_epochs=1000,
            fine_tune_max_steps=arguments.steps or MODELS[name].steps, fine_tune_lr=2e-3, lr_final_fraction=0.02,
            warmup_steps=200, optimizer="adamw", weight_decay=0.1, global_batch_tokens=16384, log_every=500, save_quantized=False,
            wandb_enabled=False))
    failed = 0
    for name, process in running.items():
        output = os.path.join(arguments.models, name)
        if process.wait() != 0:
            failed += 1
            print(f"{name:6s} exit status {process.returncode}: {last_line(output)}", flush=True)
            continue
        results = read_results(output)
        print(f"{name:6s} perplexity {results['fine_tuning']['final_perplexity']:.3f}, "
              f"{results['metrics']['total_params'] / 1e6:.1f}M parameters, {results['timing']['total']:.0f} s: "
              f"{output}/dequantized_fp16", flush=True)
    return failed


# --- run ----------------------------------------------------------------------------------------------------


def start_run(arguments, name, model, keys):
    output = os.path.join(arguments.work, name)
    config = {"model_path": model}
    if model in MODELS:
        config = dict(text_keys(arguments, model),
                      model_path=os.path.join(arguments.models, model, "dequantized_fp16"))
    config.update(output_path=output, overwrite=True, device=arguments.device, wandb_enabled=False, log_every=500,
                  save_dequantized_fp16=False, save_quantized=False,
                  token_cache=os.path.join(arguments.work, "tokens"))
    return start(arguments, config, keys)


def describe(name, keys, status, output, seconds):
    """The table's line of a run that ended."""
    if status != 0:
        return f"{name:24s} exit status {status}: {last_line(output)}"
    results = read_results(output)
    original, quantized = (results[key]["perplexity"] for key in ("pre_compression", "post_compression"))
    tuned, timing = results["fine_tuning"], results["timing"]
    final = tuned["final_perplexity"] if tuned else quantized  # after the last step: it may not be the best
    return (f"{name:24s} {original:8.3f} {quantized:9.3f} {final:8.3f} {100 * (final / original - 1):+7.1f} % | "
            f"{seconds:4.0f} s, reconstruct {timing.get('reconstruct', 0):.1f}, fine-tune "
            f"{timing.get('fine_tune', 0):.1f} | {' '.join(keys)}")


def run(arguments):
    with open(arguments.runs, encoding="utf-8") as file:
        todo = [line.split() for line in file if line.strip() and not line.startswith("#")]
    names = [line[0] for line in todo]
    if any(len(line) < 2 for line in todo) or len(set(names)) != len(names):
        raise SystemExit(f"{arguments.runs}: expected lines \"name model key=value...\" with different names")
    os.makedirs(arguments.work, exist_ok=True)
    began, running, failed = time.perf_counter(), {}, 0
    print(f"{'run':24s} original quantized   result  change", flush=True)
    try:
        while todo or running:
            late = time.perf_counter() - began >= arguments.seconds
            if late and todo:
                print("left out, no time:", " ".join(line[0] for line in todo), flush=True)
                todo = []
            while todo and len(running) < arguments.jobs:
                name, model, *keys = todo.pop(0)
                running[name] = (start_run(arguments, name, model, keys), time.perf_counter(), keys)
            for name, (process, started, keys) in list(running.items()):
                if process.poll() is not None:
                    del running[name]
                    failed += process.returncode != 0
                    print(describe(name, keys, process.returncode, os.path.join(arguments.work, name),
                                   time.perf_counter() - started), flush=True)
            time.sleep(0.05)
    finally:
        for process, _, _ in running.values():  # where this program fails or is interrupted
            process.terminate()
    return failed


def main():
    arguments = parse_arguments()
    failed = make(arguments) if arguments.command == "make" else run(arguments)
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
