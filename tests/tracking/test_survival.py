"""Real runs, real signals, real limits: stopped in any way, the same command ends with the same bits.

A few points of what `python -m tests.soak` does for ten minutes.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.soak import faults
from tests.soak.faults import Trial
from tests.soak.runs import Nursery, ending, training_s
from tracking.checkpoint import FACTS, MANIFEST, TENSORS

slow = pytest.mark.slow


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    directory = tmp_path_factory.mktemp("survival")
    with Nursery(directory) as nursery:
        nursery.run(directory)
        chance = random.Random(0)
        yield Trial(nursery, directory, chance, ending(directory), training_s(directory))


@pytest.fixture
def trial(undisturbed: Trial, tmp_path: Path) -> Trial:
    return replace(undisturbed, place=tmp_path / "run")


@slow
def test_a_run_is_the_same_bits_every_time(trial: Trial) -> None:
    trial.go_on()


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=slow)])
def test_sigkill_at_a_random_moment(trial: Trial, seed: int) -> None:
    faults.killed_at_random(replace(trial, chance=random.Random(seed)))


@pytest.mark.parametrize(
    "nth", [pytest.param(1, marks=slow), 40, *(pytest.param(n, marks=slow) for n in (20, 60, 80))]
)
def test_sigkill_in_the_midst_of_writing(trial: Trial, nth: int) -> None:
    faults.killed_in_files(trial, nth)


@pytest.mark.parametrize(
    ("phase", "nth", "name"),
    [
        ("step", 5, "SIGTERM"),
        pytest.param("step", 5, "SIGUSR2", marks=slow),
        pytest.param("step", 7, "SIGUSR1", marks=slow),
        pytest.param("evaluation", 1, "SIGINT", marks=slow),
        pytest.param("saving", 2, "SIGTERM", marks=slow),
    ],
)
def test_a_signal_finishes_the_step_and_saves(
    trial: Trial, phase: str, nth: int, name: str
) -> None:
    faults.stopped(trial, phase, nth, name)


@pytest.mark.parametrize("name", ["SIGUSR2", pytest.param("SIGTERM", marks=slow)])
def test_a_former_handler_has_the_signal_once_the_run_is_saved(trial: Trial, name: str) -> None:
    faults.handed_on(trial, 5, name)  # no step at which the run saves of itself


@pytest.mark.parametrize("name", ["SIGINT", pytest.param("SIGTERM", marks=slow)])
def test_a_second_signal_stops_at_once(trial: Trial, name: str) -> None:
    faults.stopped_twice(trial, "step", 5, name)


@pytest.mark.parametrize(
    "name", [TENSORS, pytest.param(FACTS, marks=slow), pytest.param(MANIFEST, marks=slow)]
)
def test_a_flipped_bit_costs_only_the_steps_since_the_checkpoint_before(
    trial: Trial, name: str
) -> None:
    faults.damaged(trial, name)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("gradient", math.nan),
        pytest.param("gradient", math.inf, marks=slow),
        pytest.param("weight", math.nan, marks=slow),
    ],
)
def test_what_is_not_finite_stops_the_run_before_the_update(
    trial: Trial, kind: str, value: float
) -> None:
    faults.not_finite(trial, kind, value)


def test_out_of_memory_is_explained(trial: Trial) -> None:
    faults.out_of_memory(trial)


@pytest.mark.parametrize(
    ("phase", "nth", "n_bytes"),
    [pytest.param("step", 5, 8000, marks=slow), ("saving", 2, 100_000)],
)
def test_a_full_disk_is_explained(trial: Trial, phase: str, nth: int, n_bytes: int) -> None:
    faults.disk_full(trial, phase, nth, n_bytes)


def test_two_processes_do_not_share_a_run(trial: Trial) -> None:
    faults.started_twice(trial)
