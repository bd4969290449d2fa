"""A run's val losses, from the files in its directory, while it runs."""

import json
from pathlib import Path

from common.door import read_yaml
from common.errors import UserError

VAL = "val/loss_nats"


def val_curve(directory: Path) -> dict[int, float]:
    """Step -> the lowest val loss up to there, of the evaluations that were finite.

    Of a line that is being written nothing is read, nor of the closing evaluation, which sees other
    windows.
    """
    try:
        *lines, _unfinished = (directory / "metrics.jsonl").read_bytes().split(b"\n")
    except FileNotFoundError:
        return {}
    curve: dict[int, float] = {}
    lowest = float("inf")
    for line in lines:
        if VAL.encode() not in line:
            continue  # a step without an evaluation: most are
        try:
            measured = json.loads(line)
            step, loss = measured["step"], measured[VAL]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{directory}/metrics.jsonl is damaged ({error})") from error
        if loss is not None and not measured.get("final"):
            lowest = min(lowest, loss)
            curve[step] = lowest
    return curve


def n_steps(directory: Path) -> int:
    """How many steps the run is to take."""
    return int(read_yaml(directory / "config.yaml")["steps"])
