"""A run's directory in, its model out."""

from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig

from cli.instantiate import read_config
from common.errors import UserError
from model.gpt import GPT
from tracking.checkpoint import Checkpoint, best_checkpoint, latest_checkpoint
from tracking.directory import read_record
from training.bundle import Bundle
from training.device import Machine, choose_machine
from training.finetune import Base
from training.state import build_model, load_weights, model_weights

Which = Literal["best", "last"]


class LoadedRun(Bundle):
    """A trained model in evaluation mode on its device, with its directory and checkpoint."""

    def __init__(
        self, directory: Path, checkpoint: Checkpoint, cfg: DictConfig, machine: Machine, model: GPT
    ) -> None:
        super().__init__(cfg, machine, model.eval())
        self.directory, self.checkpoint = directory, checkpoint


def load_run(
    directory: Path | str, which: Which = "best", device: str = "auto", dtype: str | None = None
) -> LoadedRun:
    """Load the checkpoint with the lowest validation loss, or the last one.

    `dtype` defaults to the one that the run computed in. ValueError where the directory is no run's, or
    has no such checkpoint, or the config in it names anything that is not this project's own.
    """
    directory = Path(directory)
    cfg, checkpoint = _read(directory, which, str(directory))
    recorded = _recorded_dtype(directory)
    machine = choose_machine(device, dtype or recorded or cfg.dtype)
    model = build_model(cfg)
    load_weights(model, checkpoint.tensors)
    return LoadedRun(directory, checkpoint, cfg, machine, model)


def read_base(cfg: DictConfig) -> Base | None:
    """The weights that a run starts from: a run's best, or a GPT-2's; None without `cfg.init_from`.

    ValueError as for `load_run`, or for `read_pretrained`.
    """
    if cfg.init_from is None:
        return None
    if cfg.init_from.startswith("hf:"):
        from tracking.pretrained import read_pretrained

        return read_pretrained(cfg)
    name = f"init_from={cfg.init_from}"
    base, checkpoint = _read(Path(cfg.init_from), "best", name)
    identity = {"run_hash": checkpoint.facts.get("run"), "checkpoint_sha256": checkpoint.sha256()}
    return Base(name, base, model_weights(checkpoint.tensors), identity)


def _read(directory: Path, which: Which, name: str) -> tuple[DictConfig, Checkpoint]:
    if not (directory / "config.yaml").is_file():
        raise UserError(
            f"{name} is not a run's directory: it has no config.yaml. "
            "train.py prints a run's directory when it ends; they lie under runs/"
        )
    find = {"best": best_checkpoint, "last": latest_checkpoint}[which]
    checkpoint = find(directory / "checkpoints")
    if checkpoint is None:
        raise UserError(f"{name} has no {which} checkpoint yet: let the run go on")
    return read_config(directory / "config.yaml"), checkpoint


def _recorded_dtype(directory: Path) -> str | None:
    """What `auto` came to when the run was started; None where it has no record."""
    record: dict[str, Any] = read_record(directory)
    return record.get("dtype")
