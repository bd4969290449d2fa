"""Ranks as a person starts them: torchrun is told to stop, killed, or part of a sweep."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.soak.runs import ROOT, TINY, run_directory, write_corpus
from tracking.directory import read_record

pytestmark = pytest.mark.slow
TORCHRUN = ("-m", "cli.torchrun", "--standalone", "--nproc-per-node=2", "train.py")
LONG = ("steps=100000", "eval_every=50000", "save_every=50000")
PATIENCE_S = 180


@pytest.fixture
def start(tmp_path: Path) -> Iterator:
    """A function from words after `python`, the last ones apart, to a long run of the tiny config."""
    write_corpus(tmp_path / "articles.jsonl")
    places = (f"data.paths={tmp_path / 'articles.jsonl'}", f"data.cache_dir={tmp_path / 'tokens'}")
    started: list[subprocess.Popen[str]] = []

    def start_one(*words: str, last: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        settings = (*TINY, *places, f"runs_dir={tmp_path / 'runs'}", *LONG)
        started.append(
            subprocess.Popen(
                [sys.executable, *words, *settings, *last],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        )
        return started[-1]

    yield start_one
    for process in started:
        process.kill()
        process.communicate()
    for pid in ranks_of(tmp_path):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def ranks_of(tmp_path: Path) -> list[int]:
    """The processes that train in this folder, torchrun and launcher apart."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if b"-u" in words[:2] and f"runs_dir={tmp_path / 'runs'}".encode() in words:
                found.append(int(process.name))
    return sorted(found)


def wait_for_steps(tmp_path: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not any(f.stat().st_size > 2000 for f in tmp_path.glob("runs/*/*/*/metrics.jsonl")):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def all_gone(tmp_path: Path, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while ranks_of(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not ranks_of(tmp_path)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_torchrun_told_to_stop_has_its_ranks_save(start, tmp_path, signum):
    process = start(*TORCHRUN)
    wait_for_steps(tmp_path)
    os.kill(process.pid, signum)
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 75, said
    assert said.count("a checkpoint is saved") == 1
    assert "Traceback" not in said
    assert read_record(run_directory(tmp_path / "runs"))["status"] == "interrupted"
    assert all_gone(tmp_path, 0)


def test_a_rank_that_is_killed_is_told_of_and_ends_all(start, tmp_path):
    process = start(*TORCHRUN)
    wait_for_steps(tmp_path)
    os.kill(ranks_of(tmp_path)[-1], signal.SIGKILL)
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 128 + signal.SIGKILL, said
    assert "was killed (SIGKILL)" in said
    assert "Traceback" not in said and "ChildFailedError" not in said


def test_torchrun_that_is_killed_leaves_nothing_alive(start, tmp_path):
    process = start(*TORCHRUN)
    wait_for_steps(tmp_path)
    assert len(ranks_of(tmp_path)) == 2
    process.kill()
    assert all_gone(tmp_path, 10)


def test_a_mistake_has_its_exit_code_and_one_line(start, tmp_path):
    process = start(*TORCHRUN, last=("micro_batch_size=8",))
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2, said
    assert said.strip().count("\n") == 0 and "micro_batch_size=4 would do" in said


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_a_sweep_of_such_jobs_saves_or_leaves_nothing_alive(start, tmp_path, signum):
    sweep = ("-m", f"hydra.sweep.dir={tmp_path / 'sweep'}", "hydra.launcher.ranks=2", "seed=1,2")
    process = start("train.py", *sweep)
    wait_for_steps(tmp_path)
    os.kill(process.pid, signum)
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == (75 if signum == signal.SIGINT else -signal.SIGKILL), said
    assert all_gone(tmp_path, 40)
    status = read_record(run_directory(tmp_path / "runs"))["status"]
    assert status == "interrupted"  # of a sweep that is killed torchrun is told by the kernel
