"""Averaged weights, and weights put into a model for a while."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from common.errors import UserError


class WeightAverage:
    """An exponential moving average of the trained parameters, beside them.

        a <- d a + (1 - d) w after every step k, with d = min(decay, (1 + k) / (10 + k))

    So the average forgets the initial weights quickly (the warm-up of Polyak averaging in TensorFlow's
    `ExponentialMovingAverage`). Training never reads it. ValueError where decay is not in [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise UserError(
                f"ema_decay={decay} must be in [0, 1): it is the share of the old average that a step "
                "keeps; null keeps no average"
            )
        self.decay = decay
        self._trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.tensors = {name: p.detach().clone() for name, p in self._trained.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step`, which counts from 1."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(
            list(self.tensors.values()), [p.detach() for p in self._trained.values()], 1 - decay
        )

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from saved tensors. ValueError where they are none, or those of another model."""
        if tensors.keys() != self.tensors.keys():
            raise UserError("this checkpoint has no averaged weights of this model: fresh=true")
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])


@contextmanager
def weights_of(model: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """In its block `model` has `tensors`, by parameter name, in the place of its own."""
    own = {name: p for name, p in model.named_parameters() if name in tensors}
    with torch.no_grad():
        before = {name: p.detach().clone() for name, p in own.items()}
        try:
            for name, parameter in own.items():
                parameter.copy_(tensors[name])
            yield
        finally:
            for name, parameter in own.items():
                parameter.copy_(before[name])
