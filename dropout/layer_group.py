"""Layer-group dropout: groups of attention heads."""

import torch.nn.functional as F
from torch import Tensor, nn

from common.errors import UserError
from dropout.base import DropoutOutput, Site
from dropout.checks import HEADS, check_p, check_rank, check_slot


def group_mask(hidden: Tensor, groups: int, p: float, training: bool) -> Tensor:
    """0 or 1 / (1 - p) a group of heads, (B, 1, n_head, 1) for (B, T, n_head, head_size)."""
    batch, n_head = hidden.shape[:-3], hidden.shape[-2]
    volumes = F.dropout3d(hidden.new_ones(*batch, groups, 1, 1, 1), p, training)
    heads = volumes.expand(*batch, groups, n_head // groups, 1, 1)
    return heads.reshape(*batch, 1, n_head, 1)


class LayerGroupDropout(nn.Module):
    """Drops groups of neighbouring heads together in a window (`torch.nn.Dropout3d`).

        Training: y[b, t, h] = x[b, t, h] m[b, g(h)] / (1 - p),  g(h) = h // (n_head / groups),
        m ~ Bernoulli(1 - p)
        Evaluation: y = x

    `Dropout3d` wants (N, C, D, H, W). Of all slots only `attention_heads` has five axes by nature:
    the outputs of all heads, stacked by group, (B, groups, n_head / groups, T, head_size). A stream
    has three, and two more would be invented, so other slots are refused. With `groups=n_head` it is
    head dropout. `hidden` is (B, T, n_head, head_size), or the same without B: torch's (C, D, H, W).

    ValueError where p is not in [0, 1], `groups` does not divide n_head, for any slot but
    `attention_heads`, and for a tensor of another rank.
    """

    def __init__(self, site: Site, *, p: float, groups: int) -> None:
        super().__init__()
        check_slot(
            "layer_group", site, HEADS, "it needs the heads apart, (B, T, n_head, head_size)"
        )
        if groups < 1 or site.n_head % groups:
            divisors = [str(n) for n in range(1, site.n_head + 1) if site.n_head % n == 0]
            raise UserError(
                f"groups={groups} must divide n_head={site.n_head}, so that all are of a size: "
                f"use {', '.join(divisors)}"
            )
        self.p = check_p(p)
        self.groups = groups

    def forward(
        self, hidden: Tensor, mask_source: Tensor | None = None, return_mask: bool = False
    ) -> DropoutOutput:
        check_rank("layer_group", hidden, 4, "(B, T, n_head, head_size)")
        scaled_mask = group_mask(hidden, self.groups, self.p, self.training)
        mask = (scaled_mask > 0).to(hidden.dtype) if return_mask else None
        return DropoutOutput(hidden * scaled_mask, mask=mask)

    def extra_repr(self) -> str:
        return f"p={self.p}, groups={self.groups}"
