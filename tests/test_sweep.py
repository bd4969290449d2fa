"""Sweeps of real runs: a job that fails takes no other with it, and the same command fills the gaps."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PATIENCE_S = 240
TINY = (
    "tracker=none", "device=cpu", "dtype=float32", "dropout=none", "data.vocab_size=512",
    "data.max_train_tokens=20000", "batch_size=4", "micro_batch_size=4", "save_every=1000",
    "eval_every=1000", "model.n_layer=1", "model.n_embd=16", "model.n_head=2", "model.block_size=16",
    "evaluate.windows=4", "evaluate.final_windows=4", "evaluate.batch_size=4",
)  # fmt: skip


def sweep(folder: Path, *overrides: str) -> subprocess.Popen[str]:
    places = (f"runs_dir={folder / 'runs'}", f"results_dir={folder / 'results'}")
    log_folder = f"hydra.sweep.dir={folder / 'logs'}"
    return subprocess.Popen(
        [sys.executable, "train.py", "-m", *TINY, *places, log_folder, *overrides],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=PATIENCE_S)
    print(output)
    return process.returncode, output


def job_of(process: subprocess.Popen[str]) -> int:
    """The sweep's running job, once it trains."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        for child in children.read_text().split():
            if "torch" in Path(f"/proc/{child}/maps").read_text():
                return int(child)
        time.sleep(0.05)
    raise AssertionError("no job began to train")


def statuses(folder: Path) -> dict[int, str]:
    records = [json.loads(file.read_text()) for file in folder.rglob("record.json")]
    return {record["seed"]: record["status"] for record in records}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc for the job to kill")
def test_a_killed_job_takes_no_other_with_it_and_the_same_command_fills_the_gap(tmp_path):
    process = sweep(tmp_path, "seed=1,2", "steps=200")
    os.kill(job_of(process), signal.SIGKILL)
    code, output = ended(process)
    assert code == 1
    assert "1 finished, 1 failed" in output
    assert "killed (SIGKILL)" in output
    assert statuses(tmp_path)[2] == "finished"

    code, output = ended(sweep(tmp_path, "seed=1,2", "steps=200"))
    assert code == 0
    assert statuses(tmp_path) == {1: "finished", 2: "finished"}
    assert "this run is finished" in next(tmp_path.glob("logs/*seed=2*.log")).read_text()


@pytest.mark.slow
def test_a_job_that_fails_says_why_in_its_own_log(tmp_path):
    code, output = ended(sweep(tmp_path, "optimizer.lr=1e-3,1e30", "steps=6"))
    assert code == 1
    assert "1 finished, 1 failed" in output
    assert re.search(r"exit 3: error: .*finite", output)
    assert "finite" in next(tmp_path.glob("logs/*1e[+]30*.log")).read_text()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc for the running job")
def test_ctrl_c_saves_the_running_job_and_the_same_command_goes_on(tmp_path):
    process = sweep(tmp_path, "seed=1,2", "steps=2000")
    job_of(process)
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    code, output = ended(process)
    assert code == 75
    assert "1 interrupted, 1 not started" in output
    assert "to go on: python train.py -m" in output
