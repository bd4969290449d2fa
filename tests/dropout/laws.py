"""What a kind of dropout promises: `LAW` in its test file, which `test_laws.py` holds it to.

A kind is a file in configs/dropout/slot; its class stands in dropout/<name>.py, and the law of every
kind of that class in tests/dropout/test_<name>.py.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from model.slots import SLOTS

HEADS = ("attention_heads",)
EVERY = SLOTS
STREAM = tuple(slot for slot in SLOTS if slot not in ("attention", *HEADS))
S = 1.7580993408473766


def inverted(x: Tensor, mask: Tensor, p: float) -> Tensor:
    return x * mask / (1 - p) if p < 1 else x * 0


def select(x: Tensor, mask: Tensor, p: float) -> Tensor:
    return x * mask


def saturated(x: Tensor, mask: Tensor, p: float) -> Tensor:
    """Alpha dropout's: what is dropped becomes the value where SELU saturates."""
    if p == 1:
        return x * 0
    a = ((1 - p) * (1 + p * S**2)) ** -0.5
    return a * (x * mask - S * (1 - mask)) + a * S * p


class Law(NamedTuple):
    """Where a kind fits, which axes its mask varies along, and what becomes of kept and dropped.

    `axes` are some of BTC in a stream, of BTHC with heads; None: it has no mask. `output(x, mask, p)`
    is what training makes of x, `evaluated(x, p)` what evaluation does; None: its mask is learned, and
    stays on. `sharing` elements of an axis in `axes` have one draw in common. `activation` is the
    model's, where it matters. `needs` is what it says at a slot that it does not fit.
    """

    slots: tuple[str, ...] = STREAM
    axes: str | None = "BTHC"
    output: Callable[[Tensor, Tensor, float], Tensor] = inverted
    evaluated: Callable[[Tensor, float], Tensor] | None = lambda x, p: x
    sharing: int = 1
    activation: str = "gelu"
    needs: str = "it needs (B, T, C)"
