"""What changes with the step: the learning rate, the weight decay, the weight of the penalty.

A schedule is a callable object (step, value) -> value, chosen as `schedule=` for the learning rate and
`decay_schedule=` for the weight decay; `step` counts from 0, and `value` is what the config names.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from common.errors import UserError

Schedule = Callable[[int, float], float]


@dataclass(frozen=True)
class Cosine:
    """Linear warm-up to the value, then a cosine down to `min_lr` at `decay_steps`; None keeps it.

    The warm-up is part of `decay_steps`; the first update already has a value above 0.
    """

    warmup_steps: int
    decay_steps: int | None
    min_lr: float

    def __call__(self, step: int, value: float) -> float:
        if step < self.warmup_steps:
            return value * (step + 1) / (self.warmup_steps + 1)
        if self.decay_steps is None:
            return value
        length = max(1, self.decay_steps - self.warmup_steps)
        left = self.fall(min(1.0, (step - self.warmup_steps) / length))
        return self.min_lr + (value - self.min_lr) * left

    def fall(self, done: float) -> float:
        """What is left of the fall where so much of it is done, both in [0, 1]."""
        return (1 + math.cos(math.pi * done)) / 2


class Linear(Cosine):
    """As `Cosine`, and down in a straight line."""

    def fall(self, done: float) -> float:
        return 1 - done


@dataclass(frozen=True)
class Constant:
    """The value itself."""

    def __call__(self, step: int, value: float) -> float:
        return value


@dataclass(frozen=True)
class Ramp:
    """The value up to step `begin`, then in a straight line to `factor` times it at `end`, and that."""

    begin: int
    end: int
    factor: float

    def __post_init__(self) -> None:
        if not 0 <= self.begin < self.end:
            raise UserError(f"begin={self.begin}, end={self.end} must be 0 <= begin < end: steps")
        if not 0 <= self.factor < math.inf:
            raise UserError(f"factor={self.factor} must be at least 0, and finite")

    def __call__(self, step: int, value: float) -> float:
        done = min(1.0, max(0.0, (step - self.begin) / (self.end - self.begin)))
        return value * (1 + (self.factor - 1) * done)


def penalty_weight(step: int, *, max: float, min: float = 0.0, rate: float | None = None) -> float:
    """`max`, or rising to it as min(exp(rate * step) - 1 + min, max) where a rate is given."""
    if rate is None:
        return max
    grown = math.expm1(rate * step) + min if rate * step < 700 else math.inf
    return grown if grown < max else max
