"""What goes into every dropout of a model, and the mask that comes out."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from model.gpt import GPT
from model.slots import Slot
from training.device import Machine


@dataclass(frozen=True)
class Observed:
    """One dropout's view of a batch. `mask`, in {0, 1}, and `soft_mask` are (B, T, units).

    Units are the channels of the stream; where heads are still apart, heads times their size.
    `hidden` and `mask_source` are what the module was called with.
    """

    hidden: Tensor
    mask_source: Tensor | None
    mask: Tensor
    soft_mask: Tensor | None


def dropout_modules(model: GPT) -> dict[str, nn.Module]:
    """The model's dropouts by the keys that its masks have: `block3/mlp_output`."""
    slots = [module for module in model.modules() if isinstance(module, Slot)]
    return {slot.key: slot.dropout for slot in slots if isinstance(slot.dropout, nn.Module)}


@torch.no_grad()
def observe(
    model: GPT, tokens: Tensor, machine: Machine, *, training: bool, seed: int = 0
) -> dict[str, Observed]:
    """One forward pass over `tokens` (B, T), seen from every dropout that has a mask.

    In training mode masks are drawn, from `seed`; torch's default generator is left as it was, and
    so is the model's mode.
    """
    inputs: dict[str, tuple[Any, ...]] = {}
    hooks = [
        module.register_forward_pre_hook(partial(_keep_arguments, inputs, key))
        for key, module in dropout_modules(model).items()
    ]
    was_training = model.training
    try:
        with torch.random.fork_rng(), machine.autocast():
            torch.manual_seed(seed)
            masks = model.train(training)(tokens, return_masks=True).masks
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return {key: _observed(inputs[key], out.mask, out.soft_mask) for key, out in masks.items()}


def _keep_arguments(
    inputs: dict[str, tuple[Any, ...]], key: str, module: nn.Module, arguments: tuple[Any, ...]
) -> None:
    inputs[key] = arguments


def _observed(arguments: tuple[Any, ...], mask: Tensor, soft_mask: Tensor | None) -> Observed:
    hidden, mask_source, _ = arguments
    return Observed(
        hidden,
        mask_source,
        # A rounding that is not quite binary, a sigmoid's, counts as what it is nearest to.
        (_per_unit(mask, hidden) >= 0.5).float(),
        None if soft_mask is None else _per_unit(soft_mask, hidden),
    )


def _per_unit(mask: Tensor, hidden: Tensor) -> Tensor:
    """(B, T, units) float32 of a mask that broadcasts against `hidden`, (B, T, ...)."""
    return mask.detach().expand_as(hidden).flatten(2).float()


def learned_only(observed: Mapping[str, Observed]) -> dict[str, Observed]:
    """Those whose mask is rounded from a soft mask, that is, made from the input."""
    return {key: seen for key, seen in observed.items() if seen.soft_mask is not None}


def label(key: str, keys: Mapping[str, object]) -> str:
    """`block 3` for `block3/mlp_output`, with the slot's name where the keys have several slots."""
    place, slot = key.split("/")
    place = place.replace("block", "block ")
    if len({other.split("/")[1] for other in keys}) == 1 or place == slot:
        return place
    return f"{place} ({slot.replace('_', ' ')})"
