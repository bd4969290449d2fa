"""Everything a resume needs, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from cli.instantiate import instantiate
from common.errors import UserError
from data.prepare import TokenData
from data.sampling import Sampler
from model.gpt import GPT, GPTConfig
from model.init import init_weights
from model.slots import SLOTS
from training.average import WeightAverage
from training.bundle import Bundle
from training.device import Machine, choose_machine
from training.finetune import Base, add_adapters, copy_base
from training.optimizer import Optimizer
from training.schedule import Schedule


@dataclass
class Progress:
    """How far a run has come; saved beside its tensors."""

    step: int = 0
    best_step: int | None = None
    best_val_loss_nats: float | None = None

    def is_best(self, val_loss_nats: float) -> bool:
        """Whether this is the lowest validation loss so far; remembers it if so. NaN never is."""
        best = math.inf if self.best_val_loss_nats is None else self.best_val_loss_nats
        if not val_loss_nats < best:
            return False
        self.best_step, self.best_val_loss_nats = self.step, val_loss_nats
        return True


class Saved(Protocol):
    """What a checkpoint holds: the tensors of `TrainState.tensors`, and its `progress`."""

    @property
    def tensors(self) -> Mapping[str, Tensor]: ...
    @property
    def facts(self) -> Mapping[str, Any]: ...


class TrainState(Bundle):
    """A run in memory. Only tensors of model, optimizer and average, and `progress`, ever change.

    Batches, noise and evaluation windows are functions of (seed, purpose, step), so there is no
    generator to save.
    """

    def __init__(
        self, cfg: DictConfig, machine: Machine, model: GPT, data: TokenData | None = None
    ) -> None:
        super().__init__(cfg, machine, model, data)
        options = OmegaConf.masked_copy(
            cfg.optimizer, [k for k in cfg.optimizer if k != "grad_clip"]
        )
        self.optimizer: Optimizer = instantiate(options, self.model)
        self.decays = [group["weight_decay"] for group in self.optimizer.param_groups]
        self.sampler: Sampler = instantiate(cfg.sampling, self.batches["train"])
        self.schedule: Schedule = instantiate(cfg.schedule)
        self.decay_schedule: Schedule = instantiate(cfg.decay_schedule)
        if cfg.ema_decay is not None:
            self.average = WeightAverage(self.model, cfg.ema_decay)
        self.progress = Progress()

    @classmethod
    def build(
        cls,
        cfg: DictConfig,
        machine: Machine | None = None,
        data: TokenData | None = None,
        base: Base | None = None,
    ) -> TrainState:
        """The state before the first step, on the best weights of `base` where there is one.

        ValueError where the config does not hold together.
        """
        model = build_model(cfg)
        if base is not None:
            copy_base(model, base)
        return cls(cfg, machine or choose_machine(cfg.device, cfg.dtype), model, data)

    def remaining_steps(self) -> Iterator[int]:
        """The steps still to do; step k is the k-th update, from 1."""
        while self.progress.step < self.cfg.steps:
            yield self.progress.step + 1

    def tensors(self) -> dict[str, Tensor]:
        """Weights, optimizer moments and averaged weights by name, for a checkpoint."""
        weights = {f"model.{name}": t for name, t in self.model.state_dict().items()}
        averaged = self.average.tensors if self.average is not None else {}
        return (
            weights
            | {f"average.{name}": tensor for name, tensor in averaged.items()}
            | {
                f"optimizer.{name}.{key}": value
                for name, parameter in self.model.named_parameters()
                for key, value in self.optimizer.state.get(parameter, {}).items()
            }
        )

    def load(self, saved: Saved) -> None:
        """Go on from a checkpoint of this same run, exactly."""
        load_weights(self.model, saved.tensors)
        if self.average is not None:
            self.average.load(averaged_weights(saved.tensors))
        for name, parameter in self.model.named_parameters():
            if moments := _below(f"optimizer.{name}.", saved.tensors):
                device = self.machine.device
                self.optimizer.state[parameter] = {k: v.to(device) for k, v in moments.items()}
        self.progress = Progress(**saved.facts["progress"])


def build_model(cfg: DictConfig) -> GPT:
    """The model of a config on the CPU, with its adapters and its initial weights.

    ValueError where a dropout does not fit its slot, naming both.
    """
    model = design_model(cfg)
    init_weights(model, cfg.seed, model.cfg.n_layer, model.cfg.activation)
    add_adapters(model, cfg)
    return model


def design_model(cfg: DictConfig) -> GPT:
    """The model of a config before its initial weights."""
    shape = GPTConfig(**{key: value for key, value in cfg.model.items() if key != "mlp"})
    dropouts = {s: instantiate(cfg.dropout[s]) for s in SLOTS if cfg.dropout.get(s) is not None}
    return GPT(shape, dropouts, instantiate(cfg.model.mlp))


def check_design(cfg: DictConfig) -> None:
    """Raise ValueError where the model's parts do not fit one another; takes no memory for them."""
    with torch.device("meta"):
        design_model(cfg)


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy the `model.*` tensors of a checkpoint in; ValueError where names or shapes differ."""
    try:
        model.load_state_dict(model_weights(tensors))
    except RuntimeError as error:
        raise UserError(f"these weights are of another model: {error}") from None


def model_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model's own of a checkpoint's tensors, by the model's names."""
    return _below("model.", tensors)


def averaged_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The averaged weights among them, by the model's names; none where the run keeps no average."""
    return _below("average.", tensors)


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
