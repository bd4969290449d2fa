"""A sweep on a real SLURM: a run that is told to leave loses no step, and ends with the same bits.

`pytest -m cluster`, as root, where Debian's slurmctld, slurmd and slurm-client and the extra
`[slurm]` are installed.
"""

import importlib.util
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.slurm import lacking, slurm
from tests.soak.runs import ROOT, RUN, TINY, ending_of, write_corpus

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(lacking()), reason=f"no {', '.join(lacking())} here"),
    pytest.mark.skipif(os.getuid() != 0, reason="slurmd starts jobs as root alone"),
    pytest.mark.skipif(
        importlib.util.find_spec("submitit") is None, reason="the extra [slurm] is not installed"
    ),
]
STEPS, SEEN = 120, 20  # of a run, and lines of metrics after which it is told to leave
SEEDS = (1, 2, 3)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[dict[str, str]]:
    with slurm(tmp_path / "slurm") as env:
        yield env | {"OMP_NUM_THREADS": "1"}


def sweep(place: Path, runs_dir: Path, *options: str) -> list[str]:
    """The command of three runs that save at their end alone."""
    return [
        *(sys.executable, "train.py", "-m", *TINY),
        *(f"steps={STEPS}", f"save_every={STEPS}", f"eval_every={STEPS}", "seed=1,2,3"),
        f"data.paths={place / 'articles.jsonl'}",
        f"data.cache_dir={place / 'tokens'}",
        f"runs_dir={runs_dir}",
        *options,
    ]


def endings(runs_dir: Path) -> dict[str, dict[str, Any]]:
    found = {config.parent for config in runs_dir.glob(f"{RUN}/config.yaml")}
    return {str(run.relative_to(runs_dir)): ending_of(run) for run in sorted(found)}


def wait_for(runs_dir: Path, seed: int, process: "subprocess.Popen[str]") -> None:
    while not any(
        metrics.read_bytes().count(b"\n") > SEEN
        for metrics in runs_dir.glob(f"*/*/seed{seed}-*/metrics.jsonl")
    ):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


def test_a_sweep_on_slurm_equals_one_without_though_a_run_is_told_to_leave(tmp_path, cluster):
    write_corpus(tmp_path / "articles.jsonl")
    by_process, by_slurm = tmp_path / "process", tmp_path / "slurm_runs"
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(sweep(tmp_path, by_process), env=env, cwd=ROOT, check=True)
    expected = endings(by_process)
    assert len(expected) == len(SEEDS)

    resources = ("gpus_per_node=null", "cpus_per_task=1", "array_parallelism=1")
    command = sweep(
        tmp_path,
        by_slurm,
        "hydra/launcher=slurm",
        *(f"hydra.launcher.{resource}" for resource in resources),
    )
    process = subprocess.Popen(
        command, env=cluster, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    wait_for(by_slurm, 2, process)
    queue = ["squeue", "--noheader", "--states=RUNNING", "--format=%i"]
    (job,) = subprocess.run(queue, env=cluster, capture_output=True, text=True).stdout.split()
    assert job.endswith("_1")  # of the array: the second run
    subprocess.run(["scancel", "--signal=USR2", job], env=cluster, check=True)

    output, _ = process.communicate(timeout=600)
    logs = {log.name: log.read_text() for log in by_slurm.glob("sweeps/.submitit/*/*.out")}
    assert process.returncode == 0, (output, logs)
    assert endings(by_slurm) == expected
    (told,) = [log for log in logs.values() if "SIGUSR2" in log]
    assert "a checkpoint is saved; SIGUSR2 is handed on" in told
    assert "Requeued job" in told
    (step,) = re.findall(rf"going on from step (\d+) of {STEPS}", told)
    assert SEEN <= int(step) < STEPS
