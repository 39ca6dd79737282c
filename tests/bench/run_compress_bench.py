#!/usr/bin/env python3
"""The whole run end to end, phase4 beside PyTorch: the same model, text, windows, steps and method, on one device.

  run_compress_bench.py --build BUILD_DIR --work WORK_DIR --model DIR --train FILE... --eval FILE... [--who WHO...]

WHO is `phase4`, or a --mode of peer_compress.py (graph, compiled-graph, compile, eager). They take turns, ROUNDS
times; a line states the best round's wall time of the process, from its start to its end, and its perplexity. The
peer's compiler has an empty cache in the first round and a full one afterwards. If one fails, the others go on.
Lines have the form of phase4_bench's and of peer_gpu.py's, so that run_gpu_bench.sh makes a table of them.

Needs in the interpreter that runs it: torch, transformers, tokenizers (not for phase4 alone).
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True)
    parser.add_argument("--work", required=True, help="for outputs and logs; what it holds of earlier runs is replaced")
    parser.add_argument("--model", required=True)
    parser.add_argument("--train", required=True, nargs="+")
    parser.add_argument("--eval", required=True, nargs="+")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--calibration-samples", type=int, default=512)
    parser.add_argument("--eval-samples", type=int, default=0, help="evaluation windows; 0: all")
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--reconstruct-steps", type=int, default=0, help="0: 20 passes")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--who", nargs="+", choices=["phase4", "graph", "compiled-graph", "compile", "eager"],
                        default=["phase4", "graph", "compiled-graph"])
    return parser.parse_args()


def timed(command, log):
    """Wall seconds of a command, whose output goes to the file `log`."""
    environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
                       TORCHINDUCTOR_CACHE_DIR=os.path.join(os.path.dirname(log), "inductor"))
    started = time.perf_counter()
    with open(log, "w", encoding="utf-8") as file:
        status = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=environment, check=False).returncode
    seconds = time.perf_counter() - started
    if status != 0:
        with open(log, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
        raise RuntimeError(f"exit status {status}: {lines[-1] if lines else 'no output'}; see {log}")
    return seconds


def run_phase4(arguments):
    """Wall seconds, three perplexities, seconds of the stages."""
    output = os.path.join(arguments.work, "phase4")
    config = {"model_path": arguments.model, "output_path": output, "overwrite": True, "device": arguments.device,
              "calibration_dataset": "custom", "calibration_files": arguments.train, "train_files": arguments.train,
              "eval_files": arguments.eval, "eval_samples": arguments.eval_samples or 100000,
              "calibration_samples": arguments.calibration_samples, "calibration_sequence_length": arguments.length,
              "reconstruct_steps": arguments.reconstruct_steps, "enable_fine_tuning": arguments.steps > 0,
              "fine_tune_threshold": 0, "fine_tune_epochs": 1000, "fine_tune_max_steps": arguments.steps,
              "global_batch_tokens": arguments.batch_tokens, "wandb_enabled": False,
              "optimizer": "adamw", "distill": 0.9}  # as the peer: the recipe's own are Muon and "auto"
    with open(output + ".json", "w", encoding="utf-8") as file:
        json.dump(config, file, indent=1)
    seconds = timed([os.path.join(arguments.build, "phase4_mpi"), output + ".json"], output + ".log")
    with open(os.path.join(output, "results.json"), encoding="utf-8") as file:
        results = json.load(file)
    tuned = results["fine_tuning"]
    return (seconds, results["pre_compression"]["perplexity"], results["post_compression"]["perplexity"],
            tuned["best_perplexity"] if tuned else None, results["timing"])


def run_peer(arguments, mode):
    name = os.path.join(arguments.work, mode)
    command = [sys.executable, os.path.join(HERE, "peer_compress.py"), "--mode", mode, "--output", name,
               "--model", arguments.model, "--device", arguments.device, "--train", *arguments.train,
               "--eval", *arguments.eval]
    for key in ("calibration_samples", "eval_samples", "length", "steps", "batch_tokens", "reconstruct_steps"):
        command += ["--" + key.replace("_", "-"), str(getattr(arguments, key))]
    seconds = timed(command, name + ".log")
    with open(name + ".log", encoding="utf-8") as file:
        results = json.loads(file.readlines()[-1])
    after = results["perplexity"]["reconstructed"]
    tuned = results["perplexity"].get("fine_tuned")
    return (seconds, results["perplexity"]["original"], after, None if tuned is None else min(tuned, after),
            results["seconds"])


def show(who, name, rounds):
    """Two lines, of the best round: the seconds, and the perplexity of the result."""
    seconds, original, after, tuned, stages = min(rounds, key=lambda one: one[0])
    result = after if tuned is None else tuned
    note = ", ".join(f"{key} {value:.2f}" for key, value in stages.items() if value >= 0.05 and key != "total")
    note += " s; wall seconds of all rounds: " + " ".join(f"{one[0]:.2f}" for one in rounds)
    if who == "phase4":
        print(f"compress {name} | {seconds:.2f} s | perplexity {original:.3f} | {after:.3f} -> {result:.3f} | {note}")
        print(f"compress {name} perplexity | {result:.3f} ppl | - | - | best round", flush=True)
    else:
        print(f"peer torch-{who} | compress {name} | {seconds:.2f} s | perplexity {original:.3f}, {after:.3f} -> "
              f"{result:.3f} | {note}")
        print(f"peer torch-{who} | compress {name} perplexity | {result:.3f} ppl | best round", flush=True)


def main():
    arguments = parse_arguments()
    name = os.path.basename(os.path.abspath(arguments.model))
    os.makedirs(arguments.work, exist_ok=True)
    shutil.rmtree(os.path.join(arguments.work, "inductor"), ignore_errors=True)
    print(f"# {arguments.calibration_samples} windows of {arguments.length} to calibrate, {arguments.steps} steps of "
          f"{arguments.batch_tokens} tokens, {arguments.rounds} round(s), {arguments.device}", flush=True)
    rounds = {who: [] for who in arguments.who}
    failed = set()
    for at in range(arguments.rounds):
        for who in arguments.who:
            try:
                if who not in failed:
                    rounds[who].append(run_phase4(arguments) if who == "phase4" else run_peer(arguments, who))
            except RuntimeError as error:
                failed.add(who)
                print(f"# failed: compress by {who}: {error}", flush=True)
            if at == arguments.rounds - 1 and rounds[who]:
                show(who, name, rounds[who])
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
