"""Standard dropout: each element on its own."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropout.base import DropoutOutput, Site
from dropout.checks import check_p


class StandardDropout(nn.Module):
    """Inverted dropout of single elements (Srivastava et al. 2014, as `torch.nn.Dropout`).

    Training: y = x m / (1 - p) with m ~ Bernoulli(1 - p) for every element; evaluation: y = x. Any
    shape, so it fits every slot; in slot `attention` the attention kernel does the work at this rate.
    ValueError where p is not in [0, 1].
    """

    def __init__(self, site: Site, *, p: float) -> None:
        super().__init__()
        self.p = check_p(p)

    @property
    def attention_p(self) -> float:
        return self.p

    def forward(
        self, hidden: Tensor, mask_source: Tensor | None = None, return_mask: bool = False
    ) -> DropoutOutput:
        if not return_mask:
            return DropoutOutput(F.dropout(hidden, self.p, self.training))
        # Drawn on ones, the mask costs the same random numbers, so asking for it changes nothing.
        scaled_mask = F.dropout(torch.ones_like(hidden), self.p, self.training)
        return DropoutOutput(hidden * scaled_mask, mask=(scaled_mask > 0).to(hidden.dtype))

    def extra_repr(self) -> str:
        return f"p={self.p}"
