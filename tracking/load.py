"""A run's directory in, its model out."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from omegaconf import DictConfig

from cli.config import check_stored
from cli.instantiate import read_config
from common.errors import UserError
from common.files import StorageError
from model.gpt import GPT
from tracking.checkpoint import Checkpoint, best_checkpoint, latest_checkpoint
from tracking.directory import read_record
from training.bundle import Bundle
from training.device import Machine, choose_machine
from training.finetune import Base
from training.state import build_model, design_model, load_weights, model_weights

CONFIG = "config.yaml"
# What constructors and torch raise for values that no person gave them.
UNFIT = (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RuntimeError)

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
    with _told_of(directory / CONFIG):
        _check_design(cfg, checkpoint)
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
    if not (directory / CONFIG).is_file():
        raise UserError(
            f"{name} is not a run's directory: it has no config.yaml. "
            "train.py prints a run's directory when it ends; they lie under runs/"
        )
    find = {"best": best_checkpoint, "last": latest_checkpoint}[which]
    checkpoint = find(directory / "checkpoints")
    if checkpoint is None:
        raise UserError(f"{name} has no {which} checkpoint yet: let the run go on")
    with _told_of(directory / CONFIG):
        check_stored(cfg := read_config(directory / CONFIG))
    return cfg, checkpoint


@contextmanager
def _told_of(path: Path) -> Iterator[None]:
    """One line, with the file's name, for whatever a model cannot be made of."""
    try:
        yield
    except StorageError:
        raise
    except (*UNFIT, UserError) as error:
        told = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        why = " ".join(told.removeprefix(f"the config {path} cannot be used: ").split())[:300]
        raise UserError(f"the config {path} cannot be used: {why}") from error


def _check_design(cfg: DictConfig, checkpoint: Checkpoint) -> None:
    """UserError where the model is larger than its weights: it is not to be built only to see that."""
    weights = model_weights(checkpoint.tensors)
    layers = {name.split(".")[1] for name in weights if name.startswith("blocks.")}
    if cfg.model.n_layer != len(layers):
        raise UserError(
            f"model.n_layer={cfg.model.n_layer} must be {len(layers)}: {checkpoint.path} has as "
            "many layers"
        )
    with torch.device("meta"):
        parameters = list(design_model(cfg).parameters())
    needed, there = (sum(t.numel() for t in ts) for ts in (parameters, weights.values()))
    if needed > there:
        raise UserError(
            f"the model of {needed:,} parameters must be that of {checkpoint.path}, which has {there:,}"
        )


def _recorded_dtype(directory: Path) -> str | None:
    """What `auto` came to when the run was started; None where it has no record."""
    record: dict[str, Any] = read_record(directory)
    return record.get("dtype")
