"""Val loss at equal train loss: does a row generalise better, or does it only learn more slowly?

A row can end below another for having learned less by heart alone, as fewer steps would have had it.
So the two are set beside each other where each of them had come to one train loss, whenever that was.
Averaged weights say it with less noise: at a constant learning rate one evaluation of the last ones
jitters by some hundredths of a nat.
"""

from collections.abc import Sequence

import numpy as np

from experiments.records import Finished, Point


def at_equal_train(
    record: Finished, other: Finished, averaged: bool = False
) -> tuple[float, float] | None:
    """Both val losses where each came to the lowest train loss that both reached.

    Of the last weights, or the averaged ones. Read off the two curves with a straight line between
    evaluations, of which those count that are lower in train loss than all before. None where a curve
    has no train loss, or begins below that level: what it was there is not known.
    """
    curves = [_descent(one.curve, averaged) for one in (record, other)]
    if not all(curves):
        return None
    level = max(curve[-1][0] for curve in curves)
    if any(curve[0][0] < level for curve in curves):
        return None
    one, two = (_val_at(level, curve) for curve in curves)
    return one, two


def _descent(curve: Sequence[Point], averaged: bool) -> list[tuple[float, float]]:
    """Train and val loss of the evaluations that are lower in train loss than all before."""
    found: list[tuple[float, float]] = []
    for point in sorted(curve, key=lambda point: point.step):
        train, val = (point.train_ema, point.val_ema) if averaged else (point.train, point.val)
        if train is not None and val is not None and (not found or train < found[-1][0]):
            found.append((train, val))
    return found


def _val_at(level: float, curve: Sequence[tuple[float, float]]) -> float:
    train, val = np.array(curve[::-1]).T  # np.interp wants them to rise
    return float(np.interp(level, train, val))
