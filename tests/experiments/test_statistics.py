import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from experiments.statistics import (
    LEVEL,
    Interval,
    PairedDifference,
    holm,
    jackknife,
    mean_interval,
    paired_difference,
    reading,
    root_mean_square,
    unpaired_difference,
)

LOSSES = st.lists(st.floats(0, 10), min_size=2, max_size=8)


def test_an_interval_computed_by_hand():
    # 1, 2, 3: mean 2, sd 1, t(0.975, 2) = 4.302653, half width 4.302653 / sqrt(3).
    interval = mean_interval([1.0, 2.0, 3.0])
    assert (interval.mean, interval.sd, interval.n) == (2.0, 1.0, 3)
    assert interval.high == pytest.approx(2 + 4.302653 / math.sqrt(3), abs=1e-6)
    assert interval.low == pytest.approx(2 - 4.302653 / math.sqrt(3), abs=1e-6)


@given(LOSSES)
def test_intervals_are_those_of_scipy(values):
    interval = mean_interval(values)
    if np.ptp(values) < 1e-6:  # scipy has no interval for a spread of zero
        assert (interval.low, interval.high) == pytest.approx((values[0],) * 2, abs=1e-5)
    else:
        error = np.std(values, ddof=1) / math.sqrt(len(values))
        low, high = stats.t.interval(LEVEL, len(values) - 1, np.mean(values), error)
        assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-9)


@given(st.lists(st.floats(0, 10), min_size=3, max_size=8))
def test_of_a_mean_the_jackknifes_interval_is_students(values):
    without = [np.mean(values[:i] + values[i + 1 :]) for i in range(len(values))]
    found, expected = jackknife(float(np.mean(values)), without), mean_interval(values)
    assert found.mean == np.mean(values)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert (found.sd, found.n) == (pytest.approx(expected.sd, abs=1e-9), expected.n)


def test_two_seeds_make_no_jackknife():
    assert jackknife(3.5, [3.6, 3.7]) == Interval(3.5, None, None, None, 2)


def test_intervals_of_three_seeds_cover_the_truth_as_often_as_they_say():
    n = 4000
    samples = np.random.default_rng(0).normal(3.9, 0.02, size=(n, 3))
    intervals = [mean_interval(list(sample)) for sample in samples]
    covered = sum(interval.low <= 3.9 <= interval.high for interval in intervals)
    assert abs(covered / n - LEVEL) < 4 * math.sqrt(LEVEL * (1 - LEVEL) / n)


def test_one_seed_has_no_interval():
    assert mean_interval([3.5]) == Interval(3.5, None, None, None, 1)


def test_no_values_and_no_such_level_are_errors():
    with pytest.raises(ValueError, match=r"^values=\[\].*no mean$"):
        mean_interval([])
    for level in (-0.5, 0, 1, 1.5):
        with pytest.raises(ValueError, match=rf"level={level} must be in \(0, 1\)"):
            mean_interval([1.0, 2.0], level)
    with pytest.raises(ValueError, match=r"^values=\[\].*no typical size$"):
        root_mean_square([])


def test_differences_are_paired_by_seed_over_the_common_ones():
    row, other = {3: 1.0, 1: 5.0, 2: 7.0, 9: 100.0}, {1: 4.0, 2: 7.5, 3: 2.0, 8: -100.0}
    difference = paired_difference(row, other)
    assert difference.seeds == (1, 2, 3)
    assert difference.interval == mean_interval([1.0, -0.5, -1.0])


def test_the_level_of_a_difference_is_that_of_its_interval():
    row, other = {1: 1.0, 2: 2.0, 3: 4.0}, dict.fromkeys((1, 2, 3), 0.0)
    assert paired_difference(row, other, 0.5).interval == mean_interval([1.0, 2.0, 4.0], 0.5)


def test_rows_without_a_common_seed_have_no_difference():
    assert paired_difference({1: 3.0}, {2: 3.0}) is None


@pytest.mark.parametrize("n", [3, 5, 10])
def test_p_is_that_of_the_paired_t_test(n):
    draw = np.random.default_rng(n)
    a, b = draw.normal(3.9, 0.1, n), draw.normal(3.85, 0.1, n)
    ours = paired_difference(dict(enumerate(a)), dict(enumerate(b)))
    oracle = stats.ttest_rel(a, b)
    low, high = oracle.confidence_interval(LEVEL)
    assert ours.p == pytest.approx(oracle.pvalue)
    assert (ours.interval.low, ours.interval.high) == pytest.approx((low, high))


def test_below_three_seeds_there_is_no_p():
    assert paired_difference({1: 3.0, 2: 3.1}, {1: 2.0, 2: 2.2}).p is None


