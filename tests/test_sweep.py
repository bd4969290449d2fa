"""Sweeps of real runs: a job that fails takes no other with it, and the same command fills the gaps."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc for the running job"),
]

REPOSITORY = Path(__file__).parents[1]
PATIENCE_S = 600
TINY = (
    "tracker=none", "device=cpu", "dtype=float32", "dropout=none", "data.vocab_size=512",
    "data.max_train_tokens=20000", "batch_size=4", "micro_batch_size=4", "save_every=1000",
    "eval_every=1000", "model.n_layer=1", "model.n_embd=16", "model.n_head=2", "model.block_size=16",
    "evaluate.windows=4", "evaluate.final_windows=4", "evaluate.batch_size=4",
)  # fmt: skip


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `python train.py -m` with tiny runs; all that it writes goes to `tmp_path`."""
    started: list[subprocess.Popen[str]] = []

    def start(*overrides: str) -> subprocess.Popen[str]:
        places = (f"runs_dir={tmp_path / 'runs'}",)
        log_folder = f"hydra.sweep.dir={tmp_path / 'logs'}"
        process = subprocess.Popen(
            [sys.executable, "train.py", "-m", *TINY, *places, log_folder, *overrides],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.terminate()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=PATIENCE_S)
    print(output)
    return process.returncode, output


def until(ready: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not ready():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def running_job(process: subprocess.Popen[str]) -> int:
    """The job that the sweep runs now."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    until(children.read_text)
    return int(children.read_text().split()[0])


def statuses(folder: Path) -> dict[int, str]:
    records = [json.loads(file.read_text()) for file in folder.rglob("record.json")]
    return {record["seed"]: record["status"] for record in records}


def test_a_killed_job_takes_no_other_with_it_and_the_same_command_fills_the_gap(sweep, tmp_path):
    process = sweep("seed=1,2", "steps=60")
    os.kill(running_job(process), signal.SIGKILL)
    code, output = ended(process)
    assert code == 1
    assert "1 finished, 1 failed" in output
    assert "killed (SIGKILL)" in output
    assert statuses(tmp_path)[2] == "finished"

    code, output = ended(sweep("seed=1,2", "steps=60"))
    assert code == 0
    assert statuses(tmp_path) == {1: "finished", 2: "finished"}
    assert "this run is finished" in next(tmp_path.glob("logs/*seed=2*.log")).read_text()


def test_a_job_that_fails_says_why_in_its_own_log(sweep, tmp_path):
    code, output = ended(sweep("optimizer.lr=1e-3,1e30", "steps=6"))
    assert code == 1
    assert "1 finished, 1 failed" in output
    assert re.search(r"exit 3: error: .*finite", output)
    assert "finite" in next(tmp_path.glob("logs/*1e[+]30*.log")).read_text()


def test_ctrl_c_lets_the_running_job_save(sweep, tmp_path):
    process = sweep("seed=1,2", "steps=100000", "log_every=1")
    until(lambda: any(file.stat().st_size for file in tmp_path.rglob("metrics.jsonl")))
    process.send_signal(signal.SIGINT)
    code, output = ended(process)
    assert code == 75
    assert "1 interrupted, 1 not started" in output
    assert "to go on: python train.py -m" in output
    assert statuses(tmp_path) == {1: "interrupted"}
    assert list(tmp_path.rglob("*.safetensors"))
