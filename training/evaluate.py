"""Losses and mask statistics on windows that stay the same.

A split is cut into disjoint windows of block_size tokens, from its beginning; the tokens behind the
last whole window are left out. The closing evaluation sees every window once, or
`evaluate.final_windows` of them, evenly spread; the curve's `evaluate.windows` of those. Which they are
depends on the split alone: every row and every seed is measured on the same text.
"""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from common.errors import UserError
from common.streams import stream_seed
from data.batches import evenly_spread
from data.prepare import TokenData
from model.slots import Slot
from ops.head import token_losses
from training.average import weights_of
from training.bundle import Bundle

Extent = Literal["curve", "closing"]


def evaluate(run: Bundle, extent: Extent = "curve") -> dict[str, float]:
    """Loss on both splits in evaluation mode, and what the dropouts' masks look like.

    `<split>/loss_nats` is the mean cross-entropy over the split's windows, `<split>/loss_stderr` its
    standard error over them (their sampling error, not the seeds'), `<split>/windows` their number;
    `<split>/bits_per_byte` is the same loss per byte of text. `eval/<stat>` are the dropouts'
    statistics in evaluation mode on the validation windows, and `train/<stat>` those of one
    training-mode draw on the train windows, each the mean over modules;
    `modules/<block>/<slot>/<mode>/<stat>` has them one by one. `<split>/ema_loss_nats` is the loss of
    the averaged weights, where the run keeps some.
    """
    metrics = evaluate_split(run, "train", extent)
    losses, stats = run_windows(run, "val", extent)
    metrics |= summarize_losses(run, "val", losses) | name_stats("eval", stats)
    if stats:
        _, stats = run_windows(run, "train", extent, training=True)
        metrics |= name_stats("train", stats)
    if run.average is not None:
        metrics |= losses_of_average(evaluate_losses(run, run.average.tensors, extent))
    return metrics


def evaluate_losses(
    run: Bundle, weights: Mapping[str, Tensor], extent: Extent = "closing"
) -> dict[str, float]:
    """The losses alone, of train and val, with these weights in the place of the model's own."""
    with weights_of(run.model, weights):
        return evaluate_split(run, "train", extent) | evaluate_split(run, "val", extent)


def evaluate_split(run: Bundle, split: str, extent: Extent = "closing") -> dict[str, float]:
    """Loss of one split, as in `evaluate`. ValueError where the data has no such split."""
    return summarize_losses(run, split, run_windows(run, split, extent)[0])


def window_starts(run: Bundle, split: str, extent: Extent) -> Tensor:
    """Where its windows begin, (windows,) int64; the curve's are among the closing's."""
    if split not in run.batches:
        raise UserError(f"the data has no split {split}; it has {', '.join(run.batches)}")
    cfg = run.cfg.evaluate
    closing = run.batches[split].disjoint_starts(cfg.final_windows)
    if extent == "closing":
        return closing
    return closing[evenly_spread(len(closing), cfg.windows).to(closing.device)]


def run_windows(
    run: Bundle, split: str, extent: Extent, training: bool = False
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean loss of each window (windows,), float64, and the mean of each statistic.

    With `training` the dropouts are as in training, and no loss is taken. The ranks share the
    batches and put together what they found, in order; where noise is drawn, which goes on from batch
    to batch, each does all of it.
    """
    cfg, starts, ranks = run.cfg, window_starts(run, split, extent), run.machine.ranks
    parts = starts.split(cfg.evaluate.batch_size)
    # Only training-mode draws, and attention dropout left on, use this noise.
    torch.manual_seed(stream_seed(cfg.seed, f"evaluate {split} noise"))
    alone = ranks.size == 1 or training or cfg.evaluate.attention_dropout
    mode = set_mode(run.model, training, cfg.evaluate.attention_dropout)
    with mode, torch.no_grad(), run.machine.autocast():
        own = parts if alone else [part for _, part in ranks.share(parts)]
        found = [_measure(run, split, part, len(part) / len(starts)) for part in own]
    if not alone:
        found = ranks.gather([(a.cpu(), {k: v.cpu() for k, v in b.items()}) for a, b in found])
    sums = defaultdict[str, Tensor | float](float)
    for _, stats in found:
        for name, value in stats.items():
            sums[name] += value
    losses = torch.empty(0) if training else torch.cat([losses for losses, _ in found])
    return losses, {name: torch.as_tensor(value) for name, value in sums.items()}


def _measure(
    run: Bundle, split: str, starts: Tensor, weight: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean loss of each window of one batch, none in training mode; its statistics times `weight`."""
    tokens, targets = run.batches[split].gather(starts)
    out = run.forward(tokens)
    stats = {name: value.double() * weight for name, value in out.stats.items()}
    if run.model.training:
        return torch.empty(0), stats
    flat = out.hidden.flatten(0, 1), run.model.head_weight, targets.flatten()
    return token_losses(*flat).view_as(targets).double().mean(1), stats


def validation_masks(run: Bundle) -> dict[str, Tensor]:
    """Soft masks of one batch of validation windows, in evaluation mode, by module."""
    starts = window_starts(run, "val", "curve")[: run.cfg.evaluate.batch_size]
    tokens, _ = run.batches["val"].gather(starts)
    with set_mode(run.model, False, False), torch.no_grad(), run.machine.autocast():
        masks = run.model(tokens, return_masks=True).masks
    return {key: out.soft_mask for key, out in masks.items() if out.soft_mask is not None}


def summarize_losses(run: Bundle, split: str, losses: Tensor) -> dict[str, float]:
    """Mean over windows, its standard error, their number, and the mean in bits per byte."""
    mean = losses.mean().item()
    stderr = (losses.std() / len(losses) ** 0.5).item() if len(losses) > 1 else math.nan
    return {
        f"{split}/loss_nats": mean,
        f"{split}/loss_stderr": stderr,
        f"{split}/bits_per_byte": bits_per_byte(mean, run.data, split),
        f"{split}/windows": len(losses),
    }


def bits_per_byte(loss_nats: float, data: TokenData, split: str) -> float:
    """Loss per UTF-8 byte of text in bits, which compares models whatever their vocabulary."""
    return loss_nats / math.log(2) * data.n_tokens(split) / data.n_bytes(split)


def losses_of_average(metrics: Mapping[str, float]) -> dict[str, float]:
    """The losses of an evaluation, named as those of the averaged weights: `val/ema_loss_nats`."""
    return {
        name.replace("/loss_", "/ema_loss_"): value
        for name, value in metrics.items()
        if "/loss_" in name
    }


def name_stats(mode: str, stats: Mapping[str, Tensor]) -> dict[str, float]:
    """`block3/mlp_output/ones` -> its own entry and the mean over modules, `<mode>/ones`."""
    named = {}
    by_kind = defaultdict[str, list[float]](list)
    for key, value in stats.items():
        module, kind = key.rsplit("/", 1)
        named[f"modules/{module}/{mode}/{kind}"] = value.item()
        by_kind[kind].append(value.item())
    return named | {f"{mode}/{kind}": sum(v) / len(v) for kind, v in by_kind.items()}


@contextlib.contextmanager
def set_mode(model: nn.Module, training: bool, attention_dropout: bool) -> Iterator[None]:
    """Training or evaluation mode for a while; with `attention_dropout`, those slots train always.

    That is how the original evaluated its runs with standard dropout.
    """
    before = {module: module.training for module in model.modules()}
    model.train(training)
    for module in model.modules():
        if attention_dropout and isinstance(module, Slot) and module.name == "attention":
            module.train()
    try:
        yield
    finally:
        for module, mode in before.items():
            module.training = mode
