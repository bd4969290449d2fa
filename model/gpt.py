"""A GPT-2 style decoder whose dropouts are chosen from outside."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from common.errors import UserError
from dropout.base import DropoutOutput, Site
from model.slots import BLOCK_SLOTS, DropoutFactory, Drops, check_slots, fill
from ops.attention import causal_attention
from ops.gelu import gelu, gelu_linear
from ops.linear import Linear


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a GPT. ValueError where the sizes do not go together."""

    vocab_size: int
    block_size: int
    n_layer: int
    n_head: int
    n_embd: int
    mlp_ratio: float = 4.0
    activation: Literal["gelu", "selu"] = "gelu"
    attention: Literal["auto", "plain", "fused"] = "auto"

    def __post_init__(self) -> None:
        for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd"):
            if getattr(self, name) < 1:
                raise UserError(f"model.{name}={getattr(self, name)} must be at least 1")
        if self.n_embd % self.n_head:
            raise UserError(
                f"model.n_head={self.n_head} must divide model.n_embd={self.n_embd}: "
                "each head gets an equal share of the channels"
            )
        for name, choices in {
            "activation": ("gelu", "selu"),
            "attention": ("auto", "plain", "fused"),
        }.items():
            if getattr(self, name) not in choices:
                raise UserError(
                    f"model.{name}={getattr(self, name)} must be one of {', '.join(choices)}"
                )

    @property
    def mlp_width(self) -> int:
        return round(self.mlp_ratio * self.n_embd)

    def site(self, slot: str, layer: int = 0) -> Site:
        width = {
            "mlp_hidden": self.mlp_width,
            "attention_heads": self.n_embd // self.n_head,
        }.get(slot, self.n_embd)
        return Site(
            slot=slot,
            layer=layer,
            n_layer=self.n_layer,
            n_embd=self.n_embd,
            width=width,
            n_head=self.n_head,
            block_size=self.block_size,
            activation=self.activation,
        )


class GPTOutput(NamedTuple):
    """`hidden` (B, T, n_embd) goes into the head; the rest is what the dropouts returned.

    `penalty` is the mean over the modules that have one; `stats` and `masks` are keyed
    `block3/mlp_output[/ones]`, and made only without gradients and on request.
    """

    hidden: Tensor
    penalty: Tensor | None
    stats: dict[str, Tensor]
    masks: dict[str, DropoutOutput]


class CausalSelfAttention(nn.Module):
    """Multi-head causal attention without biases, with slots inside it."""

    def __init__(self, cfg: GPTConfig) -> None:
        super().__init__()
        self.n_head = cfg.n_head
        self.fused = {"auto": None, "plain": False, "fused": True}[cfg.attention]
        self.qkv = Linear(cfg.n_embd, 3 * cfg.n_embd)
        self.project = Linear(cfg.n_embd, cfg.n_embd)

    def forward(self, x: Tensor, modules: nn.ModuleDict, place: str, drops: Drops) -> Tensor:
        heads = causal_attention(self.qkv(x), self.n_head, _attention_p(modules), self.fused)
        heads = drops(modules, place, "attention_heads", heads)
        return drops(modules, place, "attention_output", self.project(heads.flatten(2)))


def _attention_p(modules: nn.ModuleDict) -> float:
    """The rate at which the kernel drops probabilities: zero in evaluation."""
    if "attention" not in modules or not modules["attention"].training:
        return 0.0
    return modules["attention"].attention_p  # type: ignore[return-value]


class MLP(nn.Module):
    """Two linear layers without biases around an exact GELU (or SELU)."""

    def __init__(self, cfg: GPTConfig) -> None:
        super().__init__()
        self.activation: Callable[[Tensor], Tensor] = gelu if cfg.activation == "gelu" else F.selu
        self.expand = Linear(cfg.n_embd, cfg.mlp_width)
        self.project = Linear(cfg.mlp_width, cfg.n_embd)

    def forward(self, x: Tensor, modules: nn.ModuleDict, place: str, drops: Drops) -> Tensor:
        hidden = self.expand(x)
        if self.activation is gelu and "mlp_hidden" not in modules and _is_linear(self.project):
            out = gelu_linear(hidden, self.project.weight)
        else:
            out = self.project(drops(modules, place, "mlp_hidden", self.activation(hidden)))
        return drops(modules, place, "mlp_output", out)


