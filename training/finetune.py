"""Fine-tuning: a trained run's weights, frozen, with adapters that train on top of them."""

from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig
from torch import Tensor, nn

from cli.instantiate import instantiate, read_config
from common.errors import UserError
from common.streams import stream_seed
from model.adapters import apply_adapters, base_tensors
from tracking.checkpoint import best_checkpoint


def add_adapters(model: nn.Module, cfg: DictConfig) -> None:
    """Put the adapters of `cfg.adapter` around the model's layers and freeze the rest, in place.

    Their initial values come from (seed, "adapter"). Without an adapter nothing changes. ValueError
    where there is an adapter and no trained model to adapt.
    """
    if cfg.adapter.layer is None:
        return
    if cfg.init_from is None:
        raise UserError(
            f"adapter={cfg.adapter.name} needs a trained model, for it freezes all else: "
            "init_from=RUN_DIR"
        )
    factory = instantiate(cfg.adapter.layer)
    apply_adapters(model, factory, cfg.adapter.targets, stream_seed(cfg.seed, "adapter"))


def load_base(model: nn.Module, cfg: DictConfig) -> None:
    """Copy the best weights of the run `cfg.init_from` into the model, under its adapters.

    Without `init_from` nothing changes. ValueError where the directory is no run's, the run has
    adapters of its own, or its model is another one.
    """
    if cfg.init_from is None:
        return
    directory = Path(cfg.init_from)
    if not (directory / "config.yaml").is_file():
        raise UserError(f"init_from={directory} is not a run's directory: it has no config.yaml")
    base = read_config(directory / "config.yaml")
    if base.adapter.layer is not None:
        raise UserError(
            f"init_from={directory} was trained with adapter={base.adapter.name}: start from the run "
            f"that it adapted, init_from={base.init_from}"
        )
    checkpoint = best_checkpoint(directory / "checkpoints")
    if checkpoint is None:
        raise UserError(f"init_from={directory} has no best checkpoint yet: let the run go on")
    copy_weights(checkpoint.tensors, base_tensors(model), what=f"init_from={directory}", base=base)


def copy_weights(
    saved: Mapping[str, Tensor], ours: Mapping[str, Tensor], *, what: str, base: DictConfig
) -> None:
    """Copy the `model.*` tensors of a checkpoint over `ours`; ValueError where the two differ."""
    theirs = {k.removeprefix("model."): v for k, v in saved.items() if k.startswith("model.")}
    differing = sorted(
        name
        for name in ours.keys() | theirs.keys()
        if name not in ours or name not in theirs or ours[name].shape != theirs[name].shape
    )
    if differing:
        raise UserError(
            f"{what} is of another model ({len(differing)} tensors differ, first {differing[0]}): it "
            f"was trained with dropout={base.dropout.name}, model={dict(base.model)}; give this run "
            "the same"
        )
    for name, tensor in ours.items():
        tensor.copy_(theirs[name])
