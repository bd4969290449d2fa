"""What dropouts check: the rate, the slot, and the rank of what passes through."""

from torch import Tensor

from common.errors import UserError
from dropout.base import Site

# The slots whose tensors are a stream of positions, (B, T, width).
STREAM = (
    "embedding",
    "attention_output",
    "mlp_hidden",
    "mlp_output",
    "residual_attention",
    "residual_mlp",
)
# The slot whose tensor still has its heads apart, (B, T, n_head, head_size).
HEADS = ("attention_heads",)


def check_p(p: float) -> float:
    """p as a float, or a ValueError where it is no probability. NaN is none."""
    if isinstance(p, bool) or not isinstance(p, int | float) or not 0 <= p <= 1:
        raise UserError(f"p={p} must be in [0, 1]: it is the probability of dropping")
    return float(p)


def check_slot(kind: str, site: Site, slots: tuple[str, ...], why: str) -> None:
    """A ValueError where `kind` does not fit the slot of `site`; `why` says what it needs."""
    if site.slot not in slots:
        raise UserError(
            f"{kind} dropout does not fit slot {site.slot}: {why}; use {' or '.join(slots)}"
        )


def check_rank(kind: str, hidden: Tensor, layout: tuple[str, ...]) -> None:
    """A ValueError unless `hidden` has the axes of `layout`, or all but the first: no batch."""
    if hidden.dim() not in (len(layout), len(layout) - 1):
        raise UserError(
            f"hidden.shape={tuple(hidden.shape)} does not fit {kind} dropout: "
            f"it must be ({', '.join(layout)}), or the same without B"
        )
