"""GELU, alone and with the linear layer behind it, compiled for a CPU."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ops import native
from ops.linear import sums_in_float32, weight_gradient


def gelu(x: Tensor) -> Tensor:
    """The exact GELU, x Phi(x)."""
    return _Gelu.apply(x.contiguous()) if _is_compiled(x) else F.gelu(x)


def gelu_linear(x: Tensor, weight: Tensor) -> Tensor:
    """GELU(x) W^T; `x` (..., in), `weight` (out, in).

    Where it is compiled it forms GELU(x) again in the backward pass, beside its gradient, rather than
    keep it: one of an MLP's two wide tensors less.
    """
    if _is_compiled(x):
        own = weight if sums_in_float32(x.dtype, weight) else weight.to(x.dtype)
        return _GeluLinear.apply(x.contiguous(), own)
    return F.linear(F.gelu(x), weight)


def _is_compiled(x: Tensor) -> bool:
    """Not where autocast would multiply in another type than that of `x`."""
    own = x.dtype
    if torch.is_autocast_enabled("cpu"):
        own = torch.get_autocast_dtype("cpu")
    return x.dtype == own and own in (torch.float32, torch.bfloat16) and native.usable(x)


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        out = torch.empty_like(x)
        _call("gelu_forward", x, out)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        by_x = gradient.clone(memory_format=torch.contiguous_format)
        _call("gelu_backward", x, by_x, torch.empty_like(x))
        return by_x


class _GeluLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.in_float32, weight = weight.dtype != x.dtype, weight.to(x.dtype)
        ctx.save_for_backward(x, weight)
        hidden = torch.empty_like(x)
        _call("gelu_forward", x, hidden)
        return F.linear(hidden, weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        x, weight = ctx.saved_tensors
        by_x, hidden = (gradient @ weight).to(x.dtype), torch.empty_like(x)
        _call("gelu_backward", x, by_x, hidden)
        if not ctx.needs_input_grad[1]:
            return by_x, None
        gradient, hidden = (t.reshape(-1, t.shape[-1]) for t in (gradient, hidden))
        return by_x, weight_gradient(gradient, hidden) if ctx.in_float32 else gradient.T @ hidden


def _call(name: str, *tensors: Tensor) -> None:
    x = tensors[0]
    assert all(t.dtype == x.dtype and t.shape == x.shape for t in tensors)
    native.function(name, x.dtype)(*(tensor.data_ptr() for tensor in tensors), x.numel())
