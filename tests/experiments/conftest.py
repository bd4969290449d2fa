"""Synthetic records, written into a temporary folder: never a result."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Runs = Callable[..., Path]


def synthetic_record(
    row: str, seed: int, val: float, train: float, /, **changes: Any
) -> dict[str, Any]:
    """A finished run's record; `changes` are entries by dotted path, with `__` for the dots."""
    curve = [
        {"step": step, "train/loss_nats": train + 2 / (step / 100), "val/loss_nats": val + rise}
        for step, rise in ((100, 2.0), (200, 0.5), (300, -0.05), (400, 0.0))
    ]
    record: dict[str, Any] = {
        "schema": 1,
        "table": "small_case",
        "row": row,
        "seed": seed,
        "status": "finished",
        "error": None,
        "run_hash": f"{row}{seed}",
        "config": {
            "seed": seed,
            "scale": "nano",
            "dropout": {"name": row},
            "optimizer": {"lr": 2e-3},
        },
        "code": {"commit": "0123456789abcdef", "dirty": False, "code_hash": "c0de" * 16},
        "versions": {"python": "3.11.7", "torch": "2.13.0"},
        "device": {"kind": "cpu", "name": "Example CPU", "threads": 2, "compiled_kernels": True},
        "dtype": "bfloat16",
        "compile": False,
        "data": {
            "fingerprint": "da7a" * 16,
            "source": "sample",
            "revision": None,
            "train_tokens": 123_000,
            "val_tokens": 20_000,
            "files": {"train": "11" * 32, "val": "22" * 32},
            "tokenizer": {"name": "gpt2", "vocab_size": 1024, "sha256": "70ce" * 16},
        },
        "parameters": 540_000,
        "parameters_trainable": 546_144,
        "flops_per_token": 3.6e6,
        "metrics": {
            "train/loss_nats": train,
            "train/loss_stderr": 0.010,
            "val/loss_nats": val,
            "val/loss_stderr": 0.012,
            "val/bits_per_byte": val / 1.7,
            "epoch": 40.0,
            "tokens": 4_915_200,
            "tokens_per_s": 50_000.0,
            "time_s": 98.3,
            "memory_bytes": None,
        },
        "test": {
            "windows": 2048,
            "final": {
                "test/loss_nats": val + 0.01,
                "test/loss_stderr": 0.013,
                "test/bits_per_byte": val / 1.7,
            },
            "best": {"test/loss_nats": val - 0.03},
        },
        "best": {"step": 300, "val/loss_nats": val - 0.05, "train/loss_nats": train + 0.2},
        "curve": curve,
        "steps": 1200,
        "started": "2026-01-01T00:00:00+00:00",
        "finished": "2026-01-01T00:01:38+00:00",
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        entry = record
        for parent in parents:
            entry = entry[parent]
        entry[last] = value
    return record


@pytest.fixture
def make_record() -> Callable[..., dict[str, Any]]:
    return synthetic_record


@pytest.fixture
def write(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    """Write one record where it belongs under tmp_path/runs; returns its path."""

    def write_one(record: dict[str, Any]) -> Path:
        path = tmp_path / "runs" / record["row"] / f"seed{record['seed']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record))
        return path

    return write_one


SMALL_CASE = """
title: A small case
question: Does the table say what its records say?
command: python train.py table=small_case
scale: nano
setting: Three rows, made up.
source: No document.
rows:
  - {name: none, label: none, family: none, published: [{version: later, train: 2.8, val: 3.5}]}
  - name: standard_0.2
    label: standard 0.2
    family: standard
    published: [{version: later, train: 3.1, val: 3.3, note: noisy}]
  - name: learned
    label: learned
    family: learned
    published:
      - {version: later, train: 2.9, val: 3.4, ones: 0.6}
      - {version: first, train: 3.0, val: 3.6, ones: 8.0e-9}
  - {name: unborn, label: unborn, family: learned}
notes: {noisy: evaluated with noise}
comparisons:
  - {against: none}
  - {best_of: [standard_0.2], name: the best standard dropout}
claims:
  - {metric: val, lower: learned, higher: none}
  - {metric: val, lower: standard_0.2, higher: learned}
  - {metric: val, lower: standard_0.2, higher: none}
"""


@pytest.fixture
def small_case(tmp_path: Path) -> str:
    """The path of a table's file with four rows, the last of them never run."""
    path = tmp_path / "small_case.yaml"
    path.write_text(SMALL_CASE)
    return str(path)


@pytest.fixture
def small_runs(tmp_path: Path, write: Callable[[dict[str, Any]], Path]) -> Path:
    """Three seeds of three rows; `learned` failed on the third."""
    for seed, shift in ((1, 0.00), (2, 0.02), (3, 0.01)):
        write(synthetic_record("none", seed, 4.00 + shift, 2.60 + shift))
        write(synthetic_record("standard_0.2", seed, 3.88 + shift * 0.9, 3.37 + shift))
    ones = {"metrics__train/ones": 0.42, "metrics__eval/ones": 0.38, "parameters": 651_000}
    write(synthetic_record("learned", 1, 3.95, 2.78, **ones))
    write(synthetic_record("learned", 2, 3.99, 2.80, **ones))
    failed = synthetic_record("learned", 3, 0.0, 0.0, status="failed")
    for key in ("metrics", "best", "curve", "data"):
        failed[key] = None
    failed["error"] = "loss is nan at step 17 | block3\nsee log.txt"
    write(failed)
    return tmp_path / "runs"
