"""A GPT-2 style decoder whose dropouts are chosen from outside."""

from collections.abc import Mapping
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from common.errors import UserError
from dropout.base import DropoutOutput
from model.attention import MaskSource
from model.block import Block, make_norm
from model.config import GPTConfig
from model.mlp import DenseMLP, MLPFactory
from model.slots import DropoutFactory, Slot, Tape, check_slots


class GPTOutput(NamedTuple):
    """`hidden` (B, T, n_embd) goes into the head; the rest is what modules on the way returned.

    `penalty` is the mean over the dropouts that have one; `stats` and `masks` are keyed
    `block3/mlp_output[/ones]`, and made only without gradients and on request. `added_loss` is what
    MLPs add to the loss, weighted already.
    """

    hidden: Tensor
    penalty: Tensor | None
    stats: dict[str, Tensor]
    masks: dict[str, DropoutOutput]
    added_loss: Tensor | None = None


class GPT(nn.Module):
    """Pre-norm blocks between a token embedding and a head tied to it.

    Positions are learned embeddings, or rotary ones inside attention. `dropouts` maps slot names
    (`model.slots.SLOTS`) to factories called with a `Site`; `mlp` makes each block's MLP
    (`model.mlp`). The forward pass ends before the head, whose logits are never needed whole in
    training: `logits(hidden)`, or the loss from `hidden` and `head_weight`.
    """

    def __init__(
        self,
        cfg: GPTConfig,
        dropouts: Mapping[str, DropoutFactory] = {},
        mlp: MLPFactory = DenseMLP,
    ) -> None:
        super().__init__()
        check_slots(dropouts)
        self.cfg = cfg
        self.token_embedding = nn.Embedding(cfg.vocab_size, cfg.n_embd)
        self.position_embedding = (
            nn.Embedding(cfg.block_size, cfg.n_embd) if cfg.positions == "learned" else None
        )
        self.embedding = Slot(cfg.site("embedding"), dropouts.get("embedding"))
        self.blocks = nn.ModuleList(Block(cfg, i, dropouts, mlp) for i in range(cfg.n_layer))
        self.norm = make_norm(cfg)
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
        tape = Tape(return_masks)
        x = self.token_embedding(tokens)
        if self.position_embedding is not None:
            x = x + self.position_embedding.weight[: tokens.shape[1]]
        if self.mask_source is not None:
            tape.mask_source = self.mask_source(x)
        x = self.embedding(x, tape)
        for block in self.blocks:
            x = block(x, tape)
        return GPTOutput(self.norm(x), tape.penalty(), tape.stats, tape.masks, tape.added_loss())

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., n_embd) -> (..., vocab_size)."""
        return F.linear(hidden, self.head_weight.to(hidden.dtype))

    def n_parameters(self) -> int:
        """Parameters without the positional embedding, as the published tables count them."""
        positions = self.position_embedding
        left_out = 0 if positions is None else positions.weight.numel()
        return sum(p.numel() for p in self.parameters()) - left_out
