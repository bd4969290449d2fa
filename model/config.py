"""The shape of a GPT."""

from dataclasses import dataclass
from typing import Literal, get_args, get_type_hints

from common.errors import UserError
from dropout.base import Site


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a GPT. ValueError where the sizes do not go together.

    The defaults are GPT-2's block without biases. GPT-2 itself is `bias=True, activation="gelu_tanh"`;
    a block of today has `norm="rms"`, `positions="rotary"`, `qk_norm=True` and a gated MLP.
    """

    vocab_size: int
    block_size: int
    n_layer: int
    n_head: int
    n_embd: int
    mlp_ratio: float = 4.0
    activation: Literal["gelu", "gelu_tanh", "selu", "silu", "squared_relu"] = "gelu"
    bias: bool = False
    norm: Literal["layer", "rms"] = "layer"
    positions: Literal["learned", "rotary"] = "learned"
    qk_norm: bool = False
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
        for name, kind in get_type_hints(GPTConfig).items():
            choices = get_args(kind)
            if choices and getattr(self, name) not in choices:
                raise UserError(
                    f"model.{name}={getattr(self, name)} must be one of {', '.join(choices)}"
                )

    @property
    def head_size(self) -> int:
        return self.n_embd // self.n_head

    @property
    def mlp_width(self) -> int:
        return round(self.mlp_ratio * self.n_embd)

    def site(self, slot: str, layer: int = 0) -> Site:
        width = {"mlp_hidden": self.mlp_width, "attention_heads": self.head_size}
        return Site(
            slot=slot,
            layer=layer,
            n_layer=self.n_layer,
            n_embd=self.n_embd,
            width=width.get(slot, self.n_embd),
            n_head=self.n_head,
            block_size=self.block_size,
            activation=self.activation,
        )
