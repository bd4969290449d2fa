"""Sweeps of a toy run, with real processes and real signals."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.sweep.jobs import THREADS
from hydra_plugins.process_launcher import log_name

REPOSITORY = Path(__file__).parents[2]
CONFIGS = REPOSITORY / "configs"
TOY = Path(__file__).with_name("toy.py")
PATIENCE_S = 60
OWN = (*THREADS, "CUDA_VISIBLE_DEVICES")  # what the tests set themselves


class ToySweep:
    """A sweep started as a person starts it; its folder of logs is `runs`."""

    def __init__(self, runs: Path, *overrides: str, **environment: str) -> None:
        self.runs = runs
        self.process = subprocess.Popen(
            [sys.executable, str(TOY), "--config-dir", str(CONFIGS), *overrides, f"runs={runs}"],
            env={name: value for name, value in os.environ.items() if name not in OWN}
            | {"PYTHONPATH": str(REPOSITORY)}
            | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def ended(self) -> tuple[int, str]:
        output, _ = self.process.communicate(timeout=PATIENCE_S)
        print(output)  # for the report of a test that fails
        return self.process.returncode, output

    def log(self, *parts: str) -> str:
        """The one log whose name has all `parts`."""
        found = [log for log in self.runs.glob("*.log") if all(part in log.name for part in parts)]
        return found[0].read_text() if found else ""

    def fact(self, name: str, *parts: str) -> str:
        """What a job said of itself, once it has."""
        said = until(lambda: re.findall(rf"\b{name}=(\S+)", self.log(*parts)))
        return said[-1]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., ToySweep]]:
    sweeps: list[ToySweep] = []

    def start_one(*overrides: str, **environment: str) -> ToySweep:
        sweeps.append(ToySweep(tmp_path / "runs", *overrides, **environment))
        return sweeps[-1]

    yield start_one
    for sweep in sweeps:
        sweep.process.kill()
        sweep.process.communicate()


def until(ready: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := ready()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


def alive(pid: str) -> bool:
    """Whether the process runs: one that nobody has reaped yet does not."""
    stat = Path("/proc", pid, "stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_failed_job_leaves_the_others_alone_and_its_own_log_says_why(start):
    code, output = (sweep := start("table=rows", "hydra.launcher.workers=2")).ended()
    assert code == 1
    assert "2 finished, 4 failed" in output
    assert "exit 1: RuntimeError: the reason" in output
    assert "killed (SIGKILL)" in output
    assert "Traceback" not in output
    for seed in ("seed=1", "seed=2"):
        assert "RuntimeError: the reason" in sweep.log(seed, "kind=raises")
        assert "ran from" in sweep.log(seed, "kind=ends")
    order = re.findall(r"seed=(\d) kind=\w+  started", output)
    assert order == ["1"] * 3 + ["2"] * 3


def test_a_job_is_one_run_of_the_sweep_in_a_process_group_of_its_own(start):
    code, output = (sweep := start("table=rows", "kind=ends", "seed=5")).ended()
    assert code == 0
    assert "1 finished" in output
    assert sweep.fact("table") == "rows"  # what the table's file says holds for its jobs
    assert sweep.fact("pid") == sweep.fact("group") != str(sweep.process.pid)
    assert "hydra.mode=RUN" in sweep.log()


def test_workers_run_at_the_same_time_and_share_the_threads(start, tmp_path):
    (tmp_path / "place").mkdir()
    sweep = start(
        "-m",
        "seed=1,2",
        "kind=meets",
        f"place={tmp_path / 'place'}",
        "hydra.launcher.workers=2",
        MKL_NUM_THREADS="7",
    )
    assert sweep.ended()[0] == 0
    share = max(1, len(os.sched_getaffinity(0)) // 2)
    for seed in (1, 2):
        assert sweep.fact("threads", f"seed={seed}") == f"{share}/7"  # what the person set holds


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_lets_the_running_job_save_and_starts_no_other(start, number):
    sweep = start("-m", "kind=waits", "seed=1,2")
    sweep.fact("pid", "seed=1")
    sweep.process.send_signal(number)
    code, output = sweep.ended()
    assert code == 75
    assert "saved on [2]" in sweep.log("seed=1")
    assert sweep.log("seed=2") == ""
    assert "1 interrupted, 1 not started" in output
    assert f"to go on: python {TOY}" in output


def test_a_second_signal_stops_at_once(start):
    sweep = start("-m", "kind=stubborn", "seed=1,2")
    pid = sweep.fact("pid", "seed=1")
    sweep.process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert alive(pid)
    sweep.process.send_signal(signal.SIGINT)
    assert sweep.ended()[0] == 75
    assert not alive(pid)


def test_a_job_that_was_interrupted_ends_the_sweep(start):
    code, output = start("-m", "kind=interrupted", "seed=1,2").ended()
    assert code == 75
    assert "1 interrupted, 1 not started" in output


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel to tell the child")
def test_no_job_outlives_a_sweep_that_is_killed(start):
    sweep = start("-m", "kind=waits", "seed=1,2")
    pid = sweep.fact("pid", "seed=1")
    sweep.process.kill()
    until(lambda: not alive(pid))
    assert "saved on [15]" in sweep.log("seed=1")


def test_no_helper_outlives_its_job(start):
    sweep = start("-m", "kind=leaves")
    helper = sweep.fact("helper")
    assert sweep.ended()[0] == 0
    assert not alive(helper)


def test_the_losses_of_the_runs_end_a_sweep_and_a_run_in_use_fails_none(start, tmp_path):
    sweep = start("-m", "kind=runs,in_use", "seed=2,1")
    code, output = sweep.ended()
    assert code == 0
    assert output.count("left to another process: exit 69: error: the run is in use") == 2
    assert "2 finished, 2 in another process" in output
    rows = re.findall(r"^toy +(\d) +([\d.]+) +([\d.]+), (\d+)$", output, re.M)
    assert rows == [("1", "4.100", "4.000", "30"), ("2", "4.200", "4.000", "30")]
    assert f"python -m experiments.table --runs '{tmp_path}/runs/my table'" in output
    assert f"to go on: python {TOY}" in output


def test_a_sweep_run_again_goes_on_in_the_same_logs(start):
    start("-m", "kind=raises").ended()
    (sweep := start("-m", "kind=raises")).ended()
    assert sweep.log().count("Traceback") == 2


@pytest.mark.parametrize("workers", ["0", "two", "1.5", "true"])
def test_workers_must_be_a_number_of_jobs(start, workers):
    code, output = (sweep := start("-m", "seed=1,2", f"hydra.launcher.workers={workers}")).ended()
    assert code == 2
    assert f"hydra.launcher.workers={workers}".lower() in output.lower()
    assert not sweep.log()


def test_logs_of_different_jobs_have_different_names_however_long():
    common = [f"model.key_{i}=value" for i in range(40)]
    names = {log_name([*common, own], [own]) for own in ("seed=1", "seed=2")}
    assert len(names) == 2
    assert all(len(name) < 200 for name in names)
    assert log_name([*common, "seed=1"], ["seed=1"]) in names  # the same job, the same log


def test_a_logs_name_is_one_file():
    own = ["row=published/none", "seed=1"]
    assert log_name(["table=published", *own], own) == "row=published_none,seed=1"


def test_each_job_has_a_gpu_of_those_that_are_set(start, tmp_path):
    (tmp_path / "place").mkdir()
    options = ("-m", "seed=1,2", "kind=meets", f"place={tmp_path / 'place'}")
    sweep = start(*options, "hydra.launcher.workers=2", CUDA_VISIBLE_DEVICES="5,GPU-abc")
    code, output = sweep.ended()
    assert code == 0
    assert sweep.fact("gpu", "seed=1") == "[5]"
    assert sweep.fact("gpu", "seed=2") == "[GPU-abc]"
    assert "started on GPU 5" in output
