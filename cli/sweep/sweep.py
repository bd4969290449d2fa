"""Run the jobs of a sweep, some at a time."""

import signal
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from cli.sweep.jobs import Job
from cli.sweep.report import Report
from common.errors import FAILED, IN_USE, INTERRUPTED

POLL_S = 0.1


class Sweep:
    """Runs jobs in the environment `env`, as many at a time as `gpus_of_workers` has entries.

    Each worker runs one job after another, on its GPU where it has one. A job that fails leaves the
    others alone, and so does one whose run another process has: the run is left to that. A signal
    to this process, or a job that was itself interrupted, ends the sweep: no further job starts,
    those running are asked to save and exit, and a second signal kills them.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        env: Mapping[str, str],
        gpus_of_workers: Sequence[str | None],
        report: Report,
    ) -> None:
        self.env, self.gpus, self.report = env, gpus_of_workers, report
        self.waiting = deque(jobs)
        self.workers: list[Job | None] = [None] * len(gpus_of_workers)  # what each of them runs
        self.done: list[Job] = []
        self.interrupts = 0  # signals received, and jobs found interrupted
        self.obeyed = 0

    @property
    def running(self) -> list[Job]:
        return [job for job in self.workers if job is not None]

    def run(self) -> int:
        """Run all there is to run; return the exit code: 0, FAILED or INTERRUPTED."""
        with self._signals(), self.report:
            while self.running or (self.waiting and not self.interrupts):
                self._start()
                time.sleep(POLL_S)
                self._obey()
                self._collect()
                self.report.show(self.running)
        interrupted = [job for job in self.done if self._was_interrupted(job)]
        elsewhere = [job for job in self.done if job.code == IN_USE]
        failed = [job for job in self.done if job.code and job not in interrupted + elsewhere]
        self.report.summarize(self.done, failed, interrupted, elsewhere, list(self.waiting))
        return INTERRUPTED if interrupted or self.waiting else FAILED if failed else 0

    def _start(self) -> None:
        for worker, gpu in enumerate(self.gpus):
            if self.workers[worker] is None and self.waiting and not self.interrupts:
                self.workers[worker] = job = self.waiting.popleft()
                job.start(self.env, gpu)
                self.report.started(job)

    def _obey(self) -> None:
        """Pass on what was received since the last look: save at first, then stop at once."""
        if self.interrupts == self.obeyed:
            return
        again = self.obeyed > 0 or self.interrupts > 1
        self.obeyed = self.interrupts
        self.report.stopping(self.running, at_once=again)
        for job in self.running:
            if again:
                job.kill()
            else:
                job.interrupt()

    def _collect(self) -> None:
        for worker, job in enumerate(self.workers):
            if job is None or not job.poll():
                continue
            self.workers[worker] = None
            self.done.append(job)
            self.report.ended(job, interrupted=self._was_interrupted(job))
            if self._was_interrupted(job) and not self.interrupts:
                self.interrupts = 1

    def _was_interrupted(self, job: Job) -> bool:
        # A job that was asked to stop before it had set up its handlers dies of the signal.
        died_of_it = job.asked_to_stop and job.code is not None and job.code < 0
        return job.code == INTERRUPTED or died_of_it

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Count the signals that mean stop; the loop obeys them."""

        def count(*_: object) -> None:
            self.interrupts += 1

        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = [signal.signal(number, count) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)
