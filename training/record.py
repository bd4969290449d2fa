"""The run's own account of itself: metrics.jsonl, record.json, summary.json, results/."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from training.files import explained, to_json, write_atomically
from training.run_directory import RunDirectory
from training.signals import INTERRUPTED
from training.tracker import Event, GuardedTracker, Histogram, TrackedRun, Tracker

SCHEMA = 1
_BINS = 20
_CURVE = ("train/loss_nats", "val/loss_nats", "train/ones", "eval/ones")


class RunRecord:
    """Writes what a run did, in its directory and to the tracker; used as `with RunRecord(...)`.

    `facts` are those of the run that are known before it starts: code, versions, device, dtype,
    compile, data, parameters, parameters_trainable, flops_per_token. `step` is the step that the
    run goes on from, 0 for a new one: lines of later steps, which will be computed again, are
    dropped from the files, a torn last line too, and the rest is shown to the tracker once more.

    Leaving the block without `finish` records the run as interrupted, or as failed with the error.
    """

    def __init__(
        self, run: RunDirectory, facts: Mapping[str, Any], tracker: Tracker, step: int = 0
    ) -> None:
        self.run, self.facts, self.step = run, dict(facts), step
        self._tracker = tracker
        self._final: dict[str, float] | None = None
        self._curve: dict[int, dict[str, Any]] = {}
        self._started = run.read_record().get("started") or _now()

    def __enter__(self) -> Self:
        with explained(self.run.path, "runs_dir=DIR"):
            metrics = _keep_lines(self.run.path / "metrics.jsonl", self.step)
            media = _keep_lines(self.run.path / "media.jsonl", self.step)
            # The step that a checkpoint was saved at is evaluated again: the same bits, no new line.
            self._repeated = {_kind(line) for line in metrics + media if line["step"] == self.step}
            self._curve = {}
            for line in metrics:
                self._add_to_curve(line)
            self._time_before_s = max((line.get("time_s", 0.0) for line in metrics), default=0.0)
            self._began = time.monotonic()
            self._write_record("running")
            self._metrics = (self.run.path / "metrics.jsonl").open("a", encoding="utf-8")
            self._media = (self.run.path / "media.jsonl").open("a", encoding="utf-8")
        earlier = sorted(_events(metrics + media), key=lambda event: event.step)
        self._guard = GuardedTracker(self._tracker, self._tracked_run(), earlier)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        status, exit_code = _outcome(error, finished=self._final is not None)
        try:
            with explained(self.run.path, "runs_dir=DIR"):
                self._metrics.close()
                self._media.close()
                self._write_record(status, error if status == "failed" else None)
        except ValueError:
            if error is None:
                raise  # else the first error, such as a full disk, is the one to be seen
        finally:
            self._guard.close(exit_code)

    @property
    def time_s(self) -> float:
        """Wall time of the run so far, earlier sessions up to the resumed step included."""
        return self._time_before_s + time.monotonic() - self._began

    def log(self, step: int, metrics: Mapping[str, float | Tensor]) -> None:
        """Append one line; 0-d tensors become numbers here, which is the loop's only host sync."""
        self._log({"step": step, "time_s": self.time_s, **_numbers(metrics)})

    def log_masks(self, step: int, soft_masks: Mapping[str, Tensor]) -> None:
        """Append a histogram of each soft mask, whose values lie in [0, 1]."""
        histograms = {
            name: torch.histc(mask.detach().float(), bins=_BINS, min=0.0, max=1.0).int().tolist()
            for name, mask in soft_masks.items()
        }
        self._append_media({"step": step, "histograms": histograms})

    def log_samples(self, step: int, samples: Sequence[str]) -> None:
        """Append samples of generated text."""
        self._append_media({"step": step, "samples": list(samples)})

    def finish(self, step: int, metrics: Mapping[str, float | Tensor]) -> None:
        """Log the final evaluation; leaving the block then records the run as finished."""
        self._final = {"time_s": self.time_s, **_numbers(metrics)}
        # Marked: it may count more windows than the evaluations of the curve, at the same step.
        self._log({"step": step, "final": True, **self._final})

    def _log(self, line: dict[str, Any]) -> None:
        if self._append(self._metrics, line):
            self._add_to_curve(line)
            self._guard.put(*next(_events([line])))

    def _add_to_curve(self, line: Mapping[str, Any]) -> None:
        if "val/loss_nats" in line:
            point = {name: line[name] for name in ("step", *_CURVE) if name in line}
            self._curve.setdefault(line["step"], point)

    def _append_media(self, line: dict[str, Any]) -> None:
        if self._append(self._media, line):
            for event in _events([line]):
                self._guard.put(*event)

    def _append(self, file: Any, line: dict[str, Any]) -> bool:
        if line["step"] == self.step and _kind(line) in self._repeated:
            return False
        with explained(Path(file.name), "runs_dir=DIR"):
            file.write(to_json(line) + "\n")
            file.flush()
        return True

    def _tracked_run(self) -> TrackedRun:
        config = self.run.config
        table, scale = config.get("table"), config["scale"]
        return TrackedRun(
            id=self.run.id, directory=self.run.path, config=config,
            group=table or scale, job_type=config["row"], name=f"{config['row']} seed {config['seed']}",
            tags=[scale, config["row"], self.run.run_hash[:8]],
        )  # fmt: skip

    def _write_record(self, status: str, error: BaseException | None = None) -> None:
        config, curve = self.run.config, list(self._curve.values())
        record = {
            "schema": SCHEMA,
            **{key: config.get(key) for key in ("table", "row", "seed", "steps")},
            "status": status,
            "error": None if error is None else f"{type(error).__name__}: {error}",
            "run_hash": self.run.run_hash,
            "config": config,
            **self.facts,
            "metrics": self._final,
            "best": min(curve, key=lambda point: point["val/loss_nats"], default=None),
            "curve": curve,
            "started": self._started,
            "finished": None if status == "running" else _now(),
        }
        write_atomically(self.run.path / "record.json", to_json(record, indent=1) + "\n")
        if status != "running":
            keys = (
                "table",
                "row",
                "seed",
                "status",
                "error",
                "steps",
                "metrics",
                "best",
                "parameters",
            )
            summary = {key: record.get(key) for key in keys} | {"directory": str(self.run.path)}
            write_atomically(self.run.path / "summary.json", to_json(summary, indent=1) + "\n")
        publish(self.run, record)


