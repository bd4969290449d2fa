"""Learned Dropout: a mask that the model computes from its input."""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from common.errors import UserError
from dropout.base import DropoutOutput, Site
from dropout.penalties import MaskPenalty
from dropout.rounding import StochasticRounding, threshold
from ops import learned_mask
from ops.attention import causal_attention
from ops.linear import Linear


def cosine_mask(attended: Tensor, shift: Tensor) -> Tensor:
    """M = cos(A + B) / 2 + 1/2 in [0, 1], computed in float32 at least.

    Under bfloat16 the mask and the noise it is compared with would have 8 bits, and the probability
    of a one would no longer be M.
    """
    return _CosineMask.apply(attended, shift)


class _CosineMask(torch.autograd.Function):
    """Works in place and keeps A, which attention keeps anyway, in place of A + B in float32."""

    @staticmethod
    def forward(ctx: Any, attended: Tensor, shift: Tensor) -> Tensor:
        ctx.save_for_backward(attended, shift)
        return _angle(attended, shift).cos_().mul_(0.5).add_(0.5)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        attended, shift = ctx.saved_tensors
        by_angle = _angle(attended, shift).sin_().mul_(gradient).mul_(-0.5)
        by_shift = by_angle.sum_to_size(shift.shape)
        return by_angle.to(attended.dtype), by_shift.to(shift.dtype)


def _angle(attended: Tensor, shift: Tensor) -> Tensor:
    """A + B, a new tensor, in float32 at least."""
    precise = torch.promote_types(attended.dtype, torch.float32)
    return attended.to(precise) + shift.to(precise)


