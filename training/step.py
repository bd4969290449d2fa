"""One optimizer step."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from common.errors import NonFiniteError
from common.streams import stream_seed
from ops.head import head_loss
from training.optimizer import Optimizer
from training.schedule import penalty_weight
from training.state import TrainState

SHOWN_WINDOWS = 8
REMEDY = "Lower optimizer.lr or set optimizer.grad_clip, and start again"


def train_step(state: TrainState) -> dict[str, Tensor | float]:
    """One update on the step's windows, in micro-batches; returns its metrics, on the device.

    The loss is the mean cross-entropy plus weight(step) times the dropouts' penalty, and what the
    model's MLPs add. Raises NonFiniteError before the optimizer moves a weight where the loss or
    the gradient is not finite.
    """
    cfg, step = state.cfg, state.progress.step + 1
    weight = penalty_weight(step - 1, **cfg.dropout.get("penalty_weight", {"max": 0.0}))
    lr = state.schedule(step - 1, cfg.optimizer.lr)
    loss, penalty = accumulate_gradients(state, step, weight)
    grad_norm = clip_gradients(state, cfg.optimizer.grad_clip)
    check_finite(state, step, loss, grad_norm)
    for group, decay in zip(state.optimizer.param_groups, state.decays, strict=True):
        group["lr"], group["weight_decay"] = lr, state.decay_schedule(step - 1, decay)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    if state.average is not None:
        state.average.update(step)
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
    """Gradients of the whole step; returns its mean loss in nats and its mean penalty.

    Each micro-batch has noise of its own, a function of its place in the step: whichever rank
    computes it draws the same. The backward pass is outside autocast, which it does not need: each
    operation goes back in the type that it went forward in.
    """
    cfg, batches, ranks = state.cfg, state.batches["train"], state.machine.ranks
    windows = state.sampler.windows(cfg.batch_size, cfg.seed, step)
    state.model.train()
    loss, penalty = torch.zeros((), device=state.machine.device), None
    for index, some in ranks.share(windows.split(cfg.micro_batch_size)):
        torch.manual_seed(stream_seed(cfg.seed, f"dropout/{index}", step))
        tokens, targets = batches.gather(some)
        share = len(tokens) / cfg.batch_size
        with state.machine.autocast():
            out = state.forward(tokens)
            part = share * head_loss(
                out.hidden.flatten(0, 1), state.model.head_weight, targets.flatten()
            )
        loss += part.detach()
        if out.penalty is not None:
            part = part + share * weight * out.penalty
            mean = share * out.penalty.detach()
            penalty = mean if penalty is None else penalty + mean
        if out.added_loss is not None:
            part = part + share * out.added_loss
        part.backward()
    gradients = [p.grad for p in state.model.parameters() if p.grad is not None]
    ranks.add_up([*([loss] if penalty is None else [loss, penalty]), *gradients])
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

    On a GPU reading the answer would stall every step, so there a fused optimizer skips the update of
    such a step by itself, on the device, and of all later ones; `stop_if_skipped` asks when metrics
    are read anyway.
    """
    bad = ~torch.isfinite(loss + grad_norm)
    if state.machine.device.type == "cuda" and state.optimizer.defaults.get("fused"):
        skip_from_now_on(state.optimizer, bad)
    elif bad:
        raise NonFiniteError(describe_non_finite(state, step, loss))


def skip_from_now_on(optimizer: Optimizer, bad: Tensor) -> None:
    """Have a fused optimizer skip this update where `bad`, and every one after it; on the device."""
    sticky = getattr(optimizer, "found_inf", torch.zeros((), device=bad.device))
    optimizer.found_inf = torch.maximum(sticky, bad.float())  # type: ignore[attr-defined]


def stop_if_skipped(state: TrainState) -> None:
    """Raise NonFiniteError where an update was skipped on a GPU since the last call."""
    found = getattr(state.optimizer, "found_inf", None)
    if found is not None and found.item():
        raise NonFiniteError(
            f"the loss or a gradient stopped being finite at or before step {state.progress.step}; "
            f"no weight was updated since. {REMEDY}"
        )


def check_evaluation(step: int, metrics: Mapping[str, float]) -> None:
    """Raise NonFiniteError where a loss is not finite in evaluation: that is never the best."""
    for split in ("train", "val"):
        if not math.isfinite(loss := metrics[f"{split}/loss_nats"]):
            raise NonFiniteError(f"step {step}: the {split} loss is {loss} in evaluation. {REMEDY}")


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
    where = "every gradient is finite"
    if broken:
        where = f"{len(broken)} parameters' gradients are not finite, first {broken[0]}"
    return (
        f"step {step}: the loss is {loss.item():g} nats, and {where}; the batch is the {len(starts)} "
        f"windows from training tokens {shown}. No weight was updated. {REMEDY}"
    )
