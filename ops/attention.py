"""Causal attention, by a fused kernel or by plain matrix products."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.dropout import dropout


def causal_attention(
    query: Tensor, key: Tensor, value: Tensor, p: float = 0.0, fused: bool | None = None
) -> Tensor:
    """softmax(Q K^T / sqrt(head size) + causal mask) V, with dropout of rate `p` on the probabilities.

    `query`, `key` and `value` are (B, n_head, T, head_size), and so is the result. `fused=None` takes
    the fused kernel on a GPU and plain products on a CPU, whose fused backward is slow at short blocks.
    """
    if fused is None:
        fused = query.is_cuda
    if fused:
        return F.scaled_dot_product_attention(query, key, value, dropout_p=p, is_causal=True)
    batch, _, length, size = query.shape
    future = torch.full((length, length), -math.inf, dtype=query.dtype, device=query.device).triu_(
        1
    )
    query, key, value = (x.flatten(0, 1) for x in (query, key, value))
    scores = torch.baddbmm(future, query, key.mT, alpha=size**-0.5)
    probabilities = dropout(scores.softmax(-1), p)
    return (probabilities.to(value.dtype) @ value).unflatten(0, (batch, -1))


def split_heads(qkv: Tensor, n_head: int) -> tuple[Tensor, Tensor, Tensor]:
    """(B, T, 3 C) of a fused projection -> query, key and value, each (B, n_head, T, C / n_head)."""
    batch, length, width = qkv.shape
    heads = qkv.view(batch, length, 3, n_head, width // (3 * n_head))
    query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)
    return query, key, value
