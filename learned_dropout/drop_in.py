"""A dropout of this package in the place of an `nn.Dropout`, in any model."""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from learned_dropout.common.errors import UserError
from learned_dropout.dropout.base import Site


class DropIn(nn.Module):
    """A tensor in, a tensor out, (B, T, width); the penalty is kept for `penalty`.

    `make` is called with a `Site`, as `functools.partial(StandardDropout, p=0.1)` can be; `facts`
    are those of the site that a dropout may ask for beside its width and heads (`layer`, `slot`, ...).

    A learned mask is computed from all positions before it, in evaluation too: texts come whole, the
    positions along the second axis, with no padding before them. `guard` watches over a model that
    might do otherwise.
    """

    def __init__(
        self, make: Callable[[Site], nn.Module], width: int, n_head: int = 1, **facts: Any
    ) -> None:
        super().__init__()
        site = {"slot": "mlp_output", "layer": 0, "n_layer": 1, "n_embd": width, "block_size": 1}
        site |= {"width": width, "n_head": n_head, "activation": "gelu"} | facts
        self.dropout = make(Site(**site))
        self.last_penalty: Tensor | None = None
        # nn.TransformerEncoderLayer leaves its dropouts out in evaluation, unless there is a hook.
        self.register_forward_pre_hook(_nothing)

    def forward(self, hidden: Tensor) -> Tensor:
        out = self.dropout(hidden)
        self.last_penalty = out.penalty
        return out.hidden


def penalty(model: nn.Module) -> Tensor:
    """Mean penalty of the model's `DropIn`s in its last forward pass: weigh it, add it to the loss."""
    found = [m.last_penalty for m in model.modules() if isinstance(m, DropIn)]
    asked = [one for one in found if one is not None]
    if not asked:
        raise UserError("no DropIn of this model has a penalty: call the model first")
    return torch.stack(asked).mean()


def guard(model: nn.Module) -> nn.Module:
    """Make a model of Hugging Face's refuse what changes learned masks unseen; returns the model.

    These are a cache that holds earlier positions, and a text with padding before it. ValueError
    then, at the call.
    """
    names = tuple(inspect.signature(model.forward).parameters)
    model.register_forward_pre_hook(partial(_check_call, names), with_kwargs=True)
    return model


def _nothing(module: nn.Module, args: Any) -> None: ...


def _check_call(
    names: Sequence[str], module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    given = dict(zip(names, args, strict=False)) | kwargs  # either may come without its name
    cache, mask = given.get("past_key_values"), given.get("attention_mask")
    if cache is not None and cache.get_seq_length():
        raise UserError("learned masks need the whole text each time: use_cache=False")
    if mask is not None and not mask.flatten(0, -2)[:, 0].all():
        raise UserError("padding before a text changes its masks: padding_side='right'")
