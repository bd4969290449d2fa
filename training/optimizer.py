"""Optimizers: each a class called as `Optimizer(model, lr=..., ...)`, chosen as `optimizer=`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import nn


class Optimizer(Protocol):
    """What the step and a checkpoint ask of an optimizer: torch's own names.

    With `defaults["fused"]` it skips an update by itself, on the device, where `found_inf` is set.
    """

    param_groups: list[dict[str, Any]]
    state: Any
    defaults: dict[str, Any]

    def step(self) -> object: ...
    def zero_grad(self, set_to_none: bool = True) -> None: ...


class AdamW(torch.optim.AdamW):
    """AdamW (Loshchilov and Hutter 2019), fused; decay on tensors of two or more dimensions only.

    So embeddings and projections decay; norms, and the shift of a learned dropout, don't. Only
    parameters that want a gradient are in it.
    """

    def __init__(
        self, model: nn.Module, *, lr: float, betas: Sequence[float], weight_decay: float
    ) -> None:
        groups = _decay_matrices(trained(model), weight_decay)
        super().__init__(groups, lr=lr, betas=(betas[0], betas[1]), fused=True)


class Muon:
    """Muon (Jordan 2024) for the matrices of the blocks, AdamW for all else.

        M <- momentum M + (1 - momentum) G;  U = (1 - momentum) G + momentum M, orthogonalised
        W <- (1 - lr weight_decay) W - 0.2 sqrt(max(rows, columns)) lr U

    Embeddings, one of which is the head, and vectors go to AdamW, as its author has it. The factor
    gives U the root mean square of AdamW's updates (Liu et al. 2025, arXiv 2502.16982), so one learning
    rate and one decay serve both. The Newton-Schulz iteration is torch's (`torch.optim.Muon`).
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        lr: float,
        betas: Sequence[float],
        weight_decay: float,
        momentum: float = 0.95,
    ) -> None:
        embedded = [m.weight for m in model.modules() if isinstance(m, nn.Embedding)]
        is_matrix = {
            p: p.dim() == 2 and not any(p is weight for weight in embedded) for p in trained(model)
        }
        muon = torch.optim.Muon(
            [p for p, is_one in is_matrix.items() if is_one],
            lr=lr,
            weight_decay=weight_decay,
            momentum=momentum,
            adjust_lr_fn="match_rms_adamw",
        )
        others = _decay_matrices([p for p, is_one in is_matrix.items() if not is_one], weight_decay)
        adamw = torch.optim.AdamW(others, lr=lr, betas=(betas[0], betas[1]))
        adamw.state = muon.state  # one state by parameter, so that a checkpoint sees one optimizer
        self._parts, self.state = (muon, adamw), muon.state
        self.param_groups = [group for part in self._parts for group in part.param_groups]
        self.defaults: dict[str, Any] = {}

    def step(self) -> None:
        for part in self._parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self._parts:
            part.zero_grad(set_to_none)


def trained(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that want a gradient."""
    return [p for p in model.parameters() if p.requires_grad]


def _decay_matrices(
    parameters: Sequence[nn.Parameter], weight_decay: float
) -> list[dict[str, Any]]:
    """Groups: tensors of two or more dimensions, which decay, and the others, which don't."""
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
