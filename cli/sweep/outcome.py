"""What a finished job's run came to, from the summary in its directory."""

import json
from dataclasses import dataclass
from pathlib import Path

from cli.sweep.jobs import Job


@dataclass(frozen=True)
class Outcome:
    """A finished run's val losses, in nats; `folder` holds the runs of its table."""

    folder: Path
    row: str
    seed: int
    val: float
    best: float
    best_step: int


def read_outcome(job: Job) -> Outcome | None:
    """None where the job made no run, or its run says nothing of its losses."""
    directory = job.run_directory()
    if directory is None:
        return None
    try:
        summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
        return Outcome(
            folder=directory.parent.parent,
            row=str(summary["row"]),
            seed=int(summary["seed"]),
            val=float(summary["metrics"]["val/loss_nats"]),
            best=float(summary["best"]["val/loss_nats"]),
            best_step=int(summary["best"]["step"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
