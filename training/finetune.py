"""Fine-tuning: a trained run's weights, frozen, with adapters that train on top of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig
from torch import Tensor, nn

from cli.instantiate import instantiate
from common.errors import UserError
from common.streams import stream_seed
from model.adapters import apply_adapters, base_tensors


@dataclass(frozen=True)
class Base:
    """The run that a fine-tuning starts from: its best weights, and what they are.

    `name` is what a person called it, `identity` its run hash and the sha256 of its weights.
    """

    name: str
    cfg: DictConfig
    tensors: Mapping[str, Tensor]
    identity: Mapping[str, Any]


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


def copy_base(model: nn.Module, base: Base) -> None:
    """Copy the base's weights into the model, under its adapters.

    ValueError where the base has adapters of its own, or is another model.
    """
    if base.cfg.adapter.layer is not None:
        raise UserError(
            f"{base.name} was trained with adapter={base.cfg.adapter.name}: start from the run "
            f"that it adapted, init_from={base.cfg.init_from}"
        )
    ours, theirs = base_tensors(model), base.tensors
    differing = sorted(
        name
        for name in ours.keys() | theirs.keys()
        if name not in ours or name not in theirs or ours[name].shape != theirs[name].shape
    )
    if differing:
        raise UserError(
            f"{base.name} is of another model ({len(differing)} tensors differ, first {differing[0]}): "
            f"it was trained with dropout={base.cfg.dropout.name}, model={dict(base.cfg.model)}; give "
            "this run the same"
        )
    for name, tensor in ours.items():
        tensor.copy_(theirs[name])
