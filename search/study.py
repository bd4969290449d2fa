"""A search's study: Optuna's, in a journal on the disk, held by one process at a time."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random

import optuna
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from common.errors import InUseError, UserError
from common.locks import acquire
from search.space import Space

JOURNAL = "journal.log"
RESULTS = (TrialState.COMPLETE, TrialState.PRUNED)  # what counts as one of the trials asked for


@contextmanager
def open_study(folder: Path, space: Space, given: Sequence[str]) -> Iterator[optuna.Study]:
    """The study of that folder, made where it is missing.

    Raises UserError where another process has it, where it was begun with another space or other
    overrides (`given` on the command line), and where its journal is damaged.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def refuse(holder: str) -> None:
        raise InUseError(
            f"{folder} is in use by {holder}: wait for it, or --study NAME for another"
        )

    lock = acquire(folder / "lock", refuse)
    journal = (folder / JOURNAL).absolute()
    try:
        _mend(journal)
        try:
            study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(journal))),
                study_name=folder.name,
                pruner=MedianPruner(),
                load_if_exists=True,
            )
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{journal} is not a study's journal ({error}): move it away and search anew; runs "
                "that are there already are found finished"
            ) from error
        _check(study, space, given)
        yield study
    finally:
        os.close(lock)


def _mend(journal: Path) -> None:
    """Take away what a killed process left: a torn last line, and the lock of its last write."""
    journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)
    if journal.exists():
        with journal.open("rb+") as file:
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)


def _check(study: optuna.Study, space: Space, given: Sequence[str]) -> None:
    """A study is of one space and one set of overrides; its title may be put better."""
    own = json.loads(json.dumps({**space.model_dump(exclude={"title"}), "given": list(given)}))
    known = study.user_attrs.get("search")
    if known is None:
        study.set_user_attr("search", own)
    elif known != own:
        other = ", ".join(key for key in own if own[key] != known.get(key))
        raise UserError(
            f"study={study.study_name} was begun with other {other}: its trials would not be "
            "comparable. --study NAME begins another"
        )


def results(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that came to a result: a loss, or pruned."""
    return study.get_trials(deepcopy=False, states=RESULTS)


def complete(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that came to a loss."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def cut_off(study: optuna.Study) -> list[Trial]:
    """The trials that an earlier process was stopped in, to go on with."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return [Trial(study, trial._trial_id) for trial in running]


def ask(study: optuna.Study) -> Trial:
    """A new trial, drawn by the study's name, the trial's number and the results so far alone.

    So a search that was killed and gone on with makes the trials that it would have made.
    """
    seed = Random(f"{study.study_name}/{len(study.trials)}").getrandbits(32)
    study.sampler = TPESampler(seed=seed)
    return study.ask()