def mask_stats(soft_mask: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Share of ones in the rounded mask, and of the soft mask that has all but decided."""
    return {
        "ones": mask.mean(),
        "above_0.9": (soft_mask > 0.9).float().mean(),
        "below_0.1": (soft_mask < 0.1).float().mean(),
    }


class LearnedDropout(nn.Module):
    """Causal attention over the input decides, element by element, what is kept (Learned Dropout).

        A = MultiHeadCausalAttention(X)          fused Q, K, V without bias; no output projection
        M = cos(A + B) / 2 + 1/2                 B: one free number a channel, first `shift_init`
        Y = X * round(M)                         no scaling by 1 / keep: the mask selects

    Training rounds with `rounding` and asks `penalty(M)`; evaluation keeps where M >= 0.5. `hidden` is
    (B, T, width) in every slot but the two that have heads. `mask_from="input"` takes X itself,
    `"embedding"` the `mask_source` (B, T, n_embd) that the model makes from the embedding sum (the
    precomputed masks, known before the first block runs). `detach` cuts the mask's gradient off:

    - `none`: nowhere;
    - `input`: the module's own input, with `mask_from="input"`;
    - `embedding`: before the model's extra attention; `output`: after it, inside this module, so that
      the extra attention never learns (the published run), both with `mask_from="embedding"`.

    `soft_map` makes another map from (A, B) to M, each module its own: `dropout.fourier` has one.

    ValueError for a slot that is not (B, T, width), a width that `n_head` does not divide, a
    `shift_init` outside [0, pi], and a `detach` that does not go with `mask_from`.
    """

    def __init__(
        self,
        site: Site,
        *,
        rounding: Callable[[Tensor], Tensor],
        penalty: Callable[[Tensor], Tensor],
        n_head: int | None = None,
        shift_init: float = 0.0,
        mask_from: Literal["input", "embedding"] = "input",
        detach: Literal["none", "input", "embedding", "output"] = "none",
        soft_map: Callable[[], Callable[[Tensor, Tensor], Tensor]] = lambda: cosine_mask,
    ) -> None:
        super().__init__()
        self.n_head = site.n_head if n_head is None else n_head
        self.mask_from, self.detach = mask_from, detach
        _check(site, self.n_head, shift_init, mask_from, detach)
        self.rounding, self.penalty, self.soft_map = rounding, penalty, soft_map()
        self.shift_init = shift_init
        self.qkv = Linear(site.width, 3 * site.width)
        self.shift = nn.Parameter(torch.full((site.width,), float(shift_init)))

    @property
    def wants_mask_source(self) -> bool:
        return self.mask_from == "embedding"

    @property
    def detach_mask_source(self) -> bool:
        return self.detach == "embedding"

    def forward(
        self, hidden: Tensor, mask_source: Tensor | None = None, return_mask: bool = False
    ) -> DropoutOutput:
        source = hidden if self.mask_from == "input" else mask_source
        assert source is not None
        attended = self.attend(source)
        if self._is_plain and not return_mask and learned_mask.fits(hidden, attended):
            return self._drop_in_one_pass(hidden, attended)
        soft_mask = self.soft_map(attended, self.shift)
        mask = self.rounding(soft_mask) if self.training else threshold(soft_mask)
        with_stats = not torch.is_grad_enabled()
        return DropoutOutput(
            hidden * mask.to(hidden.dtype),
            penalty=self.penalty(soft_mask),
            stats=mask_stats(soft_mask, mask) if with_stats else None,
            soft_mask=soft_mask if return_mask else None,
            mask=mask if return_mask else None,
        )

    def attend(self, source: Tensor) -> Tensor:
        """A, (B, T, width)."""
        if self.detach in ("input", "output"):
            source = source.detach()
        return causal_attention(self.qkv(source), self.n_head).flatten(2)

    @property
    def _is_plain(self) -> bool:
        """Whether this trains with the parts that `learned_mask` puts together."""
        return (
            self.training
            and torch.is_grad_enabled()
            and self.soft_map is cosine_mask
            and type(self.rounding) is StochasticRounding
            and type(self.penalty) is MaskPenalty
            and self.penalty.only_squared
        )

    def _drop_in_one_pass(self, hidden: Tensor, attended: Tensor) -> DropoutOutput:
        """What `forward` gives by its parts, from the same noise."""
        assert isinstance(self.penalty, MaskPenalty)
        out, mean_square = learned_mask.drop_by_cosine(hidden, attended, self.shift)
        return DropoutOutput(out, penalty=self.penalty.of_mean_square(mean_square))

    def extra_repr(self) -> str:
        return (
            f"n_head={self.n_head}, shift_init={self.shift_init:g}, mask_from={self.mask_from}, "
            f"detach={self.detach}, rounding={self.rounding}, penalty={self.penalty}"
        )


def _check(site: Site, n_head: int, shift_init: float, mask_from: str, detach: str) -> None:
    if site.slot in ("attention", "attention_heads"):
        raise UserError(
            f"learned dropout does not fit slot {site.slot}: it needs (B, T, channels); "
            "use attention_output instead"
        )
    if n_head < 1 or site.width % n_head:
        raise UserError(
            f"n_head={n_head} must divide the {site.width} channels at slot {site.slot}: "
            "each head attends with an equal share of them"
        )
    if not 0 <= shift_init <= math.pi + 1e-4:  # a hand-typed 3.1416 is pi
        raise UserError(
            f"shift_init={shift_init} must be in [0, pi]: 0 starts with M near 1, pi with M near 0"
        )
    allowed = {"input": ("none", "input"), "embedding": ("none", "embedding", "output")}
    if mask_from not in allowed:
        raise UserError(f"mask_from={mask_from!r} must be one of {', '.join(allowed)}")
    if detach not in allowed[mask_from]:
        raise UserError(
            f"detach={detach!r} must be one of {', '.join(allowed[mask_from])} "
            f"with mask_from={mask_from}"
        )
    if mask_from == "embedding" and site.width != site.n_embd:
        raise UserError(
            f"mask_from=embedding makes masks of {site.n_embd} channels, but slot {site.slot} has "
            f"{site.width}: use mask_from=input there"
        )
