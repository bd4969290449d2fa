"""A Hydra launcher that gives each job of a sweep a process of its own.

Hydra's basic launcher runs all jobs in one process, so one that is killed or out of memory takes
the others with it. Here a job is `python train.py <its overrides> hydra.mode=RUN`, with its own
log; what it wrote to its run directory is its result.
"""

import hashlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from cli.rows import check_row
from cli.sweep.gpus import available_gpus, gpus_of_workers
from cli.sweep.jobs import Job, job_environment
from common.errors import UserError

# What makes a sweep of a command line; left out, the same line runs one job.
SWEEP_OVERRIDES = (
    "hydra.mode=",
    "hydra.sweeper",
    "hydra/sweeper",
    "hydra.launcher",
    "hydra/launcher",
)
LONGEST_NAME = 160


class ProcessLauncher(Launcher):
    """`workers` jobs at a time, each a process; CPU threads and GPUs are shared out among them.

    With `ranks` above 1 each job is as many processes, by torchrun, that share its steps.

    Ctrl-C or SIGTERM is passed on to the jobs, which save and exit; a second one kills them. After
    the jobs the process exits: with 0 if all finished, 1 if any failed, 75 if the sweep was cut off.
    """

    def __init__(self, workers: int = 1, ranks: int = 1) -> None:
        meant = {
            "workers": "how many jobs run at a time",
            "ranks": "how many processes share a job",
        }
        for name, value in {"workers": workers, "ranks": ranks}.items():
            if type(value) is not int or value < 1:
                raise UserError(
                    f"hydra.launcher.{name}={value} must be a whole number of at least 1: "
                    f"it is {meant[name]}"
                )
        self.workers, self.ranks = workers, ranks

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.config = config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        name = self.config.hydra.job.config_name
        for overrides in job_overrides:
            check_row(name, list(overrides))  # before any job, what each would refuse

        # Plugins are imported at every start, also of `--help`: only a sweep pays for rich.
        from cli.sweep.report import Report
        from cli.sweep.sweep import Sweep

        folder = Path(self.config.hydra.sweep.dir)
        environment = job_environment(self.workers * self.ranks)
        common = set.intersection(*(set(overrides) for overrides in job_overrides))
        jobs = []
        for index, overrides in enumerate(job_overrides, start=initial_job_idx + 1):
            own = [o for o in overrides if o not in common] or list(overrides)
            command = job_command(self.config, overrides, self.ranks)
            log = folder / f"{log_name(overrides, own)}.log"
            jobs.append(Job(index, " ".join(own), command, log))
        gpus = gpus_of_workers(available_gpus(environment), self.workers, self.ranks)
        code = Sweep(jobs, environment, gpus, Report(len(jobs), gpus, folder)).run()
        if code:
            sys.exit(code)
        return [_finished(job, list(own)) for job, own in zip(jobs, job_overrides, strict=True)]


def job_command(config: DictConfig, overrides: Sequence[str], ranks: int = 1) -> list[str]:
    """The command line that runs one job alone: also by hand."""
    hydra = config.hydra
    command = [sys.executable]
    if ranks > 1:
        command += ["-m", "cli.torchrun", "--standalone", f"--nproc-per-node={ranks}"]
    command += [sys.argv[0]]
    if hydra.job.config_name != Path(sys.argv[0]).stem:
        command += ["--config-name", hydra.job.config_name]
    for source in hydra.runtime.config_sources:
        if source.provider == "command-line":
            command += ["--config-dir", source.path]
    kept = [o for o in hydra.overrides.hydra if not o.lstrip("+~").startswith(SWEEP_OVERRIDES)]
    return [*command, *kept, *overrides, "hydra.mode=RUN"]


def log_name(overrides: Sequence[str], own: Sequence[str]) -> str:
    """A job's log is named by what it runs, so that a sweep run again goes on in the same file.

    Where that is too long for a name, by what sets it apart from the sweep's others (`own`) and a
    digest of the whole.
    """
    told = ",".join(o for o in overrides if not o.startswith("table="))
    if len(told) > LONGEST_NAME:
        digest = hashlib.sha256(told.encode()).hexdigest()[:8]
        told = f"{','.join(own)[:LONGEST_NAME]},{digest}"
    return re.sub(r"[^\w.,=+-]+", "_", told) or "job"


def _finished(job: Job, overrides: list[str]) -> JobReturn:
    """With the last weights' val loss, for a sweeper that chooses by it; None where there is none."""
    from cli.sweep.outcome import read_outcome

    result = JobReturn(overrides=overrides, status=JobStatus.COMPLETED)
    outcome = read_outcome(job)
    result.return_value = outcome and outcome.val
    return result
