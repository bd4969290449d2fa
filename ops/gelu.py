"""The second half of an MLP, which keeps one of its two wide tensors for the backward pass."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ops import native


def gelu_linear(x: Tensor, weight: Tensor) -> Tensor:
    """GELU(x) W^T with the exact GELU, x Phi(x); `x` (..., in), `weight` (out, in).

    On a CPU in float32 or bfloat16 a compiled kernel forms GELU(x) again in the backward pass, beside
    its gradient, rather than keep it (`kernels/gelu.cpp`).
    """
    if x.dtype in (torch.float32, torch.bfloat16) and native.usable(x):
        return _GeluLinear.apply(x.contiguous(), weight.to(x.dtype))
    return F.linear(F.gelu(x), weight)


class _GeluLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        hidden = torch.empty_like(x)
        _call("gelu_forward", x, hidden)
        return F.linear(hidden, weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        x, weight = ctx.saved_tensors
        by_x, hidden = gradient @ weight, torch.empty_like(x)
        _call("gelu_backward", x, by_x, hidden)
        if not ctx.needs_input_grad[1]:
            return by_x, None
        return by_x, gradient.flatten(0, -2).T @ hidden.flatten(0, -2)


def _call(name: str, *tensors: Tensor) -> None:
    x = tensors[0]
    native.function(name, x.dtype)(*(tensor.data_ptr() for tensor in tensors), x.numel())
