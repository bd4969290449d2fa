"""A run's directory in, its model out."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from omegaconf import DictConfig

from cli.instantiate import read_config
from common.errors import UserError
from data.batches import Batches
from data.prepare import TokenData, prepare
from model.gpt import GPT
from tracking.checkpoint import Checkpoint, best_checkpoint, latest_checkpoint
from training.device import Machine, choose_machine, keep_freed_memory
from training.state import build_model, load_weights


@dataclass(frozen=True)
class LoadedRun:
    """A trained model in evaluation mode on its device, with its config and checkpoint."""

    directory: Path
    cfg: DictConfig
    machine: Machine
    model: GPT
    checkpoint: Checkpoint

    @property
    def forward(self) -> GPT:
        return self.model

    @cached_property
    def data(self) -> TokenData:
        """The tokens that the run was trained on, prepared again if the cache has lost them."""
        return prepare(self.cfg.data, self.cfg.model.block_size)

    @cached_property
    def batches(self) -> dict[str, Batches]:
        """Windows of every split that the data has."""
        data, block_size = self.data, self.cfg.model.block_size
        return {s: Batches(data.tokens(s), block_size, self.machine.device) for s in data.splits}

    @property
    def step(self) -> int:
        return int(self.checkpoint.facts["progress"]["step"])


def load_run(
    directory: Path | str,
    which: Literal["best", "last"] = "best",
    device: str = "auto",
    dtype: str | None = None,
) -> LoadedRun:
    """Load the checkpoint with the lowest validation loss, or the last one.

    `dtype` defaults to the run's own. ValueError where the directory is no run's, or has no such
    checkpoint, or the config in it names anything that is not this project's own.
    """
    directory = Path(directory)
    if not (directory / "config.yaml").is_file():
        raise UserError(
            f"{directory} is not a run's directory: it has no config.yaml. "
            "train.py prints a run's directory when it ends; they lie under runs/"
        )
    cfg = read_config(directory / "config.yaml")
    find = {"best": best_checkpoint, "last": latest_checkpoint}[which]
    checkpoint = find(directory / "checkpoints")
    if checkpoint is None:
        raise UserError(f"{directory} has no {which} checkpoint yet: let the run go on")
    machine = choose_machine(device, dtype or cfg.dtype)
    if machine.device.type == "cpu":
        keep_freed_memory()
    model = build_model(cfg)
    load_weights(model, checkpoint.tensors)
    return LoadedRun(directory, cfg, machine, model.to(machine.device).eval(), checkpoint)
