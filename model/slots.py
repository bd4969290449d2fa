"""The places in the model that a dropout can fill, and what one forward pass carries past them."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from common.errors import UserError
from dropout.base import Dropout, DropoutOutput, Site

BLOCK_SLOTS = (
    "attention",
    "attention_heads",
    "attention_output",
    "mlp_hidden",
    "mlp_output",
    "residual_attention",
    "residual_mlp",
)
SLOTS = ("embedding", *BLOCK_SLOTS)

DropoutFactory = Callable[[Site], nn.Module]


def check_slots(factories: Mapping[str, DropoutFactory]) -> None:
    """ValueError where a slot is named that no model has."""
    for name in factories:
        if name not in SLOTS:
            raise UserError(f"{name} is not a dropout slot; the slots are {', '.join(SLOTS)}")


class Tape:
    """Goes with one forward pass and gathers what the modules on its way return beside their output.

    Stats and masks are keyed by block and slot, as in `block3/mlp_output`.
    """

    def __init__(self, return_masks: bool = False) -> None:
        self.return_masks = return_masks
        self.mask_source: Tensor | None = None
        self.penalties: list[Tensor] = []
        self.losses: list[Tensor] = []
        self.stats: dict[str, Tensor] = {}
        self.masks: dict[str, DropoutOutput] = {}

    def keep(self, key: str, out: DropoutOutput) -> None:
        """What the dropout of the slot `key` returned, but for `hidden`."""
        if out.penalty is not None:
            self.penalties.append(out.penalty)
        if out.stats is not None:
            self.stats |= {f"{key}/{name}": value for name, value in out.stats.items()}
            if out.penalty is not None:
                self.stats[f"{key}/penalty"] = out.penalty
        if self.return_masks and out.mask is not None:
            self.masks[key] = out

    def add_loss(self, loss: Tensor) -> None:
        """A term of the loss that a module asks for, 0-d and weighted: an MLP's load balancing, say."""
        self.losses.append(loss)

    def penalty(self) -> Tensor | None:
        """Mean over the dropouts that have one."""
        return torch.stack(self.penalties).mean() if self.penalties else None

    def added_loss(self) -> Tensor | None:
        """Sum over the modules that asked for one."""
        return torch.stack(self.losses).sum() if self.losses else None


class Slot(nn.Module):
    """One place in the model, with the dropout that fills it; y = x where none does.

    An identity is not kept: its slot is empty. ValueError where a dropout does not fit the place.
    """

    def __init__(self, site: Site, factory: DropoutFactory | None = None) -> None:
        super().__init__()
        self.name = site.slot
        self.key = (
            f"{'embedding' if site.slot == 'embedding' else f'block{site.layer}'}/{site.slot}"
        )
        dropout = None if factory is None else factory(site)
        if site.slot == "attention" and dropout and not hasattr(dropout, "attention_p"):
            raise UserError(
                f"{type(dropout).__name__} does not fit slot attention, whose fused kernel takes "
                "only a rate: use none or standard there, or the slot attention_output"
            )
        self.dropout: Dropout | None = None
        if dropout is not None and not getattr(dropout, "is_identity", False):
            self.dropout = dropout

    @property
    def is_empty(self) -> bool:
        return self.dropout is None

    @property
    def attention_p(self) -> float:
        """The rate at which attention's kernel drops probabilities now: zero in evaluation."""
        if self.dropout is None or not self.training:
            return 0.0
        return self.dropout.attention_p  # type: ignore[attr-defined]

    def forward(self, hidden: Tensor, tape: Tape) -> Tensor:
        """`hidden` after the slot's dropout, whose other outputs go onto the tape."""
        if self.dropout is None:
            return hidden
        out = self.dropout(hidden, tape.mask_source, tape.return_masks)
        tape.keep(self.key, out)
        return out.hidden
