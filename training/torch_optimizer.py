"""Any optimizer of `torch.optim`, by its name: a config alone adds one."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from common.errors import UserError
from training.optimizer import _decay_matrices, trained


class TorchOptimizer:
    """`torch.optim.<name>` with its own options; decay on tensors of two or more dimensions only.

    `weight_decay` is what that optimizer makes of it: in SGD a part of the gradient. UserError for a
    name that torch does not have, and for options that it does not take.
    """

    def __init__(
        self, model: nn.Module, *, name: str, lr: float, weight_decay: float, **options: Any
    ) -> None:
        if not _is_optimizer(name):
            raise UserError(
                f"optimizer.name={name} must be an optimizer of torch.optim, such as SGD"
            )
        make: Any = getattr(torch.optim, name)
        try:
            self._own = make(_decay_matrices(trained(model), weight_decay), lr=lr, **options)
        except TypeError as error:
            raise UserError(f"optimizer.name={name} does not take these options: {error}") from None
        self.param_groups, self.state = self._own.param_groups, self._own.state
        self.defaults: dict[str, Any] = {}

    def step(self) -> None:
        self._own.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        self._own.zero_grad(set_to_none)


def _is_optimizer(name: str) -> bool:
    found = getattr(torch.optim, name, None)
    return isinstance(found, type) and issubclass(found, torch.optim.Optimizer)