def test_equal_rows_do_not_differ():
    same = {1: 3.0, 2: 3.5, 3: 4.0}
    difference = paired_difference(same, same)
    assert difference.p == 1.0
    assert reading(difference, 1.0) == "not resolved"


def test_rows_that_differ_by_as_much_on_every_seed_surely_differ():
    assert paired_difference({1: 3.0, 2: 3.5, 3: 4.0}, {1: 2.0, 2: 2.5, 3: 3.0}).p == 0.0


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.04 times 3, 2, 1; running maximum: 0.03, 0.04, 0.04.
    assert holm([0.04, None, 0.01, 0.02]) == [
        pytest.approx(0.04),
        None,
        pytest.approx(0.03),
        pytest.approx(0.04),
    ]


def test_holm_is_that_of_statsmodels():
    p_values = np.random.default_rng(0).beta(0.3, 2, size=12).tolist()
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1].tolist())


def test_holm_stops_at_one_and_needs_nothing():
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
    assert holm([None]) == [None]


def _difference(low: float | None, high: float | None, n: int = 3) -> PairedDifference:
    middle = 0.0 if low is None or high is None else (low + high) / 2
    return PairedDifference(Interval(middle, low, high, 0.1, n), None, tuple(range(n)))


@pytest.mark.parametrize(
    ("low", "high", "p", "said"),
    [
        (-0.2, -0.1, 0.01, "lower"),
        (0.1, 0.2, 0.01, "higher"),
        (-0.1, 0.2, 0.01, "not resolved"),
        (-0.2, 0.0, 0.04, "not resolved"),
        (0.0, 0.2, 0.04, "not resolved"),
        (-0.2, -0.1, 0.05, "not resolved"),  # the interval alone would call it a winner
        (-0.2, -0.1, None, "too few seeds"),
        (None, None, None, "too few seeds"),
        (None, 0.2, 0.01, "too few seeds"),
        (-0.2, None, 0.01, "too few seeds"),
    ],
)
def test_a_direction_needs_both_the_interval_and_the_corrected_p(low, high, p, said):
    assert reading(_difference(low, high), p) == said


def test_a_long_table_of_equal_rows_finds_no_winner_more_often_than_one_time_in_twenty():
    draw, tables, rows = np.random.default_rng(1), 400, 9
    with_a_winner = 0
    for _ in range(tables):
        none = draw.normal(0, 1, 3)
        found = [
            paired_difference(dict(enumerate(draw.normal(0, 1, 3))), dict(enumerate(none)))
            for _ in range(rows)
        ]
        corrected = holm([difference.p for difference in found])
        said = {reading(d, p) for d, p in zip(found, corrected, strict=True)}
        with_a_winner += bool(said & {"lower", "higher"})
    assert with_a_winner / tables < 0.05 + 4 * math.sqrt(0.05 * 0.95 / tables)


def test_standard_errors_average_as_variances():
    assert root_mean_square([3.0, 4.0]) == pytest.approx(math.sqrt(12.5))


@pytest.mark.parametrize(("n", "m"), [(4, 3), (1, 4), (2, 2)])
def test_an_unpaired_difference_is_that_of_scipy(n, m):
    draw = np.random.default_rng(n)
    a, b = draw.normal(3.9, 0.1, n).tolist(), draw.normal(3.85, 0.1, m).tolist()
    interval, p = unpaired_difference(a, b)
    oracle = stats.ttest_ind(a, b) if n > 1 else None
    if oracle is not None:
        low, high = oracle.confidence_interval(LEVEL)
        assert p == pytest.approx(oracle.pvalue)
        assert (interval.low, interval.high) == pytest.approx((low, high))
        pooled = ((n - 1) * np.var(a, ddof=1) + (m - 1) * np.var(b, ddof=1)) / (n + m - 2)
        assert (interval.sd, interval.n) == (pytest.approx(math.sqrt(pooled)), n + m)
    else:  # one new run: the prediction interval of the others
        half = stats.t.ppf(0.975, m - 1) * np.std(b, ddof=1) * math.sqrt(1 + 1 / m)
        assert interval.high - interval.mean == pytest.approx(half)


def test_one_run_beside_one_and_runs_without_spread_claim_no_interval_of_their_own():
    assert unpaired_difference([4.0], [3.0]) == (Interval(1.0, None, None, None, 2), None)
    assert unpaired_difference([4.0], [4.0, 4.0])[1] == 1.0
    assert unpaired_difference([4.0], [3.0, 3.0]) == (Interval(1.0, 1.0, 1.0, 0.0, 3), 0.0)
