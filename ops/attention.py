"""Causal attention: by a kernel of our own, by torch's fused one, or by plain matrix products."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from common.errors import UserError
from ops import native

LEVELS = 2**16


def causal_attention(qkv: Tensor, n_head: int, p: float = 0.0, fused: bool | None = None) -> Tensor:
    """softmax(Q K^T / sqrt(head size) + causal mask) V, with dropout of rate `p` on the probabilities.

    `qkv` (B, T, 3 C) holds queries, keys and values side by side, each the heads side by side; the
    result is (B, T, n_head, C / n_head). `fused=True` takes torch's fused kernel, False plain products;
    None the fused kernel on a GPU, and on a CPU, where that is slow at short blocks, our own
    (`kernels/attention.cpp`) where it could be compiled, or else plain products.
    """
    if qkv.ndim != 3 or qkv.shape[-1] % (3 * n_head):
        raise UserError(
            f"qkv {tuple(qkv.shape)} must be (B, T, 3 C) with C a multiple of n_head={n_head}"
        )
    if fused is None and native.usable(qkv) and p < 1:
        if native.multiplies_in(qkv.dtype):
            return _NativeAttention.apply(qkv.contiguous(), n_head, p)
        if (
            qkv.dtype == torch.bfloat16
        ):  # no AMX: faster in float32 than torch's products in bfloat16
            return _NativeAttention.apply(qkv.float().contiguous(), n_head, p).to(qkv.dtype)
    query, key, value = split_heads(qkv, n_head)
    if qkv.is_cuda if fused is None else fused:
        out = F.scaled_dot_product_attention(query, key, value, dropout_p=p, is_causal=True)
    else:
        out = _plain_attention(query, key, value, p)
    return out.transpose(1, 2)


def split_heads(qkv: Tensor, n_head: int) -> tuple[Tensor, Tensor, Tensor]:
    """(B, T, 3 C) of a fused projection -> query, key and value, each (B, n_head, T, C / n_head)."""
    batch, length, width = qkv.shape
    heads = qkv.view(batch, length, 3, n_head, width // (3 * n_head))
    query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)
    return query, key, value


def _plain_attention(query: Tensor, key: Tensor, value: Tensor, p: float) -> Tensor:
    batch, _, length, size = query.shape
    future = torch.full((length, length), -math.inf, dtype=query.dtype, device=query.device).triu_(
        1
    )
    query, key, value = (x.flatten(0, 1) for x in (query, key, value))
    scores = torch.baddbmm(future, query, key.mT, alpha=size**-0.5)
    probabilities = _dropped(scores.softmax(-1), p)
    return (probabilities.to(value.dtype) @ value).unflatten(0, (batch, -1))


def _dropped(x: Tensor, p: float) -> Tensor:
    """x / (1 - p) with probability 1 - p, else 0, independently for each element; p in [0, 1].

    In eager mode on a CPU `F.dropout` draws one number an element on one thread, at several times the
    cost of the attention around it; here each 64-bit draw serves four elements, and the rate is the
    nearest of 65,536 steps to `p`.
    """
    n_dropped = round(p * LEVELS)
    if n_dropped == 0:
        return x
    if n_dropped == LEVELS or x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(x, p)
    count = x.numel()
    draws = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    noise = draws.view(torch.int16)[:count].view(x.shape)
    kept = noise.ge_(n_dropped - LEVELS // 2)  # stays int16: torch is slow to make numbers of bools
    return x * kept.to(x.dtype).mul_(1 / (1 - p))


class _NativeAttention(torch.autograd.Function):
    """Keeps each query's maximum and sum, and forms the probabilities again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, n_head: int, p: float) -> Tensor:
        batch, length, width = qkv.shape
        size = width // (3 * n_head)
        seed = native.draw_seed() if p else 0
        out = qkv.new_empty(batch, length, n_head, size)
        blocks = -(-length // 16)
        statistics = qkv.new_empty(batch * n_head, blocks, 2, 16, dtype=torch.float32)
        ctx.settings = (batch, length, n_head, size, p, seed)
        _call("attention_forward", (qkv, out, statistics), ctx.settings)
        ctx.save_for_backward(qkv, out, statistics)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        qkv, out, statistics = ctx.saved_tensors
        grad_qkv = torch.empty_like(qkv)
        tensors = (qkv, out, statistics, gradient.contiguous(), grad_qkv)
        _call("attention_backward", tensors, ctx.settings)
        return grad_qkv, None, None


def _call(name: str, tensors: tuple[Tensor, ...], settings: tuple[Any, ...]) -> None:
    function = native.function(name, tensors[0].dtype)
    if function(*(x.data_ptr() for x in tensors), *settings):
        raise MemoryError(
            f"attention over {tuple(tensors[0].shape)}: no memory for its working space"
        )
