"""What a search says on the terminal: a sweep's lines, and what each trial came to."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from optuna.trial import FrozenTrial

from cli.sweep.jobs import Job
from cli.sweep.report import Report


class SearchReport(Report):
    """Says of a trial that is pruned that it is, and not that it failed."""

    what = "trial"

    def __init__(
        self, n_trials: int, gpus_of_workers: Sequence[str | None], folder: Path, command: str
    ) -> None:
        self.folder, self.command = folder, command
        self.pruned: set[Job] = set()
        super().__init__(n_trials, gpus_of_workers, folder / "logs")

    def prunes(self, job: Job, step: int) -> None:
        """Say that the job is asked to stop."""
        self.pruned.add(job)
        self._say(f"{self._name(job)}  pruned at step {step}: worse than half of the trials")

    def valued(self, number: int, value: float, best: FrozenTrial) -> None:
        """Say what a trial came to."""
        self._say(f"trial {number}  {value:.4f}; best: {best.value:.4f}, trial {best.number}")

    def ended(self, job: Job, interrupted: bool) -> None:
        if job not in self.pruned:
            super().ended(job, interrupted)

    def summarize(
        self,
        done: Sequence[Job],
        failed: Sequence[Job],
        interrupted: Sequence[Job],
        elsewhere: Sequence[Job],
        waiting: Sequence[Job],
    ) -> None:
        self._show_unsent([job for job in done if job.code == 0])
        for job in failed:
            self._say(f"{self._name(job)}  {job.reason()}\n    {job.log}", "red")
        if failed or interrupted or elsewhere or waiting:
            self._say(f"to go on: {self.command}")

    def _name(self, job: Job) -> str:
        return f"trial {job.number}  {job.title}"


def spelled(arguments: Sequence[str]) -> str:
    """The command as a person would give it again."""
    return shlex.join(["python", "-m", "search", *arguments])
