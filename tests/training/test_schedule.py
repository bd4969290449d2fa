"""Learning rate and penalty weight at the points that define them."""

import math
from itertools import pairwise

import pytest

from training.schedule import Constant, Cosine, Linear, Ramp, penalty_weight

LR = 9e-4
PUBLISHED = Cosine(warmup_steps=300, decay_steps=700_000, min_lr=9e-5)


def test_warm_up_is_linear_and_never_zero() -> None:
    rates = [PUBLISHED(step, LR) for step in range(300)]
    steps = [b - a for a, b in pairwise(rates)]
    assert rates[0] > 0 and max(steps) - min(steps) < 1e-12
    assert PUBLISHED(300, LR) == 9e-4


def test_the_cosine_ends_at_min_lr_and_stays_there() -> None:
    middle = (300 + 700_000) / 2
    assert PUBLISHED(middle, LR) == pytest.approx((9e-4 + 9e-5) / 2)
    assert PUBLISHED(700_000, LR) == pytest.approx(9e-5)
    assert PUBLISHED(10**6, LR) == pytest.approx(9e-5)


def test_the_published_rate_hardly_falls_in_26000_steps() -> None:
    assert PUBLISHED(26_000, LR) > 0.99 * 9e-4


def test_without_decay_the_rate_stays() -> None:
    assert Cosine(warmup_steps=10, decay_steps=None, min_lr=0)(10**6, 1e-3) == 1e-3


def test_the_line_is_straight_and_ends_at_min_lr() -> None:
    line = Linear(warmup_steps=10, decay_steps=110, min_lr=0.1)
    assert [line(step, 1.0) for step in (10, 60, 110, 200)] == pytest.approx([1, 0.55, 0.1, 0.1])
    assert line(4, 1.0) == Cosine(10, 110, 0.1)(4, 1.0) == 5 / 11


@pytest.mark.parametrize("steps", [(10, 11), (10, 10)])
def test_the_shortest_fall_takes_one_step(steps) -> None:
    assert [Linear(*steps, min_lr=0.1)(step, 1.0) for step in (10, 11)] == pytest.approx([1, 0.1])


def test_a_ramp_scales_between_its_steps_and_a_constant_never() -> None:
    ramp = Ramp(begin=100, end=200, factor=3)
    assert [ramp(step, 0.5) for step in (0, 100, 150, 200, 999)] == [0.5, 0.5, 1.0, 1.5, 1.5]
    assert Constant()(7, 0.5) == 0.5
    assert Ramp(begin=0, end=1, factor=0)(1, 0.5) == 0


@pytest.mark.parametrize(
    "options", [(5, 5, 1.0), (-1, 5, 1.0), (0, 5, -1.0), (0, 5, math.nan), (0, 5, math.inf)]
)
def test_a_ramp_that_is_none_is_refused(options) -> None:
    with pytest.raises(ValueError, match="must be"):
        Ramp(*options)


def test_penalty_weight_is_constant_or_rises_to_its_limit() -> None:
    assert penalty_weight(5, max=0.1) == 0.1
    rising = [penalty_weight(s, max=0.1, min=0.01, rate=1e-4) for s in (0, 500, 10_000, 10**9)]
    assert rising == [0.01, pytest.approx(math.expm1(0.05) + 0.01), 0.1, 0.1]
    assert penalty_weight(0, max=0.1, rate=1e-4) == 0
