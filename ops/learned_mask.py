"""Learned dropout's mask, applied: X * round(cos(A + B) / 2 + 1/2), compiled for a CPU."""

from typing import Any

import torch
from torch import Tensor

from ops import native

ROWS, LANES = 64, 16  # as in kernels/learned_mask.cpp


def fits(hidden: Tensor, attended: Tensor) -> bool:
    """Whether `drop_by_cosine` takes these."""
    alike = hidden.dtype == attended.dtype and hidden.shape == attended.shape
    fast = hidden.dtype in (torch.float32, torch.bfloat16)
    return alike and fast and native.usable(hidden) and native.usable(attended)


def drop_by_cosine(hidden: Tensor, attended: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """(X * mask, mean(M^2)) of `hidden` X and `attended` A, both (..., C), and `shift` B, (C,).

    M = cos(A + B) / 2 + 1/2 in float32; mask = 1 where N < M with N ~ Uniform[0, 1), else 0, and its
    gradient passes straight through to M. For tensors that `fits` allows. The same numbers as
    `cosine_mask`, `StochasticRounding` and a product give, from the same seed.
    """
    return _DropByCosine.apply(hidden.contiguous(), attended.contiguous(), shift.float())


class _DropByCosine(torch.autograd.Function):
    """Keeps its input and a seed; the mask is computed again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, attended: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        ctx.rows, ctx.seed = hidden.numel() // len(shift), native.draw_seed()
        ctx.save_for_backward(hidden, attended, shift)
        out = torch.empty_like(hidden)
        squares = hidden.new_zeros(-(-ctx.rows // ROWS), LANES, dtype=torch.float32)
        _call("forward", (hidden, attended, shift, out, squares), (), ctx)
        return out, squares.sum() / hidden.numel()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor, by_mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden, attended, shift = ctx.saved_tensors
        by_hidden, by_attended = torch.empty_like(hidden), torch.empty_like(attended)
        by_shift = shift.new_zeros(-(-ctx.rows // ROWS), len(shift))
        tensors = (hidden, attended, shift, gradient.contiguous(), by_hidden, by_attended, by_shift)
        _call("backward", tensors, (by_mean.item() / max(hidden.numel(), 1),), ctx)
        return by_hidden, by_attended, by_shift.sum(0)


def _call(way: str, tensors: tuple[Tensor, ...], numbers: tuple[float, ...], ctx: Any) -> None:
    function = native.function(f"learned_mask_{way}", tensors[0].dtype)
    shift = tensors[2]
    function(*(x.data_ptr() for x in tensors), *numbers, ctx.rows, len(shift), ctx.seed)
