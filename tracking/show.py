"""A run's files as a tracker gets them: while it runs, after a resume, and once it is finished."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cli.instantiate import instantiate, read_config
from common.errors import UserError
from tracking.directory import RunDirectory
from tracking.lines import read_lines
from tracking.trackers import Event, GuardedTracker, Histogram, TrackedRun, Tracker

logger = logging.getLogger(__name__)

_FACTS = (
    *("code", "versions", "device", "dtype", "compile", "data", "base", "overrides"),
    *("parameters", "parameters_trainable", "flops_per_token"),
)


def tracked(run: RunDirectory, facts: Mapping[str, Any]) -> TrackedRun:
    """What a tracker may know of a run, of which `facts` are known before its first step."""
    config = run.config
    return TrackedRun(
        id=run.id,
        directory=run.path,
        config={**config, "facts": dict(facts)},
        group=config.get("table_name") or config["scale"],
        job_type=config["row_name"],
        name=f"{config['row_name']} seed {config['seed']}",
        tags=[config["scale"], config["row_name"], run.run_hash[:8]],
    )


def events(lines: Sequence[Mapping[str, Any]]) -> Iterator[Event]:
    """Lines of both files, in the order of their steps, as a tracker wants them."""
    for line in sorted(lines, key=lambda line: line["step"]):
        if "histograms" in line:
            masks = {f"masks/{name}": Histogram(n) for name, n in line["histograms"].items()}
            yield Event(line["step"], masks)
        elif "samples" in line:
            yield Event(line["step"], {"samples": line["samples"]})
        else:
            known = {name: value for name, value in line.items() if value is not None}
            step, closing = known.pop("step"), known.pop("final", False)
            if closing:  # its evaluations beside the curve's, not in their place
                known = {f"final/{n}" if "/" in n else n: value for n, value in known.items()}
            yield Event(step, known, closing)


def closing_event(step: int, of: str, values: Mapping[str, float | None]) -> Event:
    """What was measured at the end: of the last weights, `final`, or of the best checkpoint's."""
    known = {f"{of}/{name}": value for name, value in values.items() if value is not None}
    return Event(step, known, closing=True)


def show_again(run: RunDirectory, tracker: Tracker) -> bool:
    """Give a tracker all that a finished run's files hold by now, as it gets it after a resume.

    False where the tracker failed, of which it has warned.
    """
    record = run.read_record()
    step = record["steps"]
    files = [read_lines(run.path / name) for name in ("metrics.jsonl", "media.jsonl")]
    earlier = [
        *events([line for lines in files for line in lines]),
        closing_event(step, "best", record["best"]),
        *(closing_event(step, of, values) for of, values in (record.get("test") or {}).items()),
    ]
    facts = {name: record[name] for name in _FACTS if name in record}
    guarded = GuardedTracker(tracker, tracked(run, facts), earlier)
    guarded.close(0)
    return not guarded.dropped


def show_to_its_own(run: RunDirectory) -> None:
    """`show_again` to the tracker of the run's config; where that cannot be made, a warning."""
    try:
        tracker = instantiate(read_config(run.path / "config.yaml").get("tracker"))
    except UserError as error:
        logger.warning("the tracker is left out: %s", error)
        return
    show_again(run, tracker)
