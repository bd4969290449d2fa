"""Ctrl-C and SIGTERM: finish the step and save; a second one stops at once."""

import os
import shlex
import signal
import sys
from types import FrameType, TracebackType
from typing import Any, Self

from common.errors import INTERRUPTED


class StopSignals:
    """Within `with StopSignals() as stop`, SIGINT and SIGTERM set `stop.requested`.

    The loop looks at it after each step, saves and raises `stop.interrupted()`. A second signal
    ends the process at once with 128 + its number (130, 143), as a shell reports it: every file of
    a run is written so that this loses no more than the steps since the last checkpoint.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for signum in (signal.SIGINT, signal.SIGTERM):
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

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        name = signal.Signals(signum).name
        if self.requested:
            _say(f"{name} again: stopping at once. To go on: {resume_command()}")
            os._exit(128 + signum)
        self.requested = True
        _say(f"{name}: finishing this step and saving. A second one stops at once.")

    def interrupted(self) -> SystemExit:
        """Say how to go on; the exit, with code 75, is the caller's to raise."""
        _say(f"interrupted, a checkpoint is saved. To go on: {resume_command()}")
        return SystemExit(INTERRUPTED)


def resume_command() -> str:
    """The command that was given, without `fresh=...`, which would begin anew."""
    arguments = [word for word in sys.argv if not word.lstrip("+").startswith("fresh=")]
    return shlex.join(["python", *arguments])


def _say(line: str) -> None:
    # os.write and not print: a signal may arrive while the stream's own lock is held.
    os.write(2, f"\n{line}\n".encode())
