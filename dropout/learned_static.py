"""A learned mask that does not look at its input: what LearnedDropout is without its attention."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from common.errors import UserError
from dropout.base import DropoutOutput, Site
from dropout.checks import STREAM, check_slot
from dropout.learned import cosine_mask, mask_stats
from dropout.rounding import threshold


class LearnedStatic(nn.Module):
    """LearnedDropout of B alone: a channel is kept with a probability that training finds.

        M = cos(B) / 2 + 1/2                     B: one free number a channel, first `shift_init`
        Y = X * round(M)                         a draw for every element; no scaling by 1 / keep

    `hidden` is (B, T, C). A control: what it gains, LearnedDropout gains without reading its input.
    Training rounds with `rounding` and asks `penalty(M)`; evaluation keeps the channels where M >= 0.5.

    ValueError for a slot that is not (B, T, C), and a `shift_init` that is not inside (0, pi): at its
    ends the cosine is level, and B would never leave them.
    """

    def __init__(
        self,
        site: Site,
        *,
        rounding: Callable[[Tensor], Tensor],
        penalty: Callable[[Tensor], Tensor],
        shift_init: float,
    ) -> None:
        super().__init__()
        check_slot("learned static", site, STREAM, "it needs (B, T, C)")
        if not 0 < shift_init < math.pi:
            raise UserError(
                f"shift_init={shift_init} must be between 0 and pi, and neither: there the cosine is "
                "level, and a mask without attention would never move"
            )
        self.rounding, self.penalty, self.shift_init = rounding, penalty, shift_init
        self.shift = nn.Parameter(torch.full((site.width,), float(shift_init)))

    def forward(
        self, hidden: Tensor, mask_source: Tensor | None = None, return_mask: bool = False
    ) -> DropoutOutput:
        soft_mask = cosine_mask(torch.zeros_like(self.shift), self.shift)
        everywhere = soft_mask.expand(hidden.shape)
        mask = self.rounding(everywhere) if self.training else threshold(everywhere)
        with_stats = not torch.is_grad_enabled()
        return DropoutOutput(
            hidden * mask.to(hidden.dtype),
            penalty=self.penalty(soft_mask),
            stats=mask_stats(soft_mask, mask) if with_stats else None,
            soft_mask=everywhere if return_mask else None,
            mask=mask if return_mask else None,
        )

    def extra_repr(self) -> str:
        return f"shift_init={self.shift_init:g}, rounding={self.rounding}, penalty={self.penalty}"
