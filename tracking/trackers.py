"""Trackers: the run as others see it, in W&B or nowhere.

A tracker is a projection of the run's own files: it consumes events, and after a resume it gets
the earlier ones again from those files. So it may fail, hang or be unreachable at any moment, and
nothing is lost that could not be shown again.
"""

import logging
import netrc
import os
import queue
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import numpy as np

from common.errors import UserError

logger = logging.getLogger(__name__)

# What a tracker may cost a run, all of it at the end and none of it in the loop.
START_TIMEOUT_S = 30.0  # since the run began
FINISH_TIMEOUT_S = 60.0
CAPACITY = 10_000  # events waiting
_END = None

# Not every metric: the minimum of a histogram or a table would be nonsense.
_WITH_MINIMUM = ("train/*", "val/*", "eval/*")


@dataclass(frozen=True)
class Histogram:
    """Counts in bins of equal width over [0, 1]."""

    counts: list[int]


Value = float | Histogram | Sequence[str]  # a metric, a mask, samples of text


class Event(NamedTuple):
    step: int
    values: Mapping[str, Value]


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


class WandbTracker:
    """Weights & Biases, with a table as group and a row as job type.

    `mode` is `online`, `offline` or `auto`: online where W&B's own places (WANDB_API_KEY, the
    netrc file of `wandb login`) hold a key, else offline. Raises ValueError for another mode, and
    for `online` without a key, where W&B would stop and ask on the terminal.
    """

    def __init__(
        self,
        *,
        project: str,
        entity: str | None = None,
        mode: str = "auto",
        tags: Sequence[str] = (),
    ) -> None:
        if mode not in ("auto", "online", "offline"):
            raise UserError(f"tracker.mode={mode} must be one of auto, online, offline")
        if mode == "online" and not has_wandb_key():
            raise UserError(
                "tracker.mode=online needs a W&B key, and there is none: run `wandb login`, set "
                "WANDB_API_KEY, or use tracker.mode=auto, which then runs offline"
            )
        self.project, self.entity, self.tags = project, entity, list(tags)
        # None: as W&B's own settings have it (WANDB_MODE, `wandb offline`), and online without any.
        self.mode: Any = (None if has_wandb_key() else "offline") if mode == "auto" else mode

    def track(self, run: TrackedRun, events: Iterable[Event]) -> None:
        # W&B's reports on itself go out to a third party, and without a connection delay the exit.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb  # half a second, and on the tracker's own thread

        wandb.setup(wandb.Settings(silent=True))
        with wandb.init(
            project=self.project, entity=self.entity, mode=self.mode, id=run.id, resume="allow",
            group=run.group, job_type=run.job_type, name=run.name, tags=[*run.tags, *self.tags],
            config=dict(run.config), dir=str(run.directory), settings=_wandb_settings(),
        ) as session:  # fmt: skip
            folder, failure = Path(session.dir).parent, None
            try:
                self._send(session, run, events)
            except Exception as error:  # else W&B prints its traceback amid the run's own words
                failure = error
        if failure is not None:
            raise failure
        if session.offline:
            logger.info(
                "W&B, offline: look with `wandb leet %s`, send with `wandb sync %s`", folder, folder
            )

    def _send(self, session: Any, run: TrackedRun, events: Iterable[Event]) -> None:
        if session.offline:
            _remove_superseded(run.directory, Path(session.dir).parent)
        else:
            logger.info("W&B: %s", session.url)
        for metrics in _WITH_MINIMUM:
            session.define_metric(metrics, summary="min,last")
        for step, values in events:
            # After a resume online, W&B's server already holds the steps before this one.
            if step >= session.starting_step:
                session.log({name: _to_wandb(value) for name, value in values.items()}, step)
        if run.exit_code == os.EX_TEMPFAIL:
            session.mark_preempting()
        session.finish(run.exit_code)


def has_wandb_key() -> bool:
    """Whether W&B will find a key in one of its own places; the key itself is not read."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    names = [os.environ["NETRC"]] if "NETRC" in os.environ else ["~/.netrc", "~/_netrc"]
    for file in (Path(name).expanduser() for name in names):
        try:
            if host in netrc.netrc(file).hosts:
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


def _wandb_settings() -> Any:
    import wandb

    return wandb.Settings(
        console="off",  # the terminal is the run's own
        silent=True,
        disable_git=True,  # a remote's address may hold a password; the facts have the commit
        save_code=False,
        init_timeout=START_TIMEOUT_S,
        login_timeout=START_TIMEOUT_S,
        finish_timeout=0.75 * FINISH_TIMEOUT_S,  # before the guard's: what is left can be synced
        finish_timeout_raises=True,
    )


def _to_wandb(value: Value) -> Any:
    import wandb

    if isinstance(value, Histogram):
        edges = np.linspace(0.0, 1.0, len(value.counts) + 1)
        return wandb.Histogram(np_histogram=(np.asarray(value.counts), edges))
    if isinstance(value, float | int):
        return value
    return wandb.Table(columns=["sample"], data=[[text] for text in value])


def _remove_superseded(directory: Path, current: Path) -> None:
    """Delete earlier offline copies of this run: the current one is given every event again.

    W&B writes a new file at each start, and one that was killed lacks its last 15 seconds. Only one
    whole file leaves neither gaps nor doubled steps, whoever syncs it.
    """
    for earlier in directory.glob("wandb/offline-run-*"):
        if earlier.name != current.name:
            shutil.rmtree(earlier, ignore_errors=True)


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
                    "the tracker is dropped: %s. The run goes on, and %s has all of it",
                    reason,
                    self._run.directory,
                )
            self._dropped = True
