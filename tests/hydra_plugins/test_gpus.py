"""One GPU a job, where `nvidia-smi` is a stand-in that lists as many GPUs as a test wants."""

import os
import sys
from pathlib import Path

import pytest

from cli.sweep import gpus
from cli.sweep.gpus import available_gpus, gpus_of_workers
from cli.sweep.jobs import Job
from cli.sweep.report import Report
from cli.sweep.sweep import Sweep
from common.errors import UserError

UUID = "GPU-5d6c2a7e-0a4b-4f7d-9d5e-1c2b3a495867"
SHARED = "jobs at a time share"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that gives this machine some GPUs, by what `nvidia-smi -L` prints."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpus, "PROC", tmp_path / "proc")
    monkeypatch.setenv("PATH", str(tmp_path))

    def make(lines: str) -> None:
        script = tmp_path / "nvidia-smi"
        script.write_text(f'#!/bin/sh\n[ "$1" = -L ] && echo "{lines}"\n')
        script.chmod(0o755)

    return make


@pytest.mark.parametrize(
    ("there", "workers", "expected"),
    [
        (["0", "1"], 2, ["0", "1"]),
        (["0", "1", "2", "3"], 2, ["0", "1"]),
        (["0", "1"], 4, ["0", "1", "0", "1"]),
        ([UUID, "3"], 3, [UUID, "3", UUID]),
        (["0"], 1, ["0"]),
        ([], 2, [None, None]),
    ],
)
def test_workers_take_the_gpus_in_turns(there, workers, expected):
    assert gpus_of_workers(there, workers) == expected


@pytest.mark.parametrize("n_gpus", [1, 2, 3, 8])
@pytest.mark.parametrize("workers", [1, 2, 5, 16])
def test_no_gpu_has_two_jobs_more_than_another(n_gpus, workers):
    there = [str(i) for i in range(n_gpus)]
    loads = [gpus_of_workers(there, workers).count(gpu) for gpu in there]
    assert sum(loads) == workers
    assert max(loads) - min(loads) <= 1


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("3,1", ["3", "1"]),
        (f" {UUID} , MIG-{UUID}", [UUID, f"MIG-{UUID}"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("0,-1,1", ["0"]),  # as CUDA reads it
    ],
)
def test_the_gpus_that_are_set_are_those_there_are(machine, visible, expected):
    machine("GPU 0: H100 (UUID: x)")
    assert available_gpus({"CUDA_VISIBLE_DEVICES": visible}) == expected


def test_nvidia_smi_says_how_many_there_are(machine):
    machine("GPU 0: A (UUID: x)\n  MIG 1g.5gb Device 0: (UUID: MIG-y)\nGPU 1: A (UUID: z)")
    assert available_gpus({}) == ["0", "1"]
    machine("No devices were found")
    assert available_gpus({}) == []


def test_without_nvidia_smi_the_driver_is_asked(machine, tmp_path):
    assert available_gpus({}) == []
    for bus in ("0000:1b:00.0", "0000:43:00.0"):
        (tmp_path / "proc" / bus).mkdir(parents=True)
    assert available_gpus({}) == ["0", "1"]


def job(number: int, folder: Path, code: str) -> Job:
    program = f"import os, pathlib, time\nfolder = pathlib.Path({str(folder)!r})\n{code}"
    return Job(number, f"job {number}", [sys.executable, "-c", program], folder / f"{number}.log")


def test_a_job_takes_the_gpu_that_the_finished_one_had(tmp_path):
    until_the_third = "while not (folder / 'third').exists(): time.sleep(0.02)"
    tell = "print('on', os.environ['CUDA_VISIBLE_DEVICES']); (folder / 'third').touch()"
    jobs = [job(1, tmp_path, until_the_third), job(2, tmp_path, ""), job(3, tmp_path, tell)]
    there = ["6", "7"]
    assert Sweep(jobs, os.environ, there, Report(3, there, tmp_path)).run() == 0
    log = (tmp_path / "3.log").read_text()
    assert "on 7\n" in log  # by its number it would be 6, where the first still runs
    assert f"CUDA_VISIBLE_DEVICES=7 {sys.executable}" in log  # the command, to be run by hand


def test_that_gpus_are_shared_is_said_once_and_only_then(tmp_path, capsys):
    for there, n_jobs in ((["0", "1"], 9), (["0", "0"], 1), ([None, None], 9)):
        Report(n_jobs, there, tmp_path)
    assert SHARED not in capsys.readouterr().out
    Report(9, ["0", "1", "0"], tmp_path)
    assert capsys.readouterr().out.count(f"3 {SHARED} 2 GPUs") == 1


def test_no_gpu_leaves_the_environment_as_it_is(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    one = job(1, tmp_path, "print('CUDA_VISIBLE_DEVICES' in os.environ)")
    assert Sweep([one], os.environ, [None], Report(1, [None], tmp_path)).run() == 0
    assert one.last_line() == "False"


@pytest.mark.parametrize(
    ("there", "workers", "expected"),
    [
        (["0", "1", "2", "3"], 2, ["0,1", "2,3"]),
        (["0", "1", "2"], 2, ["0,1", "2,0"]),
        ([], 2, [None, None]),
    ],
)
def test_a_job_of_two_ranks_has_two_gpus(there, workers, expected):
    assert gpus_of_workers(there, workers, ranks=2) == expected


def test_more_ranks_than_gpus_are_refused(capsys, tmp_path):
    with pytest.raises(UserError, match=r"hydra\.launcher\.ranks=3 must be at most 2"):
        gpus_of_workers(["0", "1"], 1, ranks=3)
    Report(9, ["0,1", "2,0"], tmp_path)
    assert f"2 {SHARED} 3 GPUs" in capsys.readouterr().out
