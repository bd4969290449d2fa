"""One block of a GPT."""

from collections.abc import Mapping

from torch import Tensor, nn

from common.errors import UserError
from model.attention import CausalSelfAttention
from model.config import GPTConfig
from model.mlp import MLPFactory
from model.slots import BLOCK_SLOTS, DropoutFactory, Slot, Tape


def make_norm(cfg: GPTConfig) -> nn.Module:
    """LayerNorm (Ba et al. 2016), or RMSNorm (Zhang and Sennrich 2019), which only scales."""
    if cfg.norm == "rms":
        return nn.RMSNorm(cfg.n_embd, eps=1e-6)
    return nn.LayerNorm(cfg.n_embd, bias=cfg.bias)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), each branch with its slots.

    ValueError where a dropout is for a slot that this block's MLP does not have.
    """

    def __init__(
        self,
        cfg: GPTConfig,
        layer: int,
        dropouts: Mapping[str, DropoutFactory],
        mlp: MLPFactory,
    ) -> None:
        super().__init__()

        def slots(name: str) -> Slot:
            return Slot(cfg.site(name, layer), dropouts.get(name))

        self.norm_attention = make_norm(cfg)
        self.attention = CausalSelfAttention(cfg, slots)
        self.residual_attention = slots("residual_attention")
        self.norm_mlp = make_norm(cfg)
        self.mlp = mlp(cfg, slots)
        self.residual_mlp = slots("residual_mlp")
        there = {module.name for module in self.modules() if isinstance(module, Slot)}
        for name in BLOCK_SLOTS:
            if name not in there and not slots(name).is_empty:
                raise UserError(
                    f"{type(self.mlp).__name__} has no slot {name}: put dropout/slot@dropout.{name}"
                    "=none, or choose another model.mlp"
                )

    def forward(self, x: Tensor, tape: Tape) -> Tensor:
        x = x + self.residual_attention(self.attention(self.norm_attention(x), tape), tape)
        return x + self.residual_mlp(self.mlp(self.norm_mlp(x), tape), tape)
