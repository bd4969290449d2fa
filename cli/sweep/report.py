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

from cli.rows import as_typed
from cli.sweep.jobs import Job
from cli.sweep.outcome import read_outcome, table_of
from common.errors import IN_USE

REFRESH_S = 1.0


class Report:
    """Prints; on a terminal it also keeps, at the bottom, the last words of the running jobs."""

    what = "job"  # that it counts

    def __init__(self, n_jobs: int, gpus_of_workers: Sequence[str | None], folder: Path) -> None:
        workers = len(gpus_of_workers)
        given = [gpus.split(",") for gpus in gpus_of_workers[:n_jobs] if gpus is not None]
        gpus = {gpu for some in given for gpu in some}
        self.n_jobs, self.began, self.refreshed = n_jobs, time.monotonic(), 0.0
        self.console = Console(highlight=False, soft_wrap=True)
        # Refreshed by hand: a thread would be copied, locks and all, into each job's fork.
        self.live = Live(console=self.console, auto_refresh=False, transient=True)
        at_a_time = f", {workers} at a time" if workers > 1 else ""
        self._say(f"{n_jobs} {self.what}{'s' * (n_jobs != 1)}{at_a_time}; logs in {folder}", "bold")
        if sum(map(len, given)) > len(gpus):
            at_once = min(workers, n_jobs)
            shared = f"{len(gpus)} GPUs" if len(gpus) > 1 else "one GPU"
            self._say(f"{at_once} jobs at a time share {shared}: each has less memory and speed")

    def __enter__(self) -> None:
        if self.console.is_terminal:
            self.live.start()

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.live.stop()

    def started(self, job: Job) -> None:
        on_gpu = f" on GPU {job.gpu}" if job.gpu else ""
        self._say(f"{self._name(job)}  started{on_gpu}")

    def ended(self, job: Job, interrupted: bool) -> None:
        if job.code == 0:
            self._say(f"{self._name(job)}  finished in {_clock(job.seconds)}", "green")
        elif job.code == IN_USE:
            self._say(f"{self._name(job)}  left to another process: {job.reason()}", "yellow")
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
        elsewhere: Sequence[Job],
        waiting: Sequence[Job],
    ) -> None:
        """What the finished ones came to, and what to do about the rest."""
        finished = [job for job in done if job.code == 0]
        self._show_losses(finished)
        self._show_unsent(finished)
        counts = {
            "finished": len(finished),
            "failed": len(failed),
            "interrupted": len(interrupted),
            "in another process": len(elsewhere),
            "not started": len(waiting),
        }
        told = ", ".join(f"{n} {what}" for what, n in counts.items() if n or what == "finished")
        self._say(f"{told}, in {_clock(time.monotonic() - self.began)}", "bold")
        for job in failed:
            self._say(f"{self._name(job)}  {job.reason()}\n    {job.log}", "red")
        if failed or interrupted or elsewhere or waiting:
            # Jobs that are finished say so at once, so the same command fills the gaps.
            self._say(f"to go on: {shlex.join(['python', *as_typed(sys.argv)])}")

    def _show_losses(self, finished: Sequence[Job]) -> None:
        """The runs by their last val loss, and the commands that make tables of them."""
        found = [outcome for job in finished if (outcome := read_outcome(job))]
        if not found:
            return
        width = max(len(outcome.row) for outcome in found)
        self._say(f"{'':{width}}  seed  val, last    best, at step", "bold")
        for one in sorted(found, key=lambda one: one.val):
            best = f"{one.best:.3f}, {one.best_step}"
            self._say(f"{one.row:{width}}  {one.seed:>4}  {one.val:>9.3f}    {best}")
        for line in table_of(found):
            self._say(line)
        for folder in sorted({outcome.folder for outcome in found}):
            command = ["python", "-m", "experiments.table", "--runs", str(folder)]
            self._say(f"a table of them: {shlex.join(command)}")

    def _show_unsent(self, finished: Sequence[Job]) -> None:
        """One command for W&B's offline files of finished runs; an unfinished one's are not whole."""
        directories = [found for job in finished if (found := job.run_directory())]
        files = [file for one in directories for file in one.glob("wandb/offline-run-*/*.wandb")]
        # W&B marks what it has sent.
        unsent = {str(f.parent) for f in files if not f.with_name(f"{f.name}.synced").exists()}
        if unsent:
            self._say(f"to send them to W&B: {shlex.join(['wandb', 'sync', *sorted(unsent)])}")

    def _name(self, job: Job) -> str:
        return f"{job.number:>{len(str(self.n_jobs))}}/{self.n_jobs}  {job.title}"

    def _say(self, line: str, style: str = "") -> None:
        self.console.print(Text(line, style=style))


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
