"""What a sweep says on the terminal: a line as a job starts and ends, and a summary."""

import shlex
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from cli.sweep.jobs import Job

REFRESH_S = 1.0


class Report:
    """Prints; on a terminal it also keeps, at the bottom, the last words of the running jobs."""

    def __init__(self, n_jobs: int, workers: int, folder: Path) -> None:
        self.n_jobs, self.began, self.refreshed = n_jobs, time.monotonic(), 0.0
        self.console = Console(highlight=False, soft_wrap=True)
        # Refreshed by hand: a thread would be copied, locks and all, into each job's fork.
        self.live = Live(console=self.console, auto_refresh=False, transient=True)
        at_a_time = f", {workers} at a time" if workers > 1 else ""
        self._say(f"{n_jobs} job{'s' * (n_jobs != 1)}{at_a_time}; logs in {folder}", "bold")

    def __enter__(self) -> None:
        if self.console.is_terminal:
            self.live.start()

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.live.stop()

    def started(self, job: Job) -> None:
        self._say(f"{self._name(job)}  started")

    def ended(self, job: Job, interrupted: bool) -> None:
        if job.code == 0:
            self._say(f"{self._name(job)}  finished in {_clock(job.seconds)}", "green")
        elif interrupted:
            self._say(f"{self._name(job)}  interrupted after {_clock(job.seconds)}", "yellow")
        else:
            after = _clock(job.seconds)
            self._say(f"{self._name(job)}  failed after {after}, {job.reason()}", "red")

    def stopping(self, running: Sequence[Job], at_once: bool) -> None:
        if at_once:
            self._say("stopping at once", "yellow")
        elif running:
            self._say("stopping: the running jobs save first; Ctrl-C again kills them", "yellow")

    def show(self, running: Sequence[Job]) -> None:
        """Refresh what the running jobs say, once a second."""
        if self.live.is_started and time.monotonic() - self.refreshed > REFRESH_S:
            self.refreshed = time.monotonic()
            lines = [f"{self._name(j)}  {_clock(j.seconds)}  {j.last_line()}" for j in running]
            rows = [Text(line, no_wrap=True, overflow="ellipsis", style="dim") for line in lines]
            self.live.update(Group(*rows), refresh=True)

    def summarize(
        self,
        done: Sequence[Job],
        failed: Sequence[Job],
        interrupted: Sequence[Job],
        waiting: Sequence[Job],
    ) -> None:
        """How many finished, and what to do about the rest."""
        counts = {
            "finished": len(done) - len(failed) - len(interrupted),
            "failed": len(failed),
            "interrupted": len(interrupted),
            "not started": len(waiting),
        }
        told = ", ".join(f"{n} {what}" for what, n in counts.items() if n or what == "finished")
        self._say(f"{told}, in {_clock(time.monotonic() - self.began)}", "bold")
        for job in failed:
            self._say(f"{self._name(job)}  {job.reason()}\n    {job.log}", "red")
        if failed or interrupted or waiting:
            # Jobs that are finished say so at once, so the same command fills the gaps.
            self._say(f"to go on: {shlex.join(['python', *sys.argv])}")

    def _name(self, job: Job) -> str:
        return f"{job.number:>{len(str(self.n_jobs))}}/{self.n_jobs}  {job.title}"

    def _say(self, line: str, style: str = "") -> None:
        self.console.print(Text(line, style=style))


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
