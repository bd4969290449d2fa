"""The contract between the model and its dropouts."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Site:
    """Where in the model a dropout stands: facts it may need at construction.

    `slot` is the slot's name, `layer` the block's index (0 for the embedding), `width` the channels
    that pass through: n_embd, 4 n_embd at `mlp_hidden`, the head size at `attention_heads`.
    """

    slot: str
    layer: int
    n_layer: int
    n_embd: int
    width: int
    n_head: int
    block_size: int
    activation: str


class DropoutOutput(NamedTuple):
    """What a dropout hands back; nothing is written to the module.

    `penalty` is unweighted, differentiable and 0-d; `stats` are detached and 0-d; `soft_mask`, in
    [0, 1], and `mask`, in {0, 1}, broadcast against `hidden` and come only where `return_mask` asks.
    """

    hidden: Tensor
    penalty: Tensor | None = None
    stats: dict[str, Tensor] | None = None
    soft_mask: Tensor | None = None
    mask: Tensor | None = None


def passed(hidden: Tensor, return_mask: bool) -> DropoutOutput:
    """y = x: evaluation of most kinds, with a mask of ones where asked for."""
    return DropoutOutput(hidden, mask=torch.ones_like(hidden) if return_mask else None)


class Dropout(Protocol):
    """A dropout module: an `nn.Module` built once, as `factory(site)`, and called as below.

    Three optional attributes speak to the model. `wants_mask_source = True` asks for `mask_source`,
    (B, T, n_embd), made once a forward pass from the embedding sum. `attention_p`, a probability, says
    that a fused attention kernel may do the work: only such a module fits the slot `attention`.
    `is_identity = True` says that the slot may as well be empty.
    """

    def __call__(
        self, hidden: Tensor, mask_source: Tensor | None = None, return_mask: bool = False
    ) -> DropoutOutput: ...
