"""Trackers: the run as others see it, in a dashboard or nowhere.

A tracker is a projection of the run's own files: it consumes events, and after a resume it gets
the earlier ones again from those files. So it may fail, hang or be unreachable at any moment, and
nothing is lost that could not be shown again.
"""

import logging
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

logger = logging.getLogger(__name__)

# What a tracker may cost a run, all of it at the end and none of it in the loop.
START_TIMEOUT_S = 30.0  # since the run began
FINISH_TIMEOUT_S = 60.0
CAPACITY = 10_000  # events waiting
_END = None

# Metrics that the run's own files keep without a group, and the one that a dashboard shows them in.
_GROUPED = {
    "lr": "optimizer/lr",
    "tokens_per_s": "speed/tokens_per_s",
    "memory_bytes": "speed/memory_bytes",
    "time_s": "progress/time_s",
    "tokens": "progress/tokens",
    "epoch": "progress/epoch",
}


@dataclass(frozen=True)
class Histogram:
    """Counts in bins of equal width over [0, 1]."""

    counts: list[int]


Value = float | Histogram | Sequence[str]  # a metric, a mask, samples of text


class Event(NamedTuple):
    """What was measured at a step; `closing`: once, at the run's end, so that it has no curve."""

    step: int
    values: Mapping[str, Value]
    closing: bool = False


@dataclass
class TrackedRun:
    """What a tracker may know of a run; `exit_code` is set before the events end."""

    id: str
    directory: Path
    config: Mapping[str, Any]
    group: str
    job_type: str
    name: str
    tags: list[str] = field(default_factory=list)
    exit_code: int = 0


class Tracker(Protocol):
    def track(self, run: TrackedRun, events: Iterable[Event]) -> None:
        """Show the events until they end. Called on a thread of its own; may raise."""
        ...


class NoTracker:
    """`tracker=none`: the run's own files are all."""

    def track(self, run: TrackedRun, events: Iterable[Event]) -> None:
        pass


def shown(values: Mapping[str, Value], modules: bool) -> dict[str, Value]:
    """The values as a dashboard names them: each in a group, and without dots, which it would nest.

    Without `modules` those of single modules stay out, for a deep model has hundreds: of the soft
    masks' histograms there is one of all together, `masks/all`.
    """
    masks = [value for value in values.values() if isinstance(value, Histogram)]
    named = {
        _GROUPED.get(name, name).replace(".", "_"): value
        for name, value in values.items()
        if modules or not (isinstance(value, Histogram) or "modules" in name.split("/"))
    }
    return named | {"masks/all": _together(masks)} if masks else named


def _together(histograms: Sequence[Histogram]) -> Histogram:
    """One histogram of all: in each bin the sum of their counts."""
    counts = zip(*(histogram.counts for histogram in histograms), strict=True)
    return Histogram([sum(bins) for bins in counts])


class GuardedTracker:
    """A tracker on a thread of its own, which can neither fail, stop nor block the run.

    At the first failure it warns once, and the run goes on without it.
    """

    def __init__(
        self,
        tracker: Tracker,
        run: TrackedRun,
        earlier: Iterable[Event] = (),
        *,
        start_timeout_s: float = START_TIMEOUT_S,
        finish_timeout_s: float = FINISH_TIMEOUT_S,
        capacity: int = CAPACITY,
    ) -> None:
        self._tracker, self._run, self._earlier = tracker, run, earlier
        self._start_timeout_s, self._finish_timeout_s = start_timeout_s, finish_timeout_s
        self._queue: queue.Queue[Event | None] = queue.Queue(capacity)
        self._started, self._dropped, self._lock = False, False, threading.Lock()
        self._began = time.monotonic()
        # A daemon: a tracker that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name="tracker", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> bool:
        """Whether the tracker failed, or did not answer: it lacks a part of the run, or all of it."""
        return self._dropped

    def put(self, event: Event) -> None:
        """Hand an event over; never waits."""
        if self._dropped or not self._thread.is_alive():
            return
        try:
            self._queue.put_nowait(event)
        except queue.Full:
            self._drop("it does not keep up")

    def close(self, exit_code: int) -> None:
        """End the events and wait for the tracker, within its bounds."""
        if self._dropped:
            return
        self._run.exit_code = exit_code
        try:
            self._queue.put_nowait(_END)
        except queue.Full:
            self._drop("it does not keep up")
            return
        deadline = self._began + self._start_timeout_s
        while not self._started and self._thread.is_alive() and time.monotonic() < deadline:
            self._thread.join(0.05)
        if self._started:
            self._thread.join(self._finish_timeout_s)
        if self._thread.is_alive():
            self._drop("it does not answer")

    def _work(self) -> None:
        try:
            self._tracker.track(self._run, self._events())
        except BaseException as error:
            self._drop(f"{type(error).__name__}: {error}")

    def _events(self) -> Iterator[Event]:
        self._started = True
        yield from self._earlier
        while (event := self._queue.get()) is not _END:
            yield event

    def _drop(self, reason: str) -> None:
        with self._lock:  # both threads may find a reason
            if not self._dropped:
                logger.warning(
                    "the tracker is dropped: %s. The run is not touched by it, and %s has all of it",
                    reason,
                    self._run.directory,
                )
            self._dropped = True
