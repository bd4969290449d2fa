"""Small real runs, and what has to be equal at their ends."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from common.files import sha256_of
from tracking.checkpoint import best_checkpoint, latest_checkpoint

ROOT = Path(__file__).parents[2]
STEPS = 12

# Learned dropout with stochastic rounding (the default), and two micro-batches a step.
TINY = (
    "tracker=none", "device=cpu", "dtype=float32", f"steps={STEPS}", "save_every=2", "eval_every=3",
    "log_every=1", "batch_size=8", "micro_batch_size=4", "schedule.warmup_steps=2",
    "model.n_layer=2", "model.n_embd=16", "model.n_head=2", "model.block_size=16",
    "data=files", "data.vocab_size=512", "dropout.shift_init=1.5",
    "evaluate.windows=8", "evaluate.final_windows=16", "evaluate.batch_size=8",
)  # fmt: skip
RUN = "*/*/*"  # a run's directory below runs_dir: scale or table, row, seed
TIMINGS = ("time_s", "tokens_per_s", "memory_bytes")

Plant = tuple[str, list[Any]]


@dataclass
class Process:
    """A training run, forked by a nursery."""

    nursery: "Nursery"
    pid: int
    output: Path

    def send(self, signum: signal.Signals) -> None:
        os.kill(self.pid, signum)

    def wait(self) -> int:
        """Its exit code; minus the signal's number where one ended it."""
        code = self.nursery.ask({"wait": self.pid})
        self.nursery.running.remove(self.pid)
        return code

    @property
    def said(self) -> str:
        return self.output.read_text(errors="replace") if self.output.exists() else ""


@dataclass
class Nursery:
    """Starts runs by way of a zygote; used as `with Nursery(directory) as nursery`."""

    directory: Path
    started: int = 0
    running: set[int] = field(default_factory=set)
    _zygote: subprocess.Popen[str] = field(init=False, repr=False)

    def __enter__(self) -> "Nursery":
        write_corpus(self.directory / "articles.jsonl")
        self._zygote = subprocess.Popen(
            [sys.executable, "-m", "tests.soak.zygote"],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        for pid in self.running:  # those of a test that failed
            os.kill(pid, signal.SIGKILL)
        self._zygote.communicate(timeout=60)

    def ask(self, request: dict[str, Any]) -> int:
        assert self._zygote.stdin is not None
        assert self._zygote.stdout is not None
        self._zygote.stdin.write(json.dumps(request) + "\n")
        self._zygote.stdin.flush()
        return int(self._zygote.stdout.readline())

    def start(
        self,
        runs_dir: Path,
        *arguments: str,
        plant: tuple[Plant, ...] = (),
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> Process:
        """Start `python train.py` on the tiny config, with `arguments` after it."""
        self.started += 1
        output = self.directory / f"output{self.started:04d}.txt"
        words = [
            *TINY,
            f"data.paths={self.directory / 'articles.jsonl'}",
            f"data.cache_dir={self.directory / 'tokens'}",
            f"runs_dir={runs_dir}",
            *arguments,
        ]
        request = {"start": words, "plant": plant, "output": str(output)}
        pid = self.ask(request | {"environment": dict(environment)})
        self.running.add(pid)
        return Process(self, pid, output)

    def start_script(self, script: str, *arguments: str) -> Process:
        """Start `python SCRIPT.py`, or `python -m MODULE`, with these arguments alone."""
        self.started += 1
        output = self.directory / f"output{self.started:04d}.txt"
        request = {"start": arguments, "script": script, "plant": (), "output": str(output)}
        pid = self.ask(request)
        self.running.add(pid)
        return Process(self, pid, output)

    def start_ranks(self, n: int, runs_dir: Path, *arguments: str) -> list[Process]:
        """Start the `n` ranks of one run, as torchrun would."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(n)}
        environments = [
            {**shared, "LOCAL_WORLD_SIZE": str(n), "RANK": str(rank), "LOCAL_RANK": str(rank)}
            for rank in range(n)
        ]
        return [self.start(runs_dir, *arguments, environment=one) for one in environments]

    def run(self, runs_dir: Path, *arguments: str, plant: tuple[Plant, ...] = ()) -> Process:
        """Start, wait, and expect a good end."""
        process = self.start(runs_dir, *arguments, plant=plant)
        assert process.wait() == 0, process.said
        return process


def write_corpus(path: Path, n_articles: int = 200) -> None:
    """Articles of some hundred words, the same ones every time."""
    chance = random.Random(0)
    words = ["the", "of", "and", "in", "a", "was", "house", "river", "king", "city", "year", "war"]
    articles = (" ".join(chance.choices(words, k=100)) for _ in range(n_articles))
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in articles))


def run_directory(runs_dir: Path) -> Path:
    """The one run in `runs_dir`."""
    (config,) = runs_dir.glob(f"{RUN}/config.yaml")
    return config.parent


def wait_for_line(runs_dir: Path, process: Process, n: int = 1, timeout_s: float = 300) -> None:
    """Return once the run has written its nth line of metrics: one for step 0, and one a step."""
    deadline = time.monotonic() + timeout_s
    while sum(path.read_bytes().count(b"\n") for path in runs_dir.glob(f"{RUN}/metrics.jsonl")) < n:
        assert time.monotonic() < deadline, process.said
        time.sleep(0.002)


def ending(runs_dir: Path) -> dict[str, Any]:
    """`ending_of` the one run in `runs_dir`."""
    return ending_of(run_directory(runs_dir))


def ending_of(directory: Path) -> dict[str, Any]:
    """All that must not depend on what happened to a run on its way, to the last bit."""
    last = latest_checkpoint(directory / "checkpoints")
    best = best_checkpoint(directory / "checkpoints")
    assert last is not None
    assert best is not None
    record = json.loads((directory / "record.json").read_text())
    assert last.facts["progress"]["step"] == record["steps"]
    assert not list((directory / "checkpoints").glob(".tmp*")), "leftovers of a killed save"
    return {
        "status": record["status"],
        "last": sha256_of(last.path / "tensors.safetensors"),
        "best": (best.path.name, sha256_of(best.path / "tensors.safetensors")),
        "metrics": [_timeless(json.loads(line)) for line in _lines(directory / "metrics.jsonl")],
        "final": _timeless(record["metrics"]),
        "curve": [_timeless(point) for point in record["curve"]],
        "samples": (directory / "media.jsonl").read_text(),
    }


def training_s(runs_dir: Path) -> float:
    """Seconds that a finished run took from its first evaluation to its last."""
    record = json.loads((run_directory(runs_dir) / "record.json").read_text())
    return float(record["metrics"]["time_s"])


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def _timeless(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if name not in TIMINGS}
