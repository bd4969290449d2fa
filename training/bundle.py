"""A model on its data, on a machine, as a config has them: what an evaluation needs, and no more."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from data.batches import Batches
from data.prepare import TokenData, prepare
from model.gpt import GPT
from training.average import WeightAverage
from training.device import Machine, keep_freed_memory


class Bundle:
    """`cfg`, `machine` and `model`, and from them `data`, `batches` by split, and `forward`.

    Without `data` the tokens are prepared when they are first asked for: to write text with a model
    none are. `forward` is the model, compiled where the config asks for it; `average` the averaged
    weights that are evaluated beside it, where a run keeps some.
    """

    average: WeightAverage | None = None

    def __init__(
        self, cfg: DictConfig, machine: Machine, model: GPT, data: TokenData | None = None
    ) -> None:
        if machine.device.type == "cpu":
            keep_freed_memory()
        self.cfg, self.machine, self.model = cfg, machine, model.to(machine.device)
        self._data = data

    @cached_property
    def data(self) -> TokenData:
        return self._data or prepare(self.cfg.data, self.cfg.model.block_size)

    @cached_property
    def batches(self) -> dict[str, Batches]:
        """Windows of every split that the data has."""
        data, size, device = self.data, self.cfg.model.block_size, self.machine.device
        return {s: Batches(data.tokens(s), size, device, data.end_of_text) for s in data.splits}

    @cached_property
    def forward(self) -> nn.Module:
        compiled: Any = torch.compile(self.model) if self.cfg.compile else self.model
        return compiled
