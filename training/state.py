"""Everything a resume needs, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from cli.instantiate import instantiate
from common.errors import UserError
from data.batches import Batches
from data.prepare import TokenData, prepare
from data.sampling import Sampler
from model.gpt import GPT, GPTConfig
from model.init import init_weights
from model.slots import SLOTS
from tracking.checkpoint import Checkpoint, checkpoint_name, write_checkpoint
from training.device import Machine, choose_machine, keep_freed_memory
from training.finetune import add_adapters, load_base
from training.optimizer import build_optimizer


@dataclass
class Progress:
    """How far a run has come; saved beside its tensors."""

    step: int = 0
    best_step: int | None = None
    best_val_loss_nats: float | None = None

    def is_best(self, val_loss_nats: float) -> bool:
        """Whether this is the lowest validation loss so far; remembers it if so."""
        if self.best_val_loss_nats is not None and val_loss_nats >= self.best_val_loss_nats:
            return False
        self.best_step, self.best_val_loss_nats = self.step, val_loss_nats
        return True


@dataclass
class TrainState:
    """A run in memory. Only the model's and optimizer's tensors and `progress` ever change.

    Batches, noise and evaluation windows are functions of (seed, purpose, step), so there is no
    generator to save. `forward` is the model, compiled where the config asks for it.
    """

    cfg: DictConfig
    machine: Machine
    data: TokenData
    batches: dict[str, Batches]
    sampler: Sampler
    model: GPT
    forward: nn.Module
    optimizer: torch.optim.Optimizer
    progress: Progress = field(default_factory=Progress)

    @classmethod
    def build(cls, cfg: DictConfig, data: TokenData | None = None) -> TrainState:
        """The state before the first step. ValueError where the config does not hold together."""
        machine = choose_machine(cfg.device, cfg.dtype)
        if machine.device.type == "cpu":
            keep_freed_memory()
        model = build_model(cfg)  # before the data: its errors are quick, preparing can be long
        load_base(model, cfg)
        data = prepare(cfg.data, cfg.model.block_size) if data is None else data
        model.to(machine.device)
        batches = {s: _batches(data, s, cfg, machine) for s in ("train", "val")}
        options = {k: v for k, v in cfg.optimizer.items() if k != "grad_clip"}
        return cls(
            cfg=cfg,
            machine=machine,
            data=data,
            batches=batches,
            sampler=instantiate(cfg.sampling, batches["train"]),
            model=model,
            forward=torch.compile(model) if cfg.compile else model,  # type: ignore[arg-type]
            optimizer=build_optimizer(model, **options),
        )

    def remaining_steps(self) -> Iterator[int]:
        """The steps still to do; step k is the k-th update, from 1."""
        while self.progress.step < self.cfg.steps:
            yield self.progress.step + 1

    def tensors(self) -> dict[str, Tensor]:
        """Weights and optimizer moments by name, for a checkpoint."""
        weights = {f"model.{name}": t for name, t in self.model.state_dict().items()}
        return weights | {
            f"optimizer.{name}.{key}": value
            for name, parameter in self.model.named_parameters()
            for key, value in self.optimizer.state.get(parameter, {}).items()
        }

    def save(self, directory: Path, kind: str) -> None:
        """Write a checkpoint of `kind`, last or best."""
        name = checkpoint_name(kind, self.progress.step)
        write_checkpoint(directory, name, self.tensors(), {"progress": asdict(self.progress)})

    def load(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of this same run, exactly."""
        load_weights(self.model, checkpoint.tensors)
        for name, parameter in self.model.named_parameters():
            prefix = f"optimizer.{name}."
            moments = {
                key.removeprefix(prefix): value
                for key, value in checkpoint.tensors.items()
                if key.startswith(prefix)
            }
            if moments:
                device = self.machine.device
                self.optimizer.state[parameter] = {k: v.to(device) for k, v in moments.items()}
        self.progress = Progress(**checkpoint.facts["progress"])


def build_model(cfg: DictConfig) -> GPT:
    """The model of a config on the CPU, with its adapters and its initial weights.

    ValueError where a dropout does not fit its slot, naming both.
    """
    shape = GPTConfig(**cfg.model)
    dropouts = {s: instantiate(cfg.dropout[s]) for s in SLOTS if cfg.dropout.get(s) is not None}
    model = GPT(shape, dropouts)
    init_weights(model, cfg.seed, shape.n_layer, shape.activation)
    add_adapters(model, cfg)
    return model


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy the `model.*` tensors of a checkpoint in; ValueError where names or shapes differ."""
    weights = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"these weights are of another model: {error}") from None


def _batches(data: TokenData, split: str, cfg: Any, machine: Machine) -> Batches:
    return Batches(data.tokens(split), cfg.model.block_size, machine.device, data.end_of_text)
