"""A row's val loss as none's on a slower clock plus a constant: both are found where they made it."""

import math
from collections.abc import Callable, Sequence

import matplotlib
import pytest
from matplotlib.figure import Figure

from experiments.clock import COLORS, OTHERS, clock, clock_figure, clocks, slowed, slower_clock
from experiments.pairs import Point as Pair
from experiments.records import Finished, Point
from experiments.runs import RowRuns
from experiments.spec import Row
from experiments.statistics import mean_interval, paired_difference

EPOCHS = 40
STEPS = 10 * EPOCHS
LAG = 9  # steps, of decay 0.9

Losses = Callable[[float], float]


def run(val: Losses, seed: int = 1, every: float = 1.0, averaged: Losses | None = None) -> Finished:
    """A record of nothing but its curve over 40 epochs of 10 steps."""
    points = []
    for i in range(1, round(EPOCHS / every) + 1):
        told = {"val/loss_nats": val(every * i)}
        if averaged is not None:
            told["val/ema_loss_nats"] = averaged(every * i - LAG * EPOCHS / STEPS)
        points.append(Point(step=round(10 * every * i), **told))
    metrics = Finished.model_fields["metrics"].annotation.model_construct(epoch=float(EPOCHS))
    return Finished.model_construct(
        curve=points, steps=STEPS, metrics=metrics, seed=seed, config={"ema_decay": 0.9}
    )


def overfit(epoch: float) -> float:
    """Falls to epoch 12 and rises again, never in a straight line."""
    return 4 + 3 * math.exp(-epoch / 4) + 0.002 * epoch**2


NONE = run(overfit, every=0.1)


@pytest.mark.parametrize("s", [0.9, 1.0, 1.07, 1.5, 2.4])
@pytest.mark.parametrize("b", [-0.2, 0.0, 0.1])
def test_the_clock_that_made_a_curve_is_found(s: float, b: float) -> None:
    found = clock(run(lambda epoch: overfit(epoch / s) + b), NONE)
    assert found is not None
    assert found.slower == pytest.approx(s, abs=0.002)
    assert found.shift == pytest.approx(b, abs=0.002)
    assert found.off < 0.001


def test_averaged_weights_are_of_the_steps_of_their_lag_ago() -> None:
    def with_average(val: Losses) -> Finished:
        return run(lambda epoch: 9.0 - epoch / EPOCHS, every=0.1, averaged=val)

    row, none = with_average(lambda epoch: overfit(epoch / 1.5) - 0.1), with_average(overfit)
    found = clock(row, none, averaged=True)
    assert found is not None
    assert (found.slower, found.shift) == pytest.approx((1.5, -0.1), abs=0.002)
    assert clock(row, NONE, averaged=True) is None  # none has no average


def test_the_first_epochs_do_not_count() -> None:
    found = clock(run(lambda epoch: overfit(epoch) + (0.5 if epoch < 4 else 0)), NONE)
    assert found is not None
    assert (found.slower, found.shift, found.off) == pytest.approx((1, 0, 0), abs=1e-6)
    late = clock(run(lambda epoch: overfit(epoch) + (0.5 if epoch < 5 else 0)), NONE)
    assert late is not None
    assert late.off > 0.03


def test_b_is_a_mean_and_off_a_root_mean_square() -> None:
    found = clock(run(lambda epoch: overfit(epoch) + (0.4 if round(epoch) % 4 == 0 else 0)), NONE)
    assert found is not None
    assert found.shift == pytest.approx(0.1, abs=0.03)
    assert found.off == pytest.approx(0.4 * math.sqrt(0.25 * 0.75), abs=0.02)


def test_none_is_never_read_outside_its_curve() -> None:
    late = run(overfit, every=0.1)
    late.curve[:] = [point for point in late.curve if 20 <= point.step <= 150]
    found = clock(run(lambda epoch: overfit(epoch / 3)), late)
    assert found is not None
    assert found.slower == pytest.approx(3, abs=0.01)


@pytest.mark.parametrize(
    ("row", "none"),
    [
        pytest.param([], NONE.curve, id="no evaluation"),
        pytest.param(NONE.curve[:43], NONE.curve, id="four from epoch 4 on"),
        pytest.param(NONE.curve, [], id="none has no evaluation"),
        pytest.param(NONE.curve, NONE.curve[:100], id="none ends at epoch 10"),
    ],
)
def test_too_few_evaluations_have_no_clock(row: list[Point], none: list[Point]) -> None:
    records = [run(overfit), run(overfit)]
    for record, curve in zip(records, (row, none), strict=True):
        record.curve[:] = curve
    assert clock(*records) is None


def test_five_evaluations_have_one() -> None:
    row = run(overfit)
    row.curve[:] = NONE.curve[:44]
    assert clock(row, NONE) is not None


@pytest.mark.parametrize("s", [0.6, 5.0])
def test_an_s_at_an_end_of_what_can_be_tried_is_none(s: float) -> None:
    assert clock(run(lambda epoch: overfit(epoch / s)), NONE) is None


