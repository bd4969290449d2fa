"""What dropping a unit does to the weights that produce it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropout.base import DropoutOutput
from inspection.observe import dropout_modules
from model.gpt import GPT

# The linear layer whose rows make the units of a slot, within its block.
PRODUCERS = {
    "attention_output": "attention.project",
    "residual_attention": "attention.project",
    "mlp_hidden": "mlp.expand",
    "mlp_output": "mlp.project",
    "residual_mlp": "mlp.project",
}


@dataclass(frozen=True)
class UnitGradients:
    """A batch's mask and the gradient of the weights whose rows make the masked units.

    `mask` (samples, units), `weight` and the gradients (units, fan_in), `dropped` (units,): in every
    sample. `through_value` is the part of `gradient` that the mask, held still, lets through; a
    learned mask has a gradient of its own. `earlier` is the gradient with nothing drawn (evaluation).
    """

    producer: str
    mask: Tensor
    weight: Tensor
    gradient: Tensor
    through_value: Tensor
    earlier: Tensor

    @property
    def dropped(self) -> Tensor:
        return self.mask.sum(0) == 0


def unit_gradients(model: GPT, key: str, tokens: Tensor, targets: Tensor) -> UnitGradients | None:
    """Gradients on the most samples, 16 at most, that leave some unit of module `key` dropped in all.

    `tokens` and `targets` (B, T); a sample is one token, for in a longer text every position gives a
    unit another chance. float32. None where no single linear layer makes the units, it is frozen, or
    no unit is ever dropped.
    """
    place, slot = key.split("/")
    name = f"blocks.{place.removeprefix('block')}.{PRODUCERS.get(slot)}"
    producer = dict(model.named_modules()).get(name)
    if not isinstance(producer, nn.Linear) or not producer.weight.requires_grad:
        return None
    for n_sample in (16, 8, 4, 2, 1):
        batch = tokens[:n_sample, :1], targets[:n_sample, :1]
        mask, gradient = _mask_and_gradient(model, key, producer, *batch, training=True)
        if (mask.sum(0) == 0).any():
            with holding_mask(dropout_modules(model)[key]):
                _, through = _mask_and_gradient(model, key, producer, *batch, training=True)
            _, earlier = _mask_and_gradient(model, key, producer, *batch, training=False)
            weight = producer.weight.detach().cpu().clone()
            return UnitGradients(name, mask, weight, gradient, through, earlier)
    return None


@contextmanager
def holding_mask(module: nn.Module) -> Iterator[None]:
    """Within it, no gradient flows through the module's mask, only through what the mask keeps."""

    def hold(module: nn.Module, inputs: tuple[Tensor, ...], out: DropoutOutput) -> DropoutOutput:
        if out.soft_mask is None or out.mask is None:
            return out
        return out._replace(hidden=inputs[0] * out.mask.detach().to(inputs[0].dtype))

    hook = module.register_forward_hook(hold)
    try:
        yield
    finally:
        hook.remove()


def _mask_and_gradient(
    model: GPT, key: str, producer: nn.Linear, tokens: Tensor, targets: Tensor, training: bool
) -> tuple[Tensor, Tensor]:
    was_training = model.training
    with torch.random.fork_rng():
        torch.manual_seed(0)
        out = model.train(training)(tokens, return_masks=True)
    model.train(was_training)
    loss = F.cross_entropy(model.logits(out.hidden).flatten(0, 1), targets.flatten())
    (gradient,) = torch.autograd.grad(loss, [producer.weight])
    mask = out.masks[key].mask
    assert mask is not None
    units = mask.expand(*tokens.shape, *mask.shape[2:]).flatten(1).detach()
    return units.expand(-1, gradient.size(0)).cpu(), gradient.cpu()


@dataclass(frozen=True)
class Update:
    """The largest change of a weight in one optimizer step, among dropped and among kept units."""

    optimizer: str
    dropped: float
    kept: float


def updates(seen: UnitGradients, lr: float, weight_decay: float) -> list[Update]:
    """One step of each optimizer, from the same weights and with the same gradient."""
    return [
        _update("SGD", torch.optim.SGD, seen, lr=lr),
        _update("Adam, its first step", torch.optim.AdamW, seen, lr=lr, weight_decay=0.0),
        _update(
            f"AdamW with weight decay {weight_decay:g}, its first step",
            torch.optim.AdamW,
            seen,
            lr=lr,
            weight_decay=weight_decay,
        ),
        _update(
            "Adam, after a step in which nothing was drawn",
            torch.optim.AdamW,
            seen,
            warm_up=True,
            lr=lr,
            weight_decay=0.0,
        ),
    ]


def _update(
    name: str,
    optimizer_class: type[torch.optim.Optimizer],
    seen: UnitGradients,
    warm_up: bool = False,
    **options: Any,
) -> Update:
    weight = nn.Parameter(seen.weight.clone())
    optimizer = optimizer_class([weight], **options)
    if warm_up:
        weight.grad = seen.earlier.clone()
        optimizer.step()
    before = weight.detach().clone()
    weight.grad = seen.gradient.clone()
    optimizer.step()
    moved = (weight.detach() - before).abs().amax(1)
    kept = moved[~seen.dropped]
    return Update(name, moved[seen.dropped].max().item(), kept.max().item() if len(kept) else 0.0)
