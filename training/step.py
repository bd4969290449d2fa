"""One optimizer step."""

from __future__ import annotations

import torch
from torch import Tensor

from common.streams import stream_seed
from ops.head import head_loss
from training.schedule import learning_rate, penalty_weight
from training.state import TrainState

SHOWN_WINDOWS = 8


class NonFiniteError(ArithmeticError):
    """The loss or a gradient is not finite; the update of that step was not made."""


def train_step(state: TrainState) -> dict[str, Tensor | float]:
    """One update on the step's windows, in micro-batches; returns its metrics, on the device.

    The loss is the mean cross-entropy plus weight(step) times the dropouts' penalty. Raises
    NonFiniteError before the optimizer moves a weight where the loss or the gradient is not finite.
    """
    cfg, step = state.cfg, state.progress.step + 1
    weight = penalty_weight(step - 1, **cfg.dropout.get("penalty_weight", {"max": 0.0}))
    lr = learning_rate(step - 1, lr=cfg.optimizer.lr, **cfg.schedule)
    loss, penalty = accumulate_gradients(state, step, weight)
    grad_norm = clip_gradients(state, cfg.optimizer.grad_clip)
    check_finite(state, step, loss, grad_norm)
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    state.progress.step = step
    metrics: dict[str, Tensor | float] = {
        "train/batch_loss_nats": loss,
        "train/grad_norm": grad_norm,
        "lr": lr,
    }
    if penalty is not None:
        metrics |= {"train/penalty": penalty, "train/penalty_weight": weight}
    return metrics


def accumulate_gradients(
    state: TrainState, step: int, weight: float
) -> tuple[Tensor, Tensor | None]:
    """Gradients of the whole step; returns its mean loss in nats and its mean penalty."""
    cfg, batches = state.cfg, state.batches["train"]
    windows = state.sampler.windows(cfg.batch_size, cfg.seed, step)
    torch.manual_seed(stream_seed(cfg.seed, "dropout", step))
    state.model.train()
    loss, penalty = torch.zeros((), device=state.machine.device), None
    with state.machine.autocast():
        for some in range(0, len(windows), cfg.micro_batch_size):
            tokens, targets = batches.gather(windows[some : some + cfg.micro_batch_size])
            share = len(tokens) / cfg.batch_size
            out = state.forward(tokens)
            part = share * head_loss(
                out.hidden.flatten(0, 1), state.model.head_weight, targets.flatten()
            )
            loss += part.detach()
            if out.penalty is not None:
                part = part + share * weight * out.penalty
                mean = share * out.penalty.detach()
                penalty = mean if penalty is None else penalty + mean
            part.backward()
    return loss, penalty


def clip_gradients(state: TrainState, grad_clip: float | None) -> Tensor:
    """Norm of the whole gradient, before it is scaled down to `grad_clip` where one is given."""
    parameters = [p for p in state.model.parameters() if p.grad is not None]
    gradients = [p.grad for p in parameters if p.grad is not None]
    grad_norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
    if grad_clip is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, grad_clip, grad_norm, foreach=True)
    return grad_norm


def check_finite(state: TrainState, step: int, loss: Tensor, grad_norm: Tensor) -> None:
    """Raise NonFiniteError, naming the parameters, where the loss or the gradient is not finite.

    On a GPU reading the answer would stall every step, so there the fused optimizer skips the update
    of such a step by itself, on the device, and of all later ones; `stop_if_skipped` asks when
    metrics are read anyway.
    """
    bad = ~torch.isfinite(loss + grad_norm)
    if state.machine.device.type == "cuda":
        optimizer = state.optimizer
        sticky = getattr(optimizer, "found_inf", torch.zeros((), device=bad.device))
        optimizer.found_inf = torch.maximum(sticky, bad.float())  # type: ignore[attr-defined]
    elif bad:
        raise NonFiniteError(describe_non_finite(state, step, loss))


def stop_if_skipped(state: TrainState) -> None:
    """Raise NonFiniteError where an update was skipped on a GPU since the last call."""
    found = getattr(state.optimizer, "found_inf", None)
    if found is not None and found.item():
        raise NonFiniteError(
            f"the loss or a gradient stopped being finite at or before step {state.progress.step}; "
            "no weight was updated since. Lower optimizer.lr or set optimizer.grad_clip"
        )


def describe_non_finite(state: TrainState, step: int, loss: Tensor) -> str:
    """Which step, on which windows, and where the gradient first went wrong."""
    cfg = state.cfg
    windows = state.sampler.windows(cfg.batch_size, cfg.seed, step)
    starts = windows.reshape(len(windows), -1)[:, 0].tolist()
    shown = ", ".join(map(str, starts[:SHOWN_WINDOWS])) + ", ..." * (len(starts) > SHOWN_WINDOWS)
    broken = [
        name
        for name, p in state.model.named_parameters()
        if p.grad is not None and not torch.isfinite(p.grad).all()
    ]
    where = f"{len(broken)} parameters' gradients, first {broken[0]}" if broken else "no gradient"
    return (
        f"step {step}: the loss is {loss.item():g} nats and not finite are {where}; its batch is "
        f"the {len(starts)} windows from training tokens {shown}. No weight was updated. Lower "
        "optimizer.lr or set optimizer.grad_clip, and start again"
    )
