"""Run a study's trials, some at a time."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import optuna
from optuna.trial import Trial, TrialState

from cli.sweep.jobs import Job
from cli.sweep.outcome import read_outcome
from cli.sweep.sweep import Sweep
from common.errors import IN_USE, MISTAKEN, NON_FINITE
from search.curve import n_steps, val_curve
from search.report import SearchReport
from search.space import Space
from search.study import ask, cut_off, results

TRAIN = Path(__file__).parents[1] / "train.py"
LOOK_EVERY_S = 1.0


@dataclass(eq=False)
class Attempt:
    """A trial that runs: the job of one of its seeds after the other."""

    trial: Trial
    overrides: Sequence[str]
    values: dict[str, float]  # by seed, of the runs that are finished
    seeds: Iterator[int]  # whose runs are still to come
    reported: set[int]
    watched: bool = False  # whether its job is of the first seed, whose losses the pruner reads
    pruned: bool = False
    directory: Path | None = None
    looked: float = field(default_factory=monotonic)


class Search(Sweep):
    """A sweep whose next job depends on what the others came to.

    Up to `n_trials` of the study have a result in the end. A trial is a job for each seed of the
    space; its value is the mean over them of the val loss at each run's best checkpoint. The losses
    of the first seed are read as they come, and a job is asked to stop where the pruner says so. A
    trial whose loss is not finite counts as pruned, one that fails does not count: the same search
    given again makes another. A trial that is cut off stays open, and is gone on with.
    """

    report: SearchReport

    def __init__(
        self,
        study: optuna.Study,
        space: Space,
        n_trials: int,
        common: Sequence[str],
        env: Mapping[str, str],
        gpus_of_workers: Sequence[str | None],
        report: SearchReport,
    ) -> None:
        super().__init__([], env, gpus_of_workers, report)
        self.study, self.space, self.n_trials, self.common = study, space, n_trials, common
        self.open = cut_off(study)
        self.attempts: dict[Job, Attempt] = {}
        self.n_failed = 0

    def run(self) -> int:
        self._fill()
        return super().run()

    def _fill(self) -> None:
        """Have a job waiting for each worker that is free, while there are trials to make."""
        while not self.interrupts and len(self.waiting) < self.workers.count(None):
            if len(results(self.study)) + len(self.attempts) + self.n_failed >= self.n_trials:
                return
            self._begin(self.open.pop(0) if self.open else ask(self.study))

    def _begin(self, trial: Trial) -> None:
        overrides = self.space.told(self.space.suggest(trial))
        values = trial.user_attrs.get("values", {})
        seeds = [seed for seed in self.space.seeds if str(seed) not in values]
        reported = set(self.study.trials[trial.number].intermediate_values)
        self._next_seed(Attempt(trial, overrides, dict(values), iter(seeds), reported))

    def _next_seed(self, attempt: Attempt) -> None:
        """Queue the job of the trial's next seed; where there is none, the trial has its value."""
        seed, number = next(attempt.seeds, None), attempt.trial.number
        if seed is None:
            value = sum(attempt.values.values()) / len(attempt.values)
            self.study.tell(attempt.trial, value)
            self.report.valued(number, value, self.study.best_trial)
            return
        attempt.watched, attempt.directory = not attempt.values, None
        overrides = [*self.common, *attempt.overrides, f"seed={seed}"]
        title = " ".join([*attempt.overrides, f"seed={seed}"])
        log = self.report.folder / "logs" / f"trial{number}-seed{seed}.log"
        job = Job(number, title, [sys.executable, str(TRAIN), *overrides], log)
        self.attempts[job] = attempt
        self.waiting.append(job)

    def _collect(self) -> None:
        for job in self.running:
            self._watch(job)
        n_done = len(self.done)
        super()._collect()
        for job in self.done[n_done:]:
            self._settle(job, self.attempts.pop(job))
        self._fill()

    def _watch(self, job: Job) -> None:
        """Report new val losses of a running job to the pruner, and ask it to stop where it says so."""
        attempt = self.attempts[job]
        if not attempt.watched or attempt.pruned or monotonic() - attempt.looked < LOOK_EVERY_S:
            return
        attempt.looked = monotonic()
        attempt.directory = attempt.directory or job.run_directory()
        step = self._report_losses(attempt)
        if step is None or attempt.directory is None or self.interrupts:
            return
        steps = n_steps(attempt.directory)
        if self.space.prune_from * steps <= step < steps and attempt.trial.should_prune():
            attempt.pruned = True
            self.report.prunes(job, step)
            job.interrupt()

    def _report_losses(self, attempt: Attempt) -> int | None:
        """Tell the study the lowest loss at each new step; the last of them, if there is any."""
        if attempt.directory is None:
            return None
        curve = val_curve(attempt.directory)
        new = {step: lowest for step, lowest in curve.items() if step not in attempt.reported}
        for step, lowest in new.items():
            attempt.trial.report(lowest, step)
        attempt.reported |= set(new)
        return max(new, default=None)

    def _settle(self, job: Job, attempt: Attempt) -> None:
        """What an ended job means for its trial."""
        if attempt.watched:
            attempt.directory = attempt.directory or job.run_directory()
            self._report_losses(attempt)
        outcome = read_outcome(job) if job.code == 0 else None
        if outcome is not None:
            attempt.pruned = False  # too late: it had ended
            attempt.values[str(outcome.seed)] = outcome.best
            attempt.trial.set_user_attr("values", attempt.values)
            self._next_seed(attempt)
        elif attempt.pruned or job.code == NON_FINITE:
            if not attempt.pruned:
                attempt.trial.set_user_attr("why", "not finite")
            self.study.tell(attempt.trial, state=TrialState.PRUNED)
            self.done.remove(job)  # a result, and no failure
        elif not self._was_interrupted(job):
            attempt.trial.set_user_attr("why", job.reason())
            self.study.tell(attempt.trial, state=TrialState.FAIL)
            self.n_failed += 1
            if job.code == MISTAKEN:
                self.interrupts += 1  # a mistake in the command is every trial's

    def _was_interrupted(self, job: Job) -> bool:
        attempt = self.attempts.get(job)
        if attempt and attempt.pruned:
            return False
        # A run that another process has is gone on with later; another trial would not wait for it.
        return job.code == IN_USE or super()._was_interrupted(job)
