"""A rounding through which nothing learns."""

from collections.abc import Callable

from torch import Tensor


class Detached:
    """round(M) without a gradient, so that the loss of the text never reaches the mask.

    A control: only its penalty, where it has one, then moves a learned mask. The draws are those of
    `rounding`.
    """

    def __init__(self, rounding: Callable[[Tensor], Tensor]) -> None:
        self.rounding = rounding

    def __call__(self, soft_mask: Tensor) -> Tensor:
        return self.rounding(soft_mask.detach())

    def __repr__(self) -> str:
        return f"Detached({self.rounding})"
