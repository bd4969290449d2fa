"""The attention of a block, and the one that precomputed masks come from."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from model.config import GPTConfig
from model.slots import Slot, Tape
from ops.attention import causal_attention
from ops.linear import Linear
from ops.rotary import rotate


class CausalSelfAttention(nn.Module):
    """Multi-head causal attention, with slots inside it.

    With `qk_norm` each head's queries and keys are divided by their root mean square and scaled by
    learned gains (Dehghani et al. 2023); with rotary positions they are then turned by them.
    """

    def __init__(self, cfg: GPTConfig, slots: Callable[[str], Slot]) -> None:
        super().__init__()
        self.n_head = cfg.n_head
        self.fused = {"auto": None, "plain": False, "fused": True}[cfg.attention]
        self.is_rotary = cfg.positions == "rotary"
        self.qkv = Linear(cfg.n_embd, 3 * cfg.n_embd, cfg.bias)
        self.norm_query = nn.RMSNorm(cfg.head_size, eps=1e-6) if cfg.qk_norm else None
        self.norm_key = nn.RMSNorm(cfg.head_size, eps=1e-6) if cfg.qk_norm else None
        self.project = Linear(cfg.n_embd, cfg.n_embd, cfg.bias)
        self.attention = slots("attention")
        self.attention_heads = slots("attention_heads")
        self.attention_output = slots("attention_output")

    def forward(self, x: Tensor, tape: Tape) -> Tensor:
        qkv = self.with_positions(self.qkv(x))
        heads = causal_attention(qkv, self.n_head, self.attention.attention_p, self.fused)
        heads = self.attention_heads(heads, tape)
        return self.attention_output(self.project(heads.flatten(2)), tape)

    def with_positions(self, qkv: Tensor) -> Tensor:
        """`qkv` (B, T, 3 C) with queries and keys as attention compares them; float32 in between."""
        if self.norm_query is None and not self.is_rotary:
            return qkv
        query, key, value = qkv.unflatten(-1, (3, self.n_head, -1)).unbind(-3)
        compared = []
        for part, norm in ((query, self.norm_query), (key, self.norm_key)):
            part = part.to(torch.promote_types(part.dtype, torch.float32))
            part = part if norm is None else norm(part)
            compared.append((rotate(part) if self.is_rotary else part).to(value.dtype))
        return torch.stack((*compared, value), -3).flatten(-3)


class MaskSource(nn.Module):
    """E_dropout: one causal attention over the embedding sum, with an output projection.

    Every LearnedDropout with `mask_from="embedding"` computes its mask from it, so all masks are known
    before the first block runs ("precomputed masks"). (B, T, n_embd) in and out.
    """

    def __init__(self, cfg: GPTConfig, detach: bool) -> None:
        super().__init__()
        self.n_head = cfg.n_head
        self.detach = detach
        self.qkv = Linear(cfg.n_embd, 3 * cfg.n_embd)
        self.output = Linear(cfg.n_embd, cfg.n_embd)

    def forward(self, embedding: Tensor) -> Tensor:
        if self.detach:
            embedding = embedding.detach()
        return self.output(causal_attention(self.qkv(embedding), self.n_head).flatten(2))
