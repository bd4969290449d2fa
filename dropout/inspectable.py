"""Inspectable dropout: standard dropout written out, its mask always at hand."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropout.base import DropoutOutput, Site
from dropout.checks import HEADS, STREAM, check_p, check_slot


class InspectableDropout(nn.Module):
    """Inverted dropout as a product with a mask that one can look at.

        Training: y = x r,  r = m / (1 - p),  m ~ Bernoulli(1 - p) for every element
        Evaluation: y = x

    E[r] = (1 - p) / (1 - p) = 1, so E[y] = x in both modes: this is why r is scaled. `mask` is m,
    and comes with the output where `return_mask` asks; nothing is kept on the module, so two calls
    cannot mistake each other's mask for their own. It draws what `torch.nn.Dropout` draws. Any shape.
    ValueError where p is not in [0, 1], or for slot `attention`, whose kernel hides its mask.
    """

    def __init__(self, site: Site, *, p: float) -> None:
        super().__init__()
        check_slot("inspectable", site, STREAM + HEADS, "a fused kernel shows no mask")
        self.p = check_p(p)

    def forward(
        self, hidden: Tensor, mask_source: Tensor | None = None, return_mask: bool = False
    ) -> DropoutOutput:
        scaled_mask = F.dropout(torch.ones_like(hidden), self.p, self.training)
        mask = (scaled_mask > 0).to(hidden.dtype) if return_mask else None
        return DropoutOutput(hidden * scaled_mask, mask=mask)

    def extra_repr(self) -> str:
        return f"p={self.p}"
