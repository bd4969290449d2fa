"""What LearnedDropout pays for the channels it keeps."""

import math

import torch
from torch import Tensor

from common.errors import UserError


class MaskPenalty:
    """A weighted sum of penalties on the unrounded mask M, each a mean over all its elements.

    squared: mean(M^2 / 2), the L1 norm of M^2 / 2 over the count, as in Learned Dropout's tables;
    linear: mean(|M|); entropy: mean(-M log2 M), in bits, 0 at M = 0. Returns a 0-d tensor.
    ValueError where a weight is negative.
    """

    def __init__(self, squared: float = 0.0, linear: float = 0.0, entropy: float = 0.0) -> None:
        self.weights = {"squared": squared, "linear": linear, "entropy": entropy}
        for name, weight in self.weights.items():
            if weight < 0:
                raise UserError(f"{name}={weight} must not be negative: it weighs a penalty")

    @property
    def only_squared(self) -> bool:
        return not (self.weights["linear"] or self.weights["entropy"])

    def of_mean_square(self, mean_square: Tensor) -> Tensor:
        """The penalty from mean(M^2), which is all that it needs where it is `only_squared`."""
        return mean_square * (self.weights["squared"] / 2)

    def __call__(self, soft_mask: Tensor) -> Tensor:
        kinds = {
            "squared": lambda: soft_mask.square().mean() / 2,
            "linear": lambda: soft_mask.abs().mean(),
            "entropy": lambda: torch.special.entr(soft_mask).mean() / math.log(2),
        }
        terms = [weight * kinds[name]() for name, weight in self.weights.items() if weight > 0]
        return torch.stack(terms).sum() if terms else soft_mask.new_zeros(())

    def __repr__(self) -> str:
        return f"MaskPenalty({', '.join(f'{k}={v}' for k, v in self.weights.items() if v)})"
