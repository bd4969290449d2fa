"""Dropout of single elements, on a CPU drawn and applied in one compiled pass each way."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ops import native


def dropout(x: Tensor, p: float, return_mask: bool = False) -> tuple[Tensor, Tensor | None]:
    """(x m / (1 - p), m or None) with m ~ Bernoulli(1 - p) for every element; p in [0, 1].

    What `F.dropout` does, and from the same random numbers, where there is no kernel for `x`; with
    one, the mask is a hash of each element's place and one number from torch's generator, and `p` is
    taken to the nearest of 65,536 steps. Asking for the mask changes nothing else. A dropped value
    that is not finite becomes NaN.
    """
    if p == 0:
        return x, torch.ones_like(x) if return_mask else None
    if _fits(x):
        return _drop(x, p, 1 / (1 - p) if p < 1 else 0.0, 0.0, 0.0, return_mask)
    if not return_mask:
        return F.dropout(x, p), None
    scaled_mask = F.dropout(torch.ones_like(x), p)
    return x * scaled_mask, (scaled_mask > 0).to(x.dtype)


def drop_to(
    x: Tensor, p: float, *, scale: float, shift: float, dropped: float, return_mask: bool = False
) -> tuple[Tensor, Tensor | None]:
    """(y, m or None) with y = scale x + shift where m = 1, else `dropped`; m as in `dropout`."""
    if _fits(x):
        return _drop(x, p, scale, shift, dropped, return_mask)
    kept = F.dropout(torch.ones_like(x), p) > 0
    y = torch.where(kept, x * scale + shift, x * 0 + dropped)
    return y, kept.to(x.dtype) if return_mask else None


def _fits(x: Tensor) -> bool:
    """Whether there is a kernel for `x` here."""
    return x.dtype in (torch.float32, torch.bfloat16) and native.usable(x)


def _drop(
    x: Tensor, p: float, scale: float, shift: float, dropped: float, return_mask: bool
) -> tuple[Tensor, Tensor | None]:
    seed = native.draw_seed()
    y = _Drop.apply(x, (p, scale, shift, dropped, seed))
    return y, _call(torch.ones_like(x), (p, 1.0, 0.0, 0.0, seed)) if return_mask else None


class _Drop(torch.autograd.Function):
    """Keeps its numbers alone; the gradient is dropped in the same places, from the same seed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, settings: tuple[Any, ...]) -> Tensor:
        ctx.settings = settings
        return _call(x, settings)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        p, scale, _, _, seed = ctx.settings
        return _call(gradient, (p, scale, 0.0, 0.0, seed)), None


def _call(x: Tensor, settings: tuple[Any, ...]) -> Tensor:
    x = x.contiguous()
    y = torch.empty_like(x)
    function = native.function("dropout", x.dtype)
    function(x.data_ptr(), y.data_ptr(), x.numel(), *settings)
    return y