def _is_linear(layer: nn.Module) -> bool:
    """Whether nothing but `layer.weight` acts here: no bias, no adapter, no hook."""
    forward_hooks = (layer._forward_hooks, layer._forward_pre_hooks)
    hooks = (*forward_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    is_linear = type(layer) in (Linear, nn.Linear) and layer._parameters.get("bias") is None
    return is_linear and not any(hooks)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); `dropout` holds the modules of its slots."""

    def __init__(self, cfg: GPTConfig, layer: int, dropouts: Mapping[str, DropoutFactory]) -> None:
        super().__init__()
        self.place = f"block{layer}"
        self.norm_attention = nn.LayerNorm(cfg.n_embd, bias=False)
        self.attention = CausalSelfAttention(cfg)
        self.norm_mlp = nn.LayerNorm(cfg.n_embd, bias=False)
        self.mlp = MLP(cfg)
        self.dropout = fill(dropouts, {slot: cfg.site(slot, layer) for slot in BLOCK_SLOTS})

    def forward(self, x: Tensor, drops: Drops) -> Tensor:
        slots, place = self.dropout, self.place
        branch = self.attention(self.norm_attention(x), slots, place, drops)
        x = x + drops(slots, place, "residual_attention", branch)
        branch = self.mlp(self.norm_mlp(x), slots, place, drops)
        return x + drops(slots, place, "residual_mlp", branch)


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


class GPT(nn.Module):
    """GPT-2 without biases: learned positions, pre-norm blocks, a head tied to the token embedding.

    `dropouts` maps slot names (`model.slots.SLOTS`) to factories called with a `Site`. The forward
    pass ends before the head, whose logits are never needed whole in training: `logits(hidden)`, or
    the loss from `hidden` and `head_weight`.
    """

    def __init__(self, cfg: GPTConfig, dropouts: Mapping[str, DropoutFactory] = {}) -> None:
        super().__init__()
        check_slots(dropouts)
        self.cfg = cfg
        self.token_embedding = nn.Embedding(cfg.vocab_size, cfg.n_embd)
        self.position_embedding = nn.Embedding(cfg.block_size, cfg.n_embd)
        self.dropout = fill(dropouts, {"embedding": cfg.site("embedding")})
        self.blocks = nn.ModuleList(Block(cfg, layer, dropouts) for layer in range(cfg.n_layer))
        self.norm = nn.LayerNorm(cfg.n_embd, bias=False)
        self.mask_source = self._mask_source()

    def _mask_source(self) -> MaskSource | None:
        askers = [m for m in self.modules() if getattr(m, "wants_mask_source", False)]
        detach = {getattr(m, "detach_mask_source", False) for m in askers}
        if len(detach) > 1:
            raise UserError(
                "the slots that share the precomputed masks differ in detach: give all of them "
                "detach=embedding, or none of them"
            )
        return MaskSource(self.cfg, detach.pop()) if askers else None

    @property
    def head_weight(self) -> Tensor:
        """(vocab_size, n_embd), tied to the token embedding."""
        return self.token_embedding.weight

    def forward(self, tokens: Tensor, return_masks: bool = False) -> GPTOutput:
        """`tokens` (B, T), int64, T at most block_size."""
        drops = Drops(return_masks)
        embedding = self.token_embedding(tokens) + self.position_embedding.weight[: tokens.shape[1]]
        if self.mask_source is not None:
            drops.mask_source = self.mask_source(embedding)
        x = drops(self.dropout, "embedding", "embedding", embedding)
        for block in self.blocks:
            x = block(x, drops)
        return GPTOutput(self.norm(x), drops.penalty(), drops.stats, drops.masks)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., n_embd) -> (..., vocab_size)."""
        return F.linear(hidden, self.head_weight.to(hidden.dtype))

    def n_parameters(self) -> int:
        """Parameters without the positional embedding, as the published tables count them."""
        positions = self.position_embedding.weight.numel()
        return sum(p.numel() for p in self.parameters()) - positions
