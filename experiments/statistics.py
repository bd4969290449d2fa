"""Intervals and tests for the tables: pure functions of numbers that know no files and no records.

Seeds are the unit: each run is one draw, and rows that share a seed share batches, backbone and
evaluation windows, so rows are compared by their differences within a seed.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

from common.errors import UserError

ALPHA = 0.05
LEVEL = 1 - ALPHA
MIN_SEEDS = 3  # below, no p and no direction: too few to correct for a long table

Reading = Literal["lower", "higher", "not resolved", "too few seeds"]


@dataclass(frozen=True)
class Interval:
    """A mean over n seeds with its confidence interval.

    `low`, `high` and `sd` are None for n = 1: one seed says nothing about the spread over seeds.
    """

    mean: float
    low: float | None
    high: float | None
    sd: float | None
    n: int


@dataclass(frozen=True)
class PairedDifference:
    """The mean over common seeds of (row - other), its interval and two-sided p (None below 3)."""

    interval: Interval
    p: float | None
    seeds: tuple[int, ...]


def mean_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Mean and Student-t interval: mean +- t(level, n - 1) * sd / sqrt(n), sd with n - 1.

    Raises ValueError for no values and for a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise UserError(f"level={level} must be in (0, 1): it is the interval's coverage")
    n = len(values)
    if n == 0:
        raise UserError("values=[] must hold at least one number: an empty row has no mean")
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, None, None, None, 1)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(special.stdtrit(n - 1, (1 + level) / 2)) * sd / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, sd, n)


def paired_difference(
    row: Mapping[int, float], other: Mapping[int, float], level: float = LEVEL
) -> PairedDifference | None:
    """Compare two rows, each seed -> value, over the seeds that both have; None without any.

    The p-value is the two-sided paired t test's, left out below MIN_SEEDS.
    """
    seeds = tuple(sorted(row.keys() & other.keys()))
    if not seeds:
        return None
    interval = mean_interval([row[seed] - other[seed] for seed in seeds], level)
    return PairedDifference(interval, _paired_p(interval), seeds)


def unpaired_difference(
    values: Sequence[float], others: Sequence[float], level: float = LEVEL
) -> tuple[Interval, float | None]:
    """mean(values) - mean(others) with Student's two-sample interval and two-sided p.

    The spread is pooled, so one side may be a single run; `low`, `high` and p are None where
    both are.
    """
    means = [math.fsum(side) / len(side) for side in (values, others)]
    difference, freedom = means[0] - means[1], len(values) + len(others) - 2
    if freedom == 0:
        return Interval(difference, None, None, None, 2), None
    squares = [(v - m) ** 2 for side, m in zip((values, others), means, strict=True) for v in side]
    sd = math.sqrt(math.fsum(squares) / freedom)
    error = sd * math.sqrt(1 / len(values) + 1 / len(others))
    half = float(special.stdtrit(freedom, (1 + level) / 2)) * error
    if error == 0:
        return Interval(difference, difference, difference, 0.0, freedom + 2), float(
            difference == 0
        )
    p = float(2 * special.stdtr(freedom, -abs(difference) / error))
    return Interval(difference, difference - half, difference + half, sd, freedom + 2), p


def jackknife(whole: float, without: Sequence[float], level: float = LEVEL) -> Interval:
    """Interval of a figure that all n seeds make together, from what it is without each of them.

    Its standard error is sqrt((n - 1) / n sum (w_i - mean w)^2) (Tukey's jackknife), and the interval
    whole +- t(level, n - 1) times that; `sd` is the standard error times sqrt(n), and no interval
    is there below MIN_SEEDS.
    """
    n = len(without)
    if n < MIN_SEEDS:
        return Interval(whole, None, None, None, n)
    mean = math.fsum(without) / n
    error = math.sqrt((n - 1) / n * math.fsum((value - mean) ** 2 for value in without))
    half = float(special.stdtrit(n - 1, (1 + level) / 2)) * error
    return Interval(whole, whole - half, whole + half, error * math.sqrt(n), n)


def _paired_p(difference: Interval) -> float | None:
    if difference.n < MIN_SEEDS or difference.sd is None:
        return None
    if difference.sd == 0:  # t is 0/0 for rows that are equal on every seed, infinite otherwise
        return 1.0 if difference.mean == 0 else 0.0
    t = difference.mean / (difference.sd / math.sqrt(difference.n))
    return float(2 * special.stdtr(difference.n - 1, -abs(t)))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction over the p-values that are there; the gaps stay gaps.

    The i-th smallest of m becomes max over j <= i of min(1, (m - j + 1) p_j).
    """
    known = np.array([p for p in p_values if p is not None], dtype=float)
    order = np.argsort(known)
    adjusted = np.empty_like(known)
    adjusted[order] = np.maximum.accumulate(known[order] * np.arange(len(known), 0, -1)).clip(max=1)
    places = iter(adjusted.tolist())
    return [None if p is None else next(places) for p in p_values]


def reading(difference: PairedDifference, p_adjusted: float | None) -> Reading:
    """What may be said: a direction only where the interval leaves out zero.

    The corrected p must be below ALPHA as well, so that a long table does not find its winners
    by being long.
    """
    low, high = difference.interval.low, difference.interval.high
    if low is None or high is None or p_adjusted is None:
        return "too few seeds"
    if low <= 0 <= high or p_adjusted >= ALPHA:
        return "not resolved"
    return "lower" if high < 0 else "higher"


def root_mean_square(values: Iterable[float]) -> float:
    """The typical size of standard errors: sqrt(mean(x^2)); variances average, errors don't."""
    squares = [value**2 for value in values]
    if not squares:
        raise UserError("values=[] must hold at least one number: nothing has no typical size")
    return math.sqrt(math.fsum(squares) / len(squares))
