"""What a finished job's run came to, from the summary in its directory."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.sweep.jobs import Job
from common.errors import UserError


@dataclass(frozen=True)
class Outcome:
    """A finished run's val losses, in nats."""

    directory: Path
    row: str
    seed: int
    val: float
    best: float
    best_step: int

    @property
    def folder(self) -> Path:
        """Where the runs of its table lie."""
        return self.directory.parent.parent


def read_outcome(job: Job) -> Outcome | None:
    """None where the job made no run, or its run says nothing of its losses."""
    directory = job.run_directory()
    if directory is None:
        return None
    try:
        summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
        return Outcome(
            directory=directory,
            row=str(summary["row"]),
            seed=int(summary["seed"]),
            val=float(summary["metrics"]["val/loss_nats"]),
            best=float(summary["best"]["val/loss_nats"]),
            best_step=int(summary["best"]["step"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def table_of(outcomes: Sequence[Outcome]) -> list[str]:
    """Lines that compare the rows of finished runs over their seeds; why not, where that can't be.

    Empty where no row has several runs: each run is then a row.
    """
    if len({outcome.row for outcome in outcomes}) == len(outcomes):
        return []

    from experiments.page import in_short  # only a sweep's end needs it
    from experiments.runs import own_table

    lines = []
    for folder in sorted({outcome.folder for outcome in outcomes}):
        directories = {one.directory for one in outcomes if one.folder == folder}
        try:
            lines += in_short(own_table(folder, directories)).splitlines()
        except UserError as error:
            return [f"no table of them: {error}"]
    return lines
