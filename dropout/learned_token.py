"""A learned mask of one number a token: the only kind whose dropped rows can really be left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.errors import UserError
from dropout.base import DropoutOutput, Site
from dropout.checks import STREAM, check_slot
from dropout.learned import cosine_mask, mask_stats
from dropout.rounding import threshold
from ops.linear import Linear

ATTENTIONS = ("attention_output", "residual_attention")


class LearnedToken(nn.Module):
    """A position of a branch is kept or dropped whole, as its token's embedding says.

        A = w . S / rms(S)                       S: the input X, or the model's `mask_source`
        M = cos(A + b) / 2 + 1/2                 (B, T, 1); b: one number, first `shift_init`
        Y = X * round(M)                         no scaling by 1 / keep: the mask selects

    `hidden` X is (B, T, width). With `mask_from="embedding"` S is (B, T, n_embd), made from the
    embedding sum, and M is known before the first block runs: at `residual_attention` and
    `residual_mlp` `model.leaving_out` leaves the dropped positions' rows out. Training rounds with
    `rounding` and asks `work * penalty(M)`: where the penalty is linear, the work expected of the
    branch. `work` is 1/2 for an attention, whose four products of n_embd by n_embd are half of those
    of an MLP of 4 n_embd, and 1 elsewhere. Evaluation keeps where M >= 0.5. Autocast leaves M in the
    weights' type, float32.

    ValueError for a slot that is not (B, T, width), another `mask_from`, and a `shift_init` that is not
    inside (0, pi), at whose ends the cosine is level.
    """

    def __init__(
        self,
        site: Site,
        *,
        rounding: Callable[[Tensor], Tensor],
        penalty: Callable[[Tensor], Tensor],
        shift_init: float,
        mask_from: Literal["input", "embedding"] = "input",
    ) -> None:
        super().__init__()
        check_slot("learned token", site, STREAM, "it needs (B, T, C)")
        if mask_from not in ("input", "embedding"):
            raise UserError(f"mask_from={mask_from!r} must be one of input, embedding")
        if not 0 < shift_init < math.pi:
            raise UserError(
                f"shift_init={shift_init} must be between 0 and pi, and neither: there the cosine is "
                "level, and a mask would hardly move"
            )
        self.mask_from, self.shift_init = mask_from, shift_init
        self.rounding, self.penalty = rounding, penalty
        self.work = 0.5 if site.slot in ATTENTIONS else 1.0
        self.read = Linear(site.width if mask_from == "input" else site.n_embd, 1)
        self.shift = nn.Parameter(torch.full((1,), float(shift_init)))

    @property
    def wants_mask_source(self) -> bool:
        return self.mask_from == "embedding"

    def soft_mask(self, source: Tensor) -> Tensor:
        """M, (B, T, 1), of S, (B, T, width)."""
        return _soft_masks([self], source)

    @staticmethod
    def keeps_of(modules: Sequence[LearnedToken], source: Tensor) -> Tensor:
        """Which positions evaluation keeps in each of n modules of one source, (n, B, T), bool."""
        return (_soft_masks(modules, source) >= 0.5).movedim(-1, 0)

    def forward(
        self, hidden: Tensor, mask_source: Tensor | None = None, return_mask: bool = False
    ) -> DropoutOutput:
        source = hidden if self.mask_from == "input" else mask_source
        assert source is not None
        soft_mask = self.soft_mask(source)
        mask = self.rounding(soft_mask) if self.training else threshold(soft_mask)
        with_stats = not torch.is_grad_enabled()
        return DropoutOutput(
            hidden * mask.to(hidden.dtype),
            penalty=self.work * self.penalty(soft_mask),
            stats=mask_stats(soft_mask, mask) if with_stats else None,
            soft_mask=soft_mask if return_mask else None,
            mask=mask if return_mask else None,
        )

    def extra_repr(self) -> str:
        return (
            f"mask_from={self.mask_from}, shift_init={self.shift_init:g}, rounding={self.rounding}, "
            f"penalty={self.penalty}"
        )


def _soft_masks(modules: Sequence[LearnedToken], source: Tensor) -> Tensor:
    """M of each of n modules of one source, (B, T, n)."""
    with torch.autocast(source.device.type, enabled=False):
        source = source.to(modules[0].shift.dtype)
        scaled = F.rms_norm(source, source.shape[-1:], eps=1e-6)
        attended = [module.read(scaled) for module in modules]
    return cosine_mask(torch.cat(attended, -1), torch.cat([module.shift for module in modules]))
