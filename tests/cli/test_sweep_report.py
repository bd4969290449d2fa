"""What a sweep says at its end: how its rows compare, and of W&B's files that nobody has sent."""

import json
import os
import re
import shlex
import sys
from pathlib import Path

from cli.sweep.jobs import Job
from cli.sweep.report import Report
from cli.sweep.sweep import Sweep
from tests.experiments.conftest import synthetic_record


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


def finished_run(folder: Path, row: str, seed: int, val: float, **changes) -> Path:
    directory = folder / row / f"seed{seed}-12345678"
    directory.mkdir(parents=True)
    record = synthetic_record(row, seed, val, 2.0, **changes)
    for name in ("record.json", "summary.json"):
        (directory / name).write_text(json.dumps(record))
    return directory


def swept(folder: Path, directories: list[Path], capsys) -> str:
    jobs = [job(n, folder, directory) for n, directory in enumerate(directories)]
    assert Sweep(jobs, os.environ, [None], Report(len(jobs), [None], folder)).run() == 0
    return capsys.readouterr().out


def test_rows_of_several_seeds_are_compared_and_runs_of_no_job_left_out(tmp_path, capsys):
    runs = [
        finished_run(tmp_path / "mine", row, seed, val + 0.01 * seed)
        for row, val in (("none", 4.3), ("learned", 3.9))
        for seed in (1, 2, 3)
    ]
    finished_run(tmp_path / "mine", "older", 1, 3.0)
    said = swept(tmp_path, runs, capsys)
    lines = re.findall(r"^(none|learned|older) +3 +([\d.]+) +\[.*", said, re.M)
    assert lines == [("learned", "3.920"), ("none", "4.320")]
    assert re.search(r"minus none", said) and "−0.400" in said and "older" not in said


def test_where_no_table_can_be_made_the_sweep_says_why(tmp_path, capsys):
    runs = [
        finished_run(tmp_path / "mine", "none", 1, 4.3),
        finished_run(tmp_path / "mine", "none", 2, 4.3, data__fingerprint="another"),
    ]
    said = swept(tmp_path, runs, capsys)
    assert "no table of them: " in said and "fingerprint" in said and "2 finished" in said


def test_runs_that_are_a_row_each_need_no_table(tmp_path, capsys):
    runs = [finished_run(tmp_path / "mine", row, 1, 4.3) for row in ("none", "learned")]
    said = swept(tmp_path, runs, capsys)
    assert "4.300" in said and "minus" not in said and "no table" not in said
