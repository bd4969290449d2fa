"""The places in the model that a dropout can fill, and one forward pass's use of them."""

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


def fill(factories: Mapping[str, DropoutFactory], sites: Mapping[str, Site]) -> nn.ModuleDict:
    """Build the dropout of each site that `factories` has one for, but for identities."""
    modules = nn.ModuleDict({s: factories[s](site) for s, site in sites.items() if s in factories})
    if "attention" in modules and not hasattr(modules["attention"], "attention_p"):
        raise UserError(
            f"{type(modules['attention']).__name__} does not fit slot attention, whose fused kernel "
            "takes only a rate: use none or standard there, or the slot attention_output"
        )
    return nn.ModuleDict({s: m for s, m in modules.items() if not getattr(m, "is_identity", False)})


class Drops:
    """Applies dropouts during one forward pass and gathers what they return.

    Penalties, stats and masks are keyed by place and slot, as in `block3/mlp_output`.
    """

    def __init__(self, return_masks: bool = False) -> None:
        self.mask_source: Tensor | None = None
        self.return_masks = return_masks
        self.penalties: list[Tensor] = []
        self.stats: dict[str, Tensor] = {}
        self.masks: dict[str, DropoutOutput] = {}

    def __call__(self, modules: nn.ModuleDict, place: str, slot: str, hidden: Tensor) -> Tensor:
        """`hidden` after the dropout of `slot`, or as it is where the slot is empty."""
        if slot not in modules:
            return hidden
        dropout: Dropout = modules[slot]
        out = dropout(hidden, self.mask_source, self.return_masks)
        self._keep(f"{place}/{slot}", out)
        return out.hidden

    def _keep(self, key: str, out: DropoutOutput) -> None:
        if out.penalty is not None:
            self.penalties.append(out.penalty)
        if out.stats is not None:
            self.stats |= {f"{key}/{name}": value for name, value in out.stats.items()}
            if out.penalty is not None:
                self.stats[f"{key}/penalty"] = out.penalty
        if self.return_masks and out.mask is not None:
            self.masks[key] = out

    def penalty(self) -> Tensor | None:
        """Mean over the modules that have one."""
        return torch.stack(self.penalties).mean() if self.penalties else None
