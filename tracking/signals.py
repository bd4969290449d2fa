"""A signal to stop: finish the step, save, and leave; a second one to stop leaves at once."""

import os
import shlex
import signal
import sys
from types import FrameType, TracebackType
from typing import Any, Self

from common.errors import INTERRUPTED

# A person's, whose second means at once.
STOPS = (signal.SIGINT, signal.SIGTERM)
# A cluster's word ahead of a time-out or a preemption: it may come again, or before a SIGTERM.
NOTICES = (signal.SIGUSR1, signal.SIGUSR2)


class StopSignals:
    """Within `with StopSignals() as stop`, SIGINT, SIGTERM, SIGUSR1 and SIGUSR2 set `stop.requested`.

    The loop looks at it after each step, saves and raises `stop.interrupted()`. As that leaves the
    block, with the run's record closed, a handler that somebody had set before for a signal that
    came is called, as if the signal came now: submitit's puts the job in the queue again. Where it
    returns, or there was none, the process exits with 75.

    A second SIGINT or SIGTERM ends the process at once with 128 + its number (130, 143), as a shell
    reports it: every file of a run is written so that this loses no more than the steps since the
    last checkpoint. Without `says` nothing is printed: the first of several ranks speaks for all.
    """

    def __init__(self, *, says: bool = True) -> None:
        self.requested, self._silent = False, not says
        self._received: list[int] = []
        self._before: dict[int, Any] = {}
        self._exit: SystemExit | None = None

    def __enter__(self) -> Self:
        for signum in (*STOPS, *NOTICES):
            self._before[signum] = signal.signal(signum, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        if error is not None and error is self._exit:
            for signum in self._handed_over():
                self._before[signum](signum, None)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        name = signal.Signals(signum).name
        stops = signum in STOPS
        if stops and not set(STOPS).isdisjoint(self._received):
            self._say(f"{name} again: stopping at once. To go on: {resume_command()}")
            os._exit(128 + signum)
        first = signum not in self._received
        self._received.append(signum)  # before a word: the next signal may come while it is said
        self.requested = True
        if first:
            again = " A second one stops at once." if stops else ""
            self._say(f"{name}: finishing this step and saving.{again}")

    def _handed_over(self) -> list[int]:
        """The signals that came, each once, and that somebody else handled before."""
        came = dict.fromkeys(self._received)
        return [signum for signum in came if _is_own(self._before[signum])]

    def interrupted(self) -> SystemExit:
        """Say how it goes on; the exit, with code 75, is the caller's to raise."""
        if names := [signal.Signals(signum).name for signum in self._handed_over()]:
            self._say(f"interrupted, a checkpoint is saved; {', '.join(names)} is handed on")
        else:
            self._say(f"interrupted, a checkpoint is saved. To go on: {resume_command()}")
        self._exit = SystemExit(INTERRUPTED)
        return self._exit

    def _say(self, line: str) -> None:
        # os.write and not print: a signal may arrive while the stream's own lock is held.
        if not self._silent:
            os.write(2, f"\n{line}\n".encode())


def _is_own(handler: Any) -> bool:
    """Whether a handler is somebody's own, and not the system's or Python's default."""
    return callable(handler) and handler is not signal.default_int_handler


def resume_command() -> str:
    """The command that was given, without `fresh=...`, which would begin anew."""
    arguments = [word for word in sys.argv if not word.lstrip("+").startswith("fresh=")]
    if ranks := os.environ.get("LOCAL_WORLD_SIZE"):
        return shlex.join(["torchrun", "--standalone", f"--nproc-per-node={ranks}", *arguments])
    return shlex.join(["python", *arguments])
