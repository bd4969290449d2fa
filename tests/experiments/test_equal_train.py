"""Val loss at equal train loss: read off both curves where each had come as far as the slower one."""

import pytest

from experiments.equal_train import at_equal_train
from experiments.records import Finished, Point


def run(*curve: tuple[float | None, float]) -> Finished:
    """A record of nothing but its curve, of (train, val) at each evaluation."""
    points = [
        Point(step=100 * i, **{"val/loss_nats": val, "train/loss_nats": train})
        for i, (train, val) in enumerate(curve, 1)
    ]
    return Finished.model_construct(curve=points)


FAST = run((5.0, 5.2), (4.0, 4.4), (3.0, 4.2), (2.0, 4.8))


def test_both_are_read_where_the_slower_one_ended() -> None:
    slow = run((5.5, 5.6), (4.5, 4.6), (3.5, 4.1))
    assert at_equal_train(slow, FAST) == pytest.approx((4.1, 4.3))  # halfway from 4.4 to 4.2
    assert at_equal_train(FAST, slow) == pytest.approx((4.3, 4.1))


def test_a_run_that_only_went_less_far_is_no_better() -> None:
    assert at_equal_train(run((5.0, 5.2), (4.0, 4.4), (3.0, 4.2)), FAST) == (4.2, 4.2)


def test_an_evaluation_that_rose_again_in_train_loss_is_passed_over() -> None:
    slow = run((5.0, 5.1), (3.5, 4.1), (3.6, 4.9))
    assert at_equal_train(slow, FAST) == pytest.approx((4.1, 4.3))


def test_averaged_weights_have_a_curve_of_their_own() -> None:
    def with_average(*averaged: tuple[float, float]) -> Finished:
        points = [
            point.model_copy(update={"train_ema": train, "val_ema": val})
            for point, (train, val) in zip(FAST.curve, averaged, strict=False)
        ]
        return Finished.model_construct(curve=points)

    slow, fast = with_average((4.0, 4.2), (3.0, 3.9)), with_average((3.5, 4.1), (2.5, 4.0))
    assert at_equal_train(slow, fast, averaged=True) == pytest.approx((3.9, 4.05))
    assert at_equal_train(FAST, FAST, averaged=True) is None


def test_evaluations_are_taken_by_step() -> None:
    shuffled = Finished.model_construct(curve=FAST.curve[::-1])
    assert at_equal_train(shuffled, FAST) == pytest.approx((4.8, 4.8))


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(run((1.5, 4.0), (1.0, 4.5)), id="begins below"),
        pytest.param(run((None, 4.0), (None, 4.5)), id="train was not evaluated"),
        pytest.param(run(), id="never evaluated"),
    ],
)
def test_what_no_curve_shows_is_not_said(other: Finished) -> None:
    assert at_equal_train(FAST, other) is None
    assert at_equal_train(other, FAST) is None
