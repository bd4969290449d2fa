"""Learning rate and penalty weight at the points that define them."""

import math
from itertools import pairwise

import pytest

from training.schedule import learning_rate, penalty_weight

PUBLISHED = {"lr": 9e-4, "warmup_steps": 300, "decay_steps": 700_000, "min_lr": 9e-5}


def test_warm_up_is_linear_and_never_zero() -> None:
    rates = [learning_rate(step, **PUBLISHED) for step in range(300)]
    steps = [b - a for a, b in pairwise(rates)]
    assert rates[0] > 0 and max(steps) - min(steps) < 1e-12
    assert learning_rate(300, **PUBLISHED) == 9e-4


def test_the_cosine_ends_at_min_lr_and_stays_there() -> None:
    middle = (300 + 700_000) / 2
    assert learning_rate(middle, **PUBLISHED) == pytest.approx((9e-4 + 9e-5) / 2)
    assert learning_rate(700_000, **PUBLISHED) == pytest.approx(9e-5)
    assert learning_rate(10**6, **PUBLISHED) == pytest.approx(9e-5)


def test_the_published_rate_hardly_falls_in_26000_steps() -> None:
    assert learning_rate(26_000, **PUBLISHED) > 0.99 * 9e-4


def test_without_decay_the_rate_stays() -> None:
    assert learning_rate(10**6, lr=1e-3, warmup_steps=10, decay_steps=None, min_lr=0) == 1e-3


def test_penalty_weight_is_constant_or_rises_to_its_limit() -> None:
    assert penalty_weight(5, max=0.1) == 0.1
    rising = [penalty_weight(s, max=0.1, min=0.01, rate=1e-4) for s in (0, 500, 10_000, 10**9)]
    assert rising == [0.01, pytest.approx(math.expm1(0.05) + 0.01), 0.1, 0.1]
