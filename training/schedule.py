"""What changes with the step: the learning rate and the weight of the dropouts' penalty."""

import math


def learning_rate(
    step: int, *, lr: float, warmup_steps: int, decay_steps: int | None, min_lr: float
) -> float:
    """Linear warm-up to `lr`, then a cosine down to `min_lr` at `decay_steps`; None keeps `lr`.

    `step` counts from 0; the first update already has a rate above 0.
    """
    if step < warmup_steps:
        return lr * (step + 1) / (warmup_steps + 1)
    if decay_steps is None:
        return lr
    done = min(1.0, (step - warmup_steps) / max(1, decay_steps - warmup_steps))
    return min_lr + (lr - min_lr) * (1 + math.cos(math.pi * done)) / 2


def penalty_weight(step: int, *, max: float, min: float = 0.0, rate: float | None = None) -> float:
    """`max`, or rising to it as min(exp(rate * step) - 1 + min, max) where a rate is given."""
    if rate is None:
        return max
    grown = math.expm1(rate * step) + min if rate * step < 700 else math.inf
    return grown if grown < max else max
