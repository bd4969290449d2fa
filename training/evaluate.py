"""Losses and mask statistics on windows that stay the same."""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from common.errors import UserError
from common.streams import stream_seed
from data.batches import Batches
from data.prepare import TokenData
from model.gpt import GPT, GPTOutput
from model.slots import Slot
from ops.head import token_losses
from training.device import Machine


class Evaluable(Protocol):
    """What an evaluation needs of a run: a `TrainState`, or a `LoadedRun`."""

    @property
    def cfg(self) -> DictConfig: ...
    @property
    def machine(self) -> Machine: ...
    @property
    def data(self) -> TokenData: ...
    @property
    def batches(self) -> dict[str, Batches]: ...
    @property
    def model(self) -> GPT: ...
    @property
    def forward(self) -> Callable[[Tensor], GPTOutput]: ...


def evaluate(run: Evaluable, windows: int | None = None) -> dict[str, float]:
    """Loss on both splits in evaluation mode, and what the dropouts' masks look like.

    `<split>/loss_nats` is the mean cross-entropy over `windows` fixed windows of the split, and
    `<split>/loss_stderr` its standard error over windows (their sampling error, not the seeds');
    `<split>/bits_per_byte` is the same loss per byte of text. `eval/<stat>` are the dropouts'
    statistics in evaluation mode on the validation windows, and `train/<stat>` those of one
    training-mode draw on the train windows, each the mean over modules;
    `modules/<block>/<slot>/<mode>/<stat>` has them one by one.
    """
    windows = run.cfg.evaluate.windows if windows is None else windows
    metrics = evaluate_split(run, "train", windows)
    losses, stats = run_windows(run, "val", windows)
    metrics |= summarize_losses(run, "val", losses) | name_stats("eval", stats)
    if stats:
        _, stats = run_windows(run, "train", windows, training=True)
        metrics |= name_stats("train", stats)
    return metrics


def evaluate_split(run: Evaluable, split: str, windows: int) -> dict[str, float]:
    """Loss of one split, as in `evaluate`. ValueError where the data has no such split."""
    return summarize_losses(run, split, run_windows(run, split, windows)[0])


def run_windows(
    run: Evaluable, split: str, windows: int, training: bool = False
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean loss of each window (windows,), float64, and the mean of each statistic.

    With `training` the dropouts are as in training, and no loss is taken.
    """
    cfg = run.cfg
    if split not in run.batches:
        raise UserError(f"the data has no split {split}; it has {', '.join(run.batches)}")
    batches = run.batches[split]
    starts = batches.window_starts(windows, cfg.seed, f"evaluate {split}")
    # Only training-mode draws, and attention dropout left on, use this noise.
    torch.manual_seed(stream_seed(cfg.seed, f"evaluate {split} noise"))
    losses, sums = [], defaultdict[str, Tensor | float](float)
    mode = set_mode(run.model, training, cfg.evaluate.attention_dropout)
    with mode, torch.no_grad(), run.machine.autocast():
        for some in starts.split(cfg.evaluate.batch_size):
            tokens, targets = batches.gather(some)
            out = run.forward(tokens)
            for name, value in out.stats.items():
                sums[name] += value.double() * (len(tokens) / windows)
            if not training:
                flat = out.hidden.flatten(0, 1), run.model.head_weight, targets.flatten()
                losses.append(token_losses(*flat).view_as(targets).double().mean(1))
    stats = {name: torch.as_tensor(value) for name, value in sums.items()}
    return torch.cat(losses) if losses else torch.empty(0), stats


def summarize_losses(run: Evaluable, split: str, losses: Tensor) -> dict[str, float]:
    """Mean over windows, its standard error, and the mean in bits per byte."""
    mean = losses.mean().item()
    stderr = (losses.std() / len(losses) ** 0.5).item() if len(losses) > 1 else math.nan
    return {
        f"{split}/loss_nats": mean,
        f"{split}/loss_stderr": stderr,
        f"{split}/bits_per_byte": bits_per_byte(mean, run.data, split),
    }


def bits_per_byte(loss_nats: float, data: TokenData, split: str) -> float:
    """Loss per UTF-8 byte of text in bits, which compares models whatever their vocabulary."""
    return loss_nats / math.log(2) * data.n_tokens(split) / data.n_bytes(split)


def name_stats(mode: str, stats: dict[str, Tensor]) -> dict[str, float]:
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
