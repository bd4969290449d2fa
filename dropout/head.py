"""Head dropout: whole attention heads."""

import torch.nn.functional as F
from torch import Tensor, nn

from dropout.base import DropoutOutput, Site
from dropout.checks import HEADS, check_p, check_rank, check_slot


def head_mask(hidden: Tensor, p: float, training: bool) -> Tensor:
    """0 or 1 / (1 - p) a head, (B, 1, n_head, 1) for `hidden` (B, T, n_head, head_size)."""
    batch, n_head = hidden.shape[:-3], hidden.shape[-2]
    # torch reads three dimensions as (N, C, L), never as (C, H, W): one window gets a batch of one.
    ones = hidden.new_ones(*(batch or (1,)), n_head, 1, 1)
    return F.dropout2d(ones, p, training).view(*batch, 1, n_head, 1)


class HeadDropout(nn.Module):
    """Drops what whole heads say in a window, before the output projection mixes them.

        Training: y[b, t, h] = x[b, t, h] m[b, h] / (1 - p),  m ~ Bernoulli(1 - p)
        Evaluation: y = x

    It is `torch.nn.Dropout2d` with heads as channels, each a feature map (T, head_size). `hidden` is
    (B, T, n_head, head_size), or the same without B. ValueError where p is not in [0, 1], for any
    slot but `attention_heads`, and for a tensor of another rank.
    """

    def __init__(self, site: Site, *, p: float) -> None:
        super().__init__()
        check_slot("head", site, HEADS, "it needs the heads apart, (B, T, n_head, head_size)")
        self.p = check_p(p)

    def forward(
        self, hidden: Tensor, mask_source: Tensor | None = None, return_mask: bool = False
    ) -> DropoutOutput:
        check_rank("head", hidden, 4, "(B, T, n_head, head_size)")
        scaled_mask = head_mask(hidden, self.p, self.training)
        mask = (scaled_mask > 0).to(hidden.dtype) if return_mask else None
        return DropoutOutput(hidden * scaled_mask, mask=mask)

    def extra_repr(self) -> str:
        return f"p={self.p}"
