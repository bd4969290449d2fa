"""What a sweep says at its end of W&B's files that nobody has sent."""

import os
import shlex
import sys
from pathlib import Path

from cli.sweep.jobs import Job
from cli.sweep.report import Report
from cli.sweep.sweep import Sweep


def job(number: int, folder: Path, directory: Path, code: int = 0) -> Job:
    said = f"import sys; print('run directory:', {str(directory)!r}); sys.exit({code})"
    return Job(number, f"job {number}", [sys.executable, "-c", said], folder / f"{number}.log")


def offline_run(directory: Path, *, sent: bool = False) -> Path:
    folder = directory / "wandb" / "offline-run-20260101_000000-id"
    folder.mkdir(parents=True)
    (folder / "run-id.wandb").touch()
    if sent:
        (folder / "run-id.wandb.synced").touch()
    return folder


def test_one_command_sends_every_finished_run_that_is_not_sent(tmp_path, capsys):
    first, second = (offline_run(tmp_path / f"seed {n}") for n in (1, 2))
    offline_run(tmp_path / "sent", sent=True)
    offline_run(tmp_path / "failed")
    (tmp_path / "online").mkdir()
    names = ["seed 1", "seed 2", "sent", "online", "nowhere"]
    jobs = [job(n, tmp_path, tmp_path / name) for n, name in enumerate(names)]
    jobs.append(job(9, tmp_path, tmp_path / "failed", code=1))
    assert Sweep(jobs, os.environ, [None], Report(len(jobs), [None], tmp_path)).run() == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "wandb sync" in line]
    assert shlex.split(line.split(": ")[1]) == ["wandb", "sync", str(first), str(second)]


def test_a_sweep_without_such_files_says_nothing_of_them(tmp_path, capsys):
    jobs = [job(1, tmp_path, tmp_path)]
    assert Sweep(jobs, os.environ, [None], Report(1, [None], tmp_path)).run() == 0
    assert "wandb" not in capsys.readouterr().out