def publish(run: RunDirectory, record: Mapping[str, Any]) -> None:
    """Copy the record to `results/runs/<table>/<row>/seed<k>.json` where the run has a table.

    A finished record there gives way to a finished one only: a later attempt that fails, or has
    just begun, takes nothing from a table.
    """
    if not record["table"]:
        return
    root = Path(run.config.get("results_dir") or "results") / "runs"
    path = root / record["table"] / record["row"] / f"seed{record['seed']}.json"
    with explained(path, "results_dir=DIR"):
        if record["status"] != "finished" and _status(path) == "finished":
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, to_json(record, indent=1) + "\n")


def _status(path: Path) -> str | None:
    try:
        status = json.loads(path.read_text(encoding="utf-8"))["status"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return str(status)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a JSON-lines file; a last line torn by a kill is left out.

    Raises ValueError, with the line's number, where an earlier line is not JSON.
    """
    try:
        *lines, _torn = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    parsed = []
    for number, line in enumerate(lines, start=1):
        try:
            parsed.append(json.loads(line))
            parsed[-1]["step"]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{path} line {number} is damaged ({line[:40]!r}): remove that line, "
                "or start the run anew with fresh=true"
            ) from error
    return parsed


def _keep_lines(path: Path, last_step: int) -> list[dict[str, Any]]:
    """Rewrite a JSON-lines file to its whole lines up to `last_step`, and return them."""
    kept = [line for line in read_lines(path) if line["step"] <= last_step]
    if path.exists():
        write_atomically(path, "".join(to_json(line) + "\n" for line in kept))
    return kept


def _events(lines: Sequence[Mapping[str, Any]]) -> Iterator[Event]:
    """Lines of both files as a tracker's events."""
    for line in lines:
        if "histograms" in line:
            masks = {f"masks/{name}": Histogram(n) for name, n in line["histograms"].items()}
            yield Event(line["step"], masks)
        elif "samples" in line:
            yield Event(line["step"], {"samples": line["samples"]})
        else:
            metrics = {name: v for name, v in line.items() if name not in ("step", "final")}
            yield Event(line["step"], metrics)


def _kind(line: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(line)


def _numbers(metrics: Mapping[str, float | Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if name != "step"}


def _outcome(error: BaseException | None, *, finished: bool) -> tuple[str, int]:
    """The run's status and exit code, from how its block was left."""
    if finished and error is None:
        return "finished", 0
    if error is None or isinstance(error, KeyboardInterrupt):
        return "interrupted", INTERRUPTED
    if isinstance(error, SystemExit) and error.code == INTERRUPTED:
        return "interrupted", INTERRUPTED
    return "failed", 1


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
