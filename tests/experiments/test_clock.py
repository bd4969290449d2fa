"""A row's val loss as none's on a slower clock plus a constant: both are found where they made it."""

import math
from collections.abc import Callable

import pytest

from experiments.clock import clock, clocks, slowed, slower_clock
from experiments.pairs import Point as Pair
from experiments.records import Finished, Point
from experiments.runs import RowRuns
from experiments.spec import Row
from experiments.statistics import mean_interval, paired_difference

EPOCHS = 40


def run(val: Callable[[float], float], seed: int = 1, every: float = 1.0) -> Finished:
    """A record of nothing but its curve over 40 epochs of 10 steps."""
    points = [
        Point(step=round(10 * every * i), **{"val/loss_nats": val(every * i)})
        for i in range(1, round(EPOCHS / every) + 1)
    ]
    metrics = Finished.model_fields["metrics"].annotation.model_construct(epoch=float(EPOCHS))
    return Finished.model_construct(curve=points, steps=10 * EPOCHS, metrics=metrics, seed=seed)


def overfit(epoch: float) -> float:
    """Falls to epoch 12 and rises again, never in a straight line."""
    return 4 + 3 * math.exp(-epoch / 4) + 0.002 * epoch**2


NONE = run(overfit, every=0.1)


@pytest.mark.parametrize("s", [0.8, 1.0, 1.07, 1.5, 2.4])
@pytest.mark.parametrize("b", [-0.2, 0.0, 0.1])
def test_the_clock_that_made_a_curve_is_found(s: float, b: float) -> None:
    found = clock(run(lambda epoch: overfit(epoch / s) + b), NONE)
    assert found is not None
    assert found.slower == pytest.approx(s, abs=0.003)
    assert found.shift == pytest.approx(b, abs=0.003)
    assert found.off < 0.002


def test_what_no_clock_explains_is_off() -> None:
    found = clock(run(lambda epoch: overfit(epoch) + 0.1 * (-1) ** round(epoch)), NONE)
    assert found is not None
    assert found.off == pytest.approx(0.1, abs=0.01)


def test_none_is_never_read_beyond_its_end() -> None:
    short = run(overfit, every=0.1)
    short.curve[:] = [point for point in short.curve if point.step <= 200]
    found = clock(run(lambda epoch: overfit(epoch / 3)), short)
    assert found is not None
    assert found.slower == pytest.approx(3, abs=0.01)


@pytest.mark.parametrize("curve", [[], NONE.curve[:20]], ids=["no evaluation", "too early"])
def test_few_evaluations_have_no_clock(curve: list[Point]) -> None:
    row = run(overfit)
    row.curve[:] = curve
    assert clock(row, NONE) is None


def pair(shifts: dict[int, float], kind: str = "learned", table: str = "rivals_nano") -> Pair:
    """Learned, or another kind, beside none: a clock slower by a tenth, and a constant of each seed."""

    def row(runs: list[Finished]) -> RowRuns:
        return RowRuns(Row(name="row", label="a row", family="other"), runs)

    def one(seed: int, b: float) -> Finished:
        return run(lambda epoch: overfit(epoch / 1.1) + b, seed)

    own = row([one(seed, b) for seed, b in shifts.items()])
    none = row([run(overfit, seed, every=0.1) for seed in shifts])
    difference = paired_difference(shifts, dict.fromkeys(shifts, 0.0))
    assert difference is not None
    return Pair(table, "setting", own, none, kind, gap=1.0, gains={"val": difference})


def test_a_pairs_clock_has_intervals_over_its_seeds() -> None:
    shifts = {1: 0.01, 2: -0.01, 3: 0.0}
    found = slowed(pair(shifts))
    assert found is not None
    assert found.slower.mean == pytest.approx(1.1, abs=0.005)
    wanted = mean_interval(list(shifts.values()))
    assert found.shift.low == pytest.approx(wanted.low, abs=0.002)
    assert found.only_slower


@pytest.mark.parametrize(
    "shifts", [{1: 0.011, 2: 0.010, 3: 0.009}, {1: 0.11, 2: -0.02, 3: 0.06}],
    ids=["resolved", "too far"],
)  # fmt: skip
def test_a_constant_that_is_resolved_or_large_is_more_than_a_clock(
    shifts: dict[int, float],
) -> None:
    found = slowed(pair(shifts))
    assert found is not None
    assert not found.only_slower


def test_the_section_has_a_line_a_kind_and_place_and_every_pair() -> None:
    shifts = {1: 0.01, 2: -0.01, 3: 0.0}
    text = slower_clock(clocks([
        pair(shifts), pair(shifts), pair(shifts, table="surface_0.2m_41k"),
        pair({1: -0.1, 2: -0.11, 3: -0.09}, kind="standard 0.1"), pair(shifts, kind="locked 0.2"),
    ]))  # fmt: skip
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    kinds = {(line[0], line[1]): line[2:] for line in lines if len(line) == 7}
    off = kinds["learned", "surface"][3]
    assert kinds["learned", "elsewhere"] == ["2", "1.10", "0.000", off, "2"]
    assert kinds["learned", "surface"][0] == "1"
    assert kinds["standard 0.1", "elsewhere"][4] == "0"
    assert len([line for line in lines if len(line) == 10]) == 2 + 5
    assert slower_clock([]) == ""
