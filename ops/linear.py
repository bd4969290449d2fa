"""Linear layers whose weight's gradient is summed in float32, compiled for a CPU."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ops import native


class Linear(nn.Linear):
    """y = x W^T, as `linear` computes it, and plus a bias where it has one."""

    def __init__(self, in_features: int, out_features: int, bias: bool = False) -> None:
        super().__init__(in_features, out_features, bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.with_bias(linear(x, self.weight))

    def with_bias(self, out: Tensor) -> Tensor:
        return out if self.bias is None else out + self.bias.to(out.dtype)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x W^T in autocast's dtype; `x` (..., in), `weight` (out, in).

    Under an autocast to bfloat16 the gradient of a float32 weight is summed and stays in float32 where
    it is compiled; autocast's own would be rounded to bfloat16.
    """
    in_autocast = torch.is_autocast_enabled("cpu") and x.dtype in (torch.float32, torch.bfloat16)
    if in_autocast and torch.is_grad_enabled() and weight.requires_grad:
        operand = torch.get_autocast_dtype("cpu")
        if sums_in_float32(operand, weight) and native.usable(x):
            return _Linear.apply(x, weight)
    return F.linear(x, weight)


def sums_in_float32(operand: torch.dtype, weight: Tensor) -> bool:
    """Whether `weight_gradient` can give the gradient of `weight` from operands of this dtype."""
    fits = operand == torch.bfloat16 and weight.dtype == torch.float32
    return fits and native.usable(weight.detach()) and native.multiplies_in(torch.bfloat16)


def weight_gradient(
    gradient: Tensor, x: Tensor, total: Tensor | None = None, shape: Sequence[int] | None = None
) -> Tensor:
    """G^T X of `gradient` (N, out) and `x` (N, in), both bfloat16, in float32; plus `total`, in place.

    `shape` is (out, in) where the operands have padding beyond. By the compiled kernel alone.
    """
    gradient, x = _with_whole_rows(gradient), _with_whole_rows(x)
    outputs, inputs = shape or (gradient.shape[1], x.shape[1])
    out = total
    if out is None:
        empty = torch.empty if len(x) else torch.zeros
        out = empty(outputs, inputs, dtype=torch.float32, device="cpu")
    assert len(gradient) == len(x) and gradient.dtype == x.dtype == torch.bfloat16
    assert out.shape == (outputs, inputs) and out.dtype == torch.float32 and out.is_contiguous()
    assert outputs <= gradient.shape[1] and inputs <= x.shape[1]
    pointers = (gradient.data_ptr(), x.data_ptr(), out.data_ptr())
    sizes = (len(x), outputs, inputs, gradient.stride(0), x.stride(0))
    multiply = native.function("weight_gradient", torch.bfloat16)
    if multiply(*pointers, *sizes, total is not None, torch.get_num_threads()):
        raise MemoryError(f"no memory to pack a layer's input, {tuple(x.shape)}")
    return out


def _with_whole_rows(x: Tensor) -> Tensor:
    """`x` itself where each row's elements lie side by side, else a copy that is so."""
    return x if x.stride(1) == 1 and x.stride(0) >= x.shape[1] else x.contiguous()


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.dtype = x.dtype
        x, weight = x.to(torch.bfloat16), weight.to(torch.bfloat16)
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        by_x = (gradient @ weight).to(ctx.dtype) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return by_x, None
        gradient, x = (t.reshape(-1, t.shape[-1]) for t in (gradient, x))
        return by_x, weight_gradient(gradient, x)
