#!/usr/bin/env python3
"""The records of a run for Weights & Biases and TensorBoard, read by these programs' own readers.

    watchers.py OUTPUT_DIR

Both must hold what metrics.jsonl holds: every line once, in order, with the same values.
"""
import glob
import json
import math
import os
import sys

output = sys.argv[1]
KEYS = {"train": ("loss", "kl", "lr", "grad_norm", "tokens_per_s"), "evaluation": ("loss", "perplexity", "accuracy", "kl", "agreement"),
        "reconstruct": ("loss_before", "loss_after")}
GROUPS = {"pre": "original", "post": "evaluation", "fine_tune": "evaluation", "final": "final"}


def expected():
    """(group, step, {key: value}) of each line of metrics.jsonl."""
    with open(f"{output}/metrics.jsonl") as lines:
        for line in map(json.loads, lines):
            kind = line["kind"]
            group = GROUPS[line["stage"]] if kind == "evaluation" else kind
            step = line["first_block" if kind == "reconstruct" else "step"]
            yield group, step, {key: line[key] for key in KEYS[kind] if line[key] is not None}


def near(a, b):
    return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-30)


def check_wandb():
    from google.protobuf.unknown_fields import UnknownFieldSet
    from wandb.proto import wandb_internal_pb2
    from wandb.sdk.internal.datastore import DataStore
    files = glob.glob(f"{output}/wandb/offline-run-*/run-*.wandb")
    assert len(files) == 1, files
    store = DataStore()
    store.open_for_scan(files[0])
    records = []
    while (data := store.scan_data()) is not None:
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        assert len(UnknownFieldSet(record)) == 0, record
        records.append(record)
    kinds = [record.WhichOneof("record_type") for record in records]
    assert kinds[:2] == ["header", "run"] and kinds[-3:] == ["exit", "final", "footer"], kinds
    assert [record.num for record in records] == list(range(1, len(records) + 1))
    run = records[1].run
    assert files[0].endswith(f"-{run.run_id}/run-{run.run_id}.wandb"), files[0]
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    with open(f"{output}/phase4_config.json") as file:
        assert config == json.load(file)
    assert run.project == config["wandb_project"]
    history = [{item.key: json.loads(item.value_json) for item in record.history.item}
               for record in records if record.WhichOneof("record_type") == "history"]
    want = list(expected())
    assert len(history) == len(want), (len(history), len(want))
    for index, (line, (group, step, values)) in enumerate(zip(history, want)):
        assert line["_step"] == index, line
        assert line["reconstruct/block" if group == "reconstruct" else "train/step"] == step, line
        for key, value in values.items():
            assert near(line[f"{group}/{key}"], value), (line, key, value)
    runtimes = [line["_runtime"] for line in history]
    assert runtimes == sorted(runtimes), "time runs backwards"
    summary = {}
    for record in records:
        for item in record.summary.update:
            summary[item.key] = json.loads(item.value_json)
    with open(f"{output}/results.json") as file:
        results = json.load(file)
    assert summary["quality/passed"] == results["quality"]["passed"]
    assert summary["metrics/compression_ratio"] == results["metrics"]["compression_ratio"]
    listed = [file.path for record in records for file in record.files.files]
    assert listed == ["report.html"], listed
    with open(f"{output}/report.html", "rb") as one, open(f"{os.path.dirname(files[0])}/files/report.html", "rb") as other:
        assert one.read() == other.read()
    assert records[-3].exit.exit_code == 0
    print(f"  wandb: run {run.run_id}, {len(records)} records, {len(history)} lines of history, {len(summary)} values of the summary")


def check_tensorboard():
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    events = EventAccumulator(f"{output}/tensorboard", size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    want = {}
    for group, step, values in expected():
        for key, value in values.items():
            want.setdefault(f"{group}/{key}", []).append((step, value))
    tags = events.Tags()
    for tag, points in want.items():
        got = [(event.step, event.value) for event in events.Scalars(tag)]
        assert [step for step, _ in got] == [step for step, _ in points], (tag, got, points)
        assert all(near(a, b) for (_, a), (_, b) in zip(got, points)), (tag, got, points)
    assert "configuration" in tags["tensors"] or "configuration/text_summary" in tags["tensors"], tags
    print(f"  tensorboard: {len(want)} curves, {sum(map(len, want.values()))} points")


check_wandb()
check_tensorboard()
