"""What every dropout is that multiplies by a mask of its own shape."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from dropout.base import DropoutOutput, Site, passed
from dropout.checks import STREAM, check_p, check_rank, check_slot


class MaskedDropout(nn.Module):
    """y = x m / (1 - p) in training, y = x in evaluation; m ~ Bernoulli(1 - p) in a shape of its own.

    A kind says the `mask_shape` for an input, 1 along the axes that share a number; where its numbers
    need more than that, it makes the `scaled_mask`. It fits `slots`, streams unless it says otherwise,
    and takes tensors of the axes of `layout`, or the same without the batch.

    ValueError where p is not in [0, 1], for another slot, and for a tensor of another rank.
    """

    kind: ClassVar[str]
    slots: ClassVar[tuple[str, ...]] = STREAM
    layout: ClassVar[tuple[str, ...]] = ("B", "T", "C")

    def __init__(self, site: Site, *, p: float) -> None:
        super().__init__()
        check_slot(self.kind, site, self.slots, f"it needs ({', '.join(self.layout)})")
        self.p = check_p(p)

    def check(self, hidden: Tensor) -> None:
        """A ValueError for a tensor that this kind cannot take."""
        check_rank(self.kind, hidden, self.layout)

    def mask_shape(self, hidden: Tensor) -> tuple[int, ...]:
        """The shape of m for `hidden`; it broadcasts against it."""
        raise NotImplementedError

    def scaled_mask(self, hidden: Tensor) -> Tensor:
        """m / (1 - p), all zeros at p = 1."""
        return F.dropout(hidden.new_ones(self.mask_shape(hidden)), self.p)

    def forward(
        self, hidden: Tensor, mask_source: Tensor | None = None, return_mask: bool = False
    ) -> DropoutOutput:
        self.check(hidden)
        if not self.training:
            return passed(hidden, return_mask)
        scaled_mask = self.scaled_mask(hidden)
        mask = (scaled_mask > 0).to(hidden.dtype) if return_mask else None
        return DropoutOutput(hidden * scaled_mask, mask=mask)

    def extra_repr(self) -> str:
        return f"p={self.p:g}"