def pair(
    shifts: dict[int, float],
    kind: str = "learned",
    table: str = "rivals_nano",
    others: Sequence[int] = (),
) -> Pair:
    """A kind beside none: a clock slower by a tenth, and a constant a seed; none has `others` too."""

    def row(runs: list[Finished]) -> RowRuns:
        return RowRuns(Row(name="row", label="a row", family="other"), tuple(runs))

    def one(seed: int, b: float) -> Finished:
        return run(lambda epoch: overfit(epoch / 1.1) + b, seed)

    own = row([one(seed, b) for seed, b in shifts.items()])
    none = row([run(overfit, seed, every=0.1) for seed in (*shifts, *others)])
    difference = paired_difference(shifts, dict.fromkeys(shifts, 0.0))
    assert difference is not None
    return Pair(table, "setting", own, none, kind, gap=1.0, gains={"val": difference})


SHIFTS = {1: 0.01, 2: -0.01, 3: 0.003}


def test_a_pairs_clock_has_intervals_over_the_seeds_that_it_shares() -> None:
    found = slowed(pair(SHIFTS, others=(7,)))
    assert found is not None
    assert found.slower.mean == pytest.approx(1.1, abs=0.005)
    wanted = mean_interval(list(SHIFTS.values()))
    assert (found.shift.n, found.shift.low) == (3, pytest.approx(wanted.low, abs=0.001))
    assert found.averaged is None


def test_a_pairs_averages_have_a_constant_of_their_own() -> None:
    def averaged(record: Finished, val: Losses) -> None:
        points = run(val, every=1.0 if len(record.curve) == EPOCHS else 0.1, averaged=val).curve
        record.curve[:] = [
            point.model_copy(update={"val_ema": other.val_ema})
            for point, other in zip(record.curve, points, strict=True)
        ]

    one = pair(SHIFTS)
    for own in one.row.finished:
        averaged(own, lambda epoch: overfit(epoch / 1.1) + 0.2)
    for none in one.none.finished:
        averaged(none, overfit)
    found = slowed(one)
    assert found is not None and found.averaged is not None
    assert found.averaged.mean == pytest.approx(0.2, abs=0.005)
    assert found.shift.mean == pytest.approx(0.001, abs=0.005)


def test_a_coarse_curve_is_read_without_a_bias() -> None:
    """As on the surface, of which none is evaluated every second epoch."""
    found = clock(run(lambda epoch: overfit(epoch / 1.2), every=2.0), run(overfit, every=2.0))
    assert found is not None
    assert found.shift == pytest.approx(0, abs=0.004)


def test_a_pair_of_which_one_seed_has_no_clock_has_none() -> None:
    one = pair(SHIFTS)
    one.row.finished[1].curve.clear()
    assert slowed(one) is None


@pytest.mark.parametrize(
    ("shifts", "nothing"),
    [
        pytest.param({1: 0.011, 2: 0.010, 3: 0.009}, True, id="told from zero, and small"),
        pytest.param(SHIFTS, True, id="not told from zero, and small"),
        pytest.param({1: 0.06, 2: -0.06, 3: 0.0}, False, id="too wide to say"),
        pytest.param({1: 0.05, 2: 0.051, 3: 0.052}, False, id="too far"),
    ],
)
def test_nothing_is_left_where_the_whole_interval_is_near_zero(
    shifts: dict[int, float], nothing: bool
) -> None:
    found = slowed(pair(shifts))
    assert found is not None
    assert found.nothing_left is nothing


def test_the_section_has_a_line_a_kind_and_place_and_every_pair() -> None:
    pairs = clocks([
        pair(SHIFTS), pair({1: 0.0, 2: 0.1, 3: 0.2}), pair(SHIFTS, table="surface_0.2m_41k"),
        pair({1: -0.1, 2: -0.11, 3: -0.09}, kind="standard 0.1"), pair(SHIFTS, kind="locked 0.2"),
    ])  # fmt: skip
    text = slower_clock(pairs)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    kinds = {(line[0], line[1]): line[2:7] for line in lines if len(line) == 8}
    assert kinds["learned", "elsewhere"] == ["2", "1.10", "+0.001 to +0.100", "1", "–"]
    assert kinds["learned", "surface"] == ["1", "1.10", "+0.001", "1", "–"]
    assert kinds["standard 0.1", "elsewhere"][1:4] == ["1.10", "−0.100", "0"]
    assert kinds[OTHERS, "elsewhere"][0] == "1"
    assert len([line for line in lines if len(line) == 12]) == 2 + 5
    assert slower_clock([]) == ""


def test_the_figure_has_a_point_a_pair_in_its_kinds_color() -> None:
    matplotlib.use("agg")
    pairs = clocks(
        [pair(SHIFTS), pair(SHIFTS, kind="standard 0.1"), pair(SHIFTS, kind="locked 0.2")]
    )
    figure: Figure = clock_figure(pairs)
    (axes,) = figure.axes
    drawn = {bar.get_label(): bar.lines[0] for bar in axes.containers}
    assert list(drawn) == [OTHERS, "standard 0.1", "learned"]
    assert drawn["learned"].get_color() == COLORS["learned"]
    assert drawn["learned"].get_ydata() == pytest.approx([0.001], abs=1e-3)
