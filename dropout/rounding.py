"""How LearnedDropout rounds its soft mask M in [0, 1] while training.

Each is a callable object M -> mask, chosen as `dropout/rounding@dropout.<slot>.rounding=<kind>`. In
evaluation every kind gives way to `threshold`.
"""

from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from ops.random import bernoulli


def threshold(soft_mask: Tensor) -> Tensor:
    """1 where M >= 0.5, else 0: the rounding of evaluation, without a gradient."""
    return soft_mask.detach().clone().ge_(0.5)  # in place: no slow turn from bools to numbers


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """The value of `hard`, exactly, with the gradient of `soft`."""
    return _StraightThrough.apply(hard, soft)


class _StraightThrough(torch.autograd.Function):
    """hard + (soft - detach(soft)), without the two sums."""

    @staticmethod
    def forward(ctx: Any, hard: Tensor, soft: Tensor) -> Tensor:
        return hard.view_as(hard)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        return None, gradient


class StochasticRounding:
    """1 with probability M, else 0; the gradient passes straight through (Learned Dropout).

    mask = M + detach(1 - M) where N <= M, else M - detach(M), with N ~ Uniform[0, 1): the value is
    exactly 0 or 1 and d mask / d M = 1 in both branches.
    """

    def __call__(self, soft_mask: Tensor) -> Tensor:
        # N in [0, 1) and "<" where the source has [0, 1] and "<=": the two agree but on a null set,
        # and so M = 0 is never kept and M = 1 never dropped.
        return straight_through(bernoulli(soft_mask), soft_mask)

    def __repr__(self) -> str:
        return "StochasticRounding()"


class SigmoidRounding:
    """sigmoid(slope (M - 1/2)): steep, deterministic and differentiable, not quite binary.

    With `correct` the value is corrected to exactly 0 or 1 by a detached difference, and the sigmoid's
    gradient stays.
    """

    def __init__(self, slope: float = 60.0, correct: bool = False) -> None:
        if not slope > 0:
            raise UserError(f"slope={slope} must be positive: it is the steepness of the sigmoid")
        self.slope = slope
        self.correct = correct

    def __call__(self, soft_mask: Tensor) -> Tensor:
        steep = torch.sigmoid(self.slope * (soft_mask - 0.5))
        return straight_through(threshold(soft_mask), steep) if self.correct else steep

    def __repr__(self) -> str:
        return f"SigmoidRounding(slope={self.slope}, correct={self.correct})"
