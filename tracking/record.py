"""The run's own account of itself: metrics.jsonl, media.jsonl, record.json, summary.json, log.txt.

These files are the source of truth; a tracker shows them, a table copies from them.
"""

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from traceback import format_exception
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from common.errors import LostRankError, UserError
from common.files import explained, to_json, write_atomically
from tracking.directory import RunDirectory
from tracking.lines import JsonLines
from tracking.show import closing_event, events, tracked
from tracking.signals import INTERRUPTED
from tracking.trackers import GuardedTracker, Tracker
from training.step import check_evaluation

logger = logging.getLogger(__name__)

SCHEMA = 2
_BINS = 20  # of a mask's histogram
_CURVE = (
    *("train/loss_nats", "val/loss_nats", "train/ema_loss_nats", "val/ema_loss_nats"),
    *("train/ones", "eval/ones"),
)
_OF_FIRST_START = ("code", "versions", "device")
_SUMMARY = ("table", "row", "seed", "status", "error", "steps", "parameters", "metrics", "best")


class RunRecord:
    """Writes what a run did, in its directory and to the tracker; used as `with RunRecord(...)`.

    `facts` are what is known before the first step: code, versions, device, dtype, compile, data,
    base, overrides, parameters, parameters_trainable, flops_per_token. `step` is the one that the run
    goes on from, 0 for a new run: what was written of later steps is dropped, the rest shown to the
    tracker anew. Every process that works on a run adds itself to the record's `starts`; `code`,
    `versions` and `device` stay the first one's.

    Leaving the block without `finish` records the run as interrupted, or as failed with the error.
    """

    def __init__(
        self, run: RunDirectory, facts: Mapping[str, Any], tracker: Tracker, step: int = 0
    ) -> None:
        self.run, self.facts, self.step = run, dict(facts), step
        self._tracker = tracker
        self._final: dict[str, float | None] | None = None
        self._best: dict[str, float | None] | None = None
        self._curve: dict[int, dict[str, Any]] = {}
        self._before = run.read_record()
        self._started = self._before.get("started") or _now()
        begun = {"time": _now(), "step": step, "commit": facts["code"].get("commit")}
        begun |= {name: facts[name] for name in ("versions", "device")}
        self._starts = [*self._before.get("starts", []), begun]
        if step > 0:
            self.facts |= {n: self._before[n] for n in _OF_FIRST_START if n in self._before}

    def __enter__(self) -> Self:
        with ExitStack() as files:  # closed here where something below fails
            files.enter_context(_logging_to(self.run.path / "log.txt"))
            self._metrics = JsonLines(self.run.path / "metrics.jsonl", self.step)
            files.callback(self._metrics.close)
            self._media = JsonLines(self.run.path / "media.jsonl", self.step)
            files.callback(self._media.close)
            for line in self._metrics.earlier:
                self._add_to_curve(line)
            self._warn_of_lost_media()
            self._time_before_s = self._time_of_earlier_sessions()
            self._began = time.monotonic()
            self._write_record("running")
            self._files = files.pop_all()
        earlier = events([*self._metrics.earlier, *self._media.earlier])
        self._guard = GuardedTracker(self._tracker, tracked(self.run, self.facts), earlier)
        return self

    def _warn_of_lost_media(self) -> None:
        """Say which evaluations' masks and samples are gone, since nothing makes them again."""
        kept = {line["step"] for line in self._media.earlier}
        steps = [step for step in self._curve if 0 < step < self.run.config["steps"]]
        if lost := [str(step) for step in sorted(steps) if step not in kept]:
            logger.warning(
                "media.jsonl has lost the masks and samples of step %s: the run goes on without them",
                ", ".join(lost),
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        status, exit_code = _outcome(error, finished=self._final is not None)
        with self._files:
            try:
                self._write_record(status, error if status == "failed" else None)
                if status == "failed":
                    with (self.run.path / "log.txt").open("a", encoding="utf-8") as log:
                        log.writelines(format_exception(error))
            except (OSError, ValueError):
                if error is None:
                    raise  # else the first error, such as a full disk, is the one to be seen
            finally:
                self._guard.close(exit_code)

    @property
    def time_s(self) -> float:
        """Wall time of the run so far: this process's and the earlier ones' up to `step`."""
        return self._time_before_s + time.monotonic() - self._began

    def _time_of_earlier_sessions(self) -> float:
        if self._before.get("status") == "interrupted":
            return float(self._before["time_s"])
        # A killed one left no more than its lines.
        return max((line.get("time_s") or 0.0 for line in self._metrics.earlier), default=0.0)

    def log(self, step: int, metrics: Mapping[str, float | Tensor]) -> None:
        """Append a line of metrics; 0-d tensors become numbers here, the loop's only host sync."""
        self._append_metrics({"step": step, "time_s": self.time_s, **_numbers(metrics)})

    def log_masks(self, step: int, soft_masks: Mapping[str, Tensor]) -> None:
        """Append a histogram of each soft mask, whose values lie in [0, 1]."""
        histograms = {
            name: torch.histc(mask.detach().float(), bins=_BINS, min=0.0, max=1.0).int().tolist()
            for name, mask in soft_masks.items()
        }
        self._append_media({"step": step, "histograms": histograms})

    def log_samples(self, step: int, samples: Sequence[str]) -> None:
        """Append samples of generated text, and keep the latest to read in samples.txt."""
        self._append_media({"step": step, "samples": list(samples)})
        with explained(self.run.path):
            write_atomically(self.run.path / "samples.txt", "\n\n-----\n\n".join(samples) + "\n")

    def finish(
        self,
        step: int,
        metrics: Mapping[str, float | Tensor],
        best_step: int,
        best: Mapping[str, float | Tensor],
    ) -> None:
        """Log the closing evaluations, of the last weights and of the best checkpoint's.

        Leaving the block then records the run as finished. NonFiniteError where a loss is not finite:
        they see windows that the curve's evaluations do not.
        """
        for at, losses in ((step, metrics), (best_step, best)):
            check_evaluation(at, {"train/loss_nats": 0.0, "val/loss_nats": 0.0, **_floats(losses)})
        self._best = {"step": best_step, **_numbers(best)}
        self._final = {"time_s": self.time_s, **self._last_pace(), **_numbers(metrics)}
        # Marked: it may see more windows than the curve's evaluation at the same step.
        self._append_metrics({"step": step, "final": True, **self._final})
        self._guard.put(closing_event(step, "best", self._best))

    def _last_pace(self) -> dict[str, float]:
        """What a run that was killed in its closing evaluation knows of its speed: no step is left."""
        paces = [line["tokens_per_s"] for line in self._metrics.earlier if "tokens_per_s" in line]
        return {"tokens_per_s": paces[-1]} if paces else {}

    def _append_metrics(self, line: Mapping[str, Any]) -> None:
        if self._metrics.append(line):
            self._add_to_curve(line)
            self._show(line)

    def _append_media(self, line: Mapping[str, Any]) -> None:
        if self._media.append(line):
            self._show(line)

    def _show(self, line: Mapping[str, Any]) -> None:
        for event in events([line]):
            self._guard.put(event)

    def _add_to_curve(self, line: Mapping[str, Any]) -> None:
        if "val/loss_nats" in line:
            point = {name: line[name] for name in ("step", *_CURVE) if name in line}
            self._curve.setdefault(line["step"], point)

    def _write_record(self, status: str, error: BaseException | None = None) -> None:
        config, curve = self.run.config, list(self._curve.values())
        record = {
            "schema": SCHEMA,
            "table": config.get("table_name"),
            "row": config["row_name"],
            **{key: config.get(key) for key in ("seed", "steps")},
            "status": status,
            "error": None if error is None else f"{type(error).__name__}: {error}",
            "run_hash": self.run.run_hash,
            "config": config,
            **self.facts,
            "metrics": self._final,
            "best": self._best or _lowest(curve),
            "curve": curve,
            "missing_evaluations": self._missing_evaluations() if status == "finished" else [],
            "starts": self._starts,
            "time_s": self.time_s,
            "started": self._started,
            "finished": None if status == "running" else _now(),
        }
        summary = {key: record.get(key) for key in _SUMMARY} | {"directory": str(self.run.path)}
        with explained(self.run.path):
            write_atomically(self.run.path / "record.json", to_json(record, indent=1) + "\n")
            write_atomically(self.run.path / "summary.json", to_json(summary, indent=1) + "\n")

    def _missing_evaluations(self) -> list[int]:
        """Steps at which the config asks for an evaluation and metrics.jsonl has lost it."""
        steps, every = self.run.config["steps"], self.run.config["eval_every"]
        return sorted({*range(0, steps + 1, every), steps} - self._curve.keys())


class NoRecord:
    """In the place of a RunRecord in the ranks that are not the first: nothing is written."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def log(self, *_: object) -> None:
        pass

    log_masks = log_samples = finish = log


def _lowest(curve: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The point of a curve with the lowest validation loss: of a run that is not finished, its best."""
    finite = [point for point in curve if point["val/loss_nats"] is not None]
    return min(finite, key=lambda point: point["val/loss_nats"], default=None)


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise UserError(f"{path} must be a plain file: no directory, pipe or device; move it away")
    with explained(path):
        handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


def add_to_record(run: RunDirectory, **parts: Mapping[str, Any]) -> None:
    """Put what was measured later into the record of a finished run: `test`, `ensemble`, `masks`."""
    record = run.read_record() | {name: dict(part) for name, part in parts.items()}
    with explained(run.path):
        write_atomically(run.path / "record.json", to_json(record, indent=1) + "\n")


def _floats(metrics: Mapping[str, float | Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}


def _numbers(metrics: Mapping[str, float | Tensor]) -> dict[str, float | None]:
    """Plain numbers; None stands for one that is not finite, which JSON has no word for."""
    numbers: dict[str, float | None] = {}
    for name, value in metrics.items():
        number = value.item() if isinstance(value, Tensor) else value
        numbers[name] = number if math.isfinite(number) else None
    return numbers


def _outcome(error: BaseException | None, *, finished: bool) -> tuple[str, int]:
    """The run's status and exit code, from how its block was left."""
    stopped = isinstance(error, SystemExit) and error.code == INTERRUPTED
    if error is None and finished:
        return "finished", 0
    if error is None or stopped or isinstance(error, KeyboardInterrupt | LostRankError):
        return "interrupted", INTERRUPTED
    return "failed", 1


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
