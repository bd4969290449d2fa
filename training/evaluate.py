"""Losses and mask statistics on windows that stay the same."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from data.batches import Batches
from data.streams import stream_seed
from training.loss import token_losses
from training.state import TrainState


def evaluate(state: TrainState, windows: int | None = None) -> dict[str, float]:
    """Loss on both splits in evaluation mode, and what the dropouts' masks look like.

    `<split>/loss_nats` is the mean cross-entropy over `windows` fixed windows of the split, and
    `<split>/loss_stderr` its standard error over windows (their sampling error, not the seeds').
    `eval/<stat>` are the dropouts' statistics in evaluation mode on the validation windows, and
    `train/<stat>` those of one training-mode draw on the train windows, each the mean over modules;
    `modules/<block>/<slot>/...` has them one by one.
    """
    windows = state.cfg.evaluate.windows if windows is None else windows
    metrics: dict[str, float] = {}
    with keeping_mode(state.model), torch.no_grad(), state.machine.autocast():
        for split in ("train", "val"):
            evaluation_mode(state.model, state.cfg.evaluate.attention_dropout)
            losses, stats = run_windows(state, split, windows)
            metrics |= summarize_losses(split, losses)
        metrics |= name_stats("eval", stats)
        if stats:
            state.model.train()
            _, stats = run_windows(state, "train", windows, with_loss=False)
            metrics |= name_stats("train", stats)
    return metrics


def run_windows(
    state: TrainState, split: str, windows: int, with_loss: bool = True
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean loss of each window (windows,), float64, and the mean of each statistic."""
    cfg = state.cfg
    batches: Batches = state.batches[split]
    starts = batches.window_starts(windows, cfg.seed, f"evaluate {split}", 0)
    # Only training-mode draws, and attention dropout left on, use this noise.
    torch.manual_seed(stream_seed(cfg.seed, f"evaluate {split} noise"))
    losses, sums = [], defaultdict[str, Tensor | float](float)
    for some in range(0, windows, cfg.evaluate.batch_size):
        tokens, targets = batches.gather(starts[some : some + cfg.evaluate.batch_size])
        out = state.forward(tokens)
        for name, value in out.stats.items():
            sums[name] += value.double() * (len(tokens) / windows)
        if with_loss:
            flat = out.hidden.flatten(0, 1), state.model.head_weight, targets.flatten()
            losses.append(token_losses(*flat).view_as(targets).double().mean(1))
    stats = {name: torch.as_tensor(value) for name, value in sums.items()}
    return torch.cat(losses) if losses else torch.empty(0), stats


def summarize_losses(split: str, losses: Tensor) -> dict[str, float]:
    """Mean over windows and its standard error."""
    stderr = losses.std() / len(losses) ** 0.5 if len(losses) > 1 else torch.tensor(float("nan"))
    return {f"{split}/loss_nats": losses.mean().item(), f"{split}/loss_stderr": stderr.item()}


def name_stats(mode: str, stats: dict[str, Tensor]) -> dict[str, float]:
    """`block3/mlp_output/ones` -> its own entry and the mean over modules, `<mode>/ones`."""
    named = {f"modules/{key}/{mode}": value.item() for key, value in stats.items()}
    by_kind = defaultdict[str, list[float]](list)
    for key, value in stats.items():
        by_kind[key.rsplit("/", 1)[1]].append(value.item())
    return named | {f"{mode}/{kind}": sum(v) / len(v) for kind, v in by_kind.items()}


def evaluation_mode(model: nn.Module, attention_dropout: bool = False) -> None:
    """`model.eval()`; with `attention_dropout`, the attention slots stay in training mode.

    That is how the original evaluated its runs with standard dropout.
    """
    model.eval()
    if attention_dropout:
        for name, module in model.named_modules():
            if name.endswith("dropout.attention"):
                module.train()


@contextlib.contextmanager
def keeping_mode(model: nn.Module) -> Iterator[None]:
    """Put the model back into training or evaluation mode afterwards."""
    training = model.training
    try:
        yield
    finally:
        model.train(training)
