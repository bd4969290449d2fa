"""A run's loss under masks that were not made for its text: what is a mask's input worth?

In evaluation alone, by what takes the place of each learned mask:

- `own`: nothing; the mask that the model makes of the window, as always;
- `other`: the mask that it makes of another window, half of the split away, where another article is;
- `mean`: one number a channel, 1 where the soft mask is 1/2 or more in the mean over the train windows;
- `random`: a draw for every element, of each channel's share of ones on the train windows.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from common.streams import stream_seed
from dropout.base import DropoutOutput
from inspection.observe import dropout_modules
from model.gpt import GPT
from training.bundle import Bundle
from training.evaluate import evaluate_split, set_mode, window_starts

# From what passes through to a mask that broadcasts against it.
MaskFor = Callable[[Tensor], Tensor]
WAYS = ("own", "other", "mean", "random")


def losses_with_other_masks(run: Bundle, split: str) -> dict[str, float]:
    """Mean loss of the split's windows, in nats, for each of WAYS.

    UserError where the run has no learned mask, or the split has one window alone.
    """
    soft, ones = channel_means(run)
    starts = window_starts(run, split, "closing")
    if len(starts) < 2:
        raise UserError(
            f"the split {split} has {len(starts)} window, and --masks swaps those of two"
        )
    generator = torch.Generator(run.machine.device)
    generator.manual_seed(stream_seed(run.cfg.seed, "random masks"))
    ways: dict[str, Mapping[str, MaskFor]] = {
        "mean": {key: partial(_constant, value.ge(0.5)) for key, value in soft.items()},
        "random": {key: partial(_drawn, value, generator) for key, value in ones.items()},
    }
    found = {"own": _loss(run, split)}
    far = starts.roll(len(starts) // 2).split(run.cfg.evaluate.batch_size)
    others = (run.batches[split].gather(part)[0] for part in far)
    swapped = partial(with_masks_of, run.model, list(soft))
    with _passing(run, lambda tokens: swapped(tokens, next(others))):
        found["other"] = _loss(run, split)
    for name, masks in ways.items():
        with masks_for(run.model, masks):
            found[name] = _loss(run, split)
    return found


@contextmanager
def masks_for(model: GPT, masks: Mapping[str, MaskFor]) -> Iterator[None]:
    """In its block the dropouts of these keys, `block3/mlp_output`, multiply by these masks instead."""
    modules = dropout_modules(model)
    for key, mask in masks.items():
        modules[key].forward = partial(_masked, mask)
    try:
        yield
    finally:
        for key in masks:
            del modules[key].forward


def channel_means(run: Bundle) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """By module, each channel's mean soft mask and its share of ones on the train windows, (width,)."""
    starts = window_starts(run, "train", "closing")
    soft, ones = defaultdict[str, Tensor | float](float), defaultdict[str, Tensor | float](float)
    with set_mode(run.model, False, False), torch.no_grad(), run.machine.autocast():
        for part in starts.split(run.cfg.evaluate.batch_size):
            tokens, _ = run.batches["train"].gather(part)
            for key, out in run.model(tokens, return_masks=True).masks.items():
                if out.soft_mask is not None and out.mask is not None:
                    share = len(part) / len(starts)
                    soft[key] += share * _by_channel(out.soft_mask.expand_as(out.mask))
                    ones[key] += share * _by_channel(out.mask)
    if not soft:
        raise UserError("no learned mask in this run: --masks needs one, such as dropout=learned")
    return (
        {key: torch.as_tensor(value) for key, value in soft.items()},
        {key: torch.as_tensor(value) for key, value in ones.items()},
    )


def _by_channel(mask: Tensor) -> Tensor:
    return mask.double().flatten(0, -2).mean(0)


def _loss(run: Bundle, split: str) -> float:
    return evaluate_split(run, split)[f"{split}/loss_nats"]


@contextmanager
def _passing(run: Bundle, forward: Callable[[Tensor], Any]) -> Iterator[None]:
    """In its block the run's forward pass is this one."""
    before: Any = run.forward
    run.forward = forward  # type: ignore[assignment]
    try:
        yield
    finally:
        run.forward = before


def with_masks_of(model: GPT, keys: list[str], tokens: Tensor, others: Tensor) -> Any:
    """The model's output on windows that have the masks of others, each (B, T)."""
    masks = model(others, return_masks=True).masks
    theirs: dict[str, MaskFor] = {key: partial(_constant, masks[key].mask) for key in keys}
    with masks_for(model, theirs):
        return model(tokens)


def _masked(
    mask: MaskFor, hidden: Tensor, mask_source: Tensor | None = None, return_mask: bool = False
) -> DropoutOutput:
    return DropoutOutput(hidden * mask(hidden).to(hidden.dtype))


def _constant(mask: Tensor, hidden: Tensor) -> Tensor:
    return mask


def _drawn(rate: Tensor, generator: torch.Generator, hidden: Tensor) -> Tensor:
    uniform = torch.rand(hidden.shape, generator=generator, device=hidden.device)
    return uniform < rate.float()
