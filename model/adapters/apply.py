"""Putting adapters around a model's linear layers, and merging them into it again."""

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from common.errors import UserError
from model.adapters.base import Adapter

Model = TypeVar("Model", bound=nn.Module)


def apply_adapters(
    model: Model, factory: Callable[[nn.Linear], Adapter], targets: Sequence[str], seed: int = 0
) -> Model:
    """Wraps the named linear layers in place; all but the adapters' own parameters is frozen.

    A target is the end of a layer's name: `attention.qkv` stands for that layer of every block,
    `blocks.0.attention.qkv` for one. Initial values of the adapters depend on `seed` and on nothing
    else; torch's default generator is left as it was. Returns the model.

    Raises ValueError if there is no target, or one that names no linear layer, with those that do.
    """
    names = target_names(model, targets)
    model.requires_grad_(False)
    # Built on the CPU, so that one seed gives the same adapters on every device.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for index, name in enumerate(names):
            layer = model.get_submodule(name)
            assert isinstance(layer, nn.Linear)
            adapter = factory(layer)
            adapter.separate(index)
            replace_submodule(model, name, adapter.train(layer.training))
    return model


def merge_adapters(model: Model) -> Model:
    """Puts a merged linear layer in the place of every adapter and returns the model.

    Outputs in evaluation stay what they were; layer names are those before `apply_adapters`.
    """
    adapters = [(name, m) for name, m in model.named_modules() if isinstance(m, Adapter)]
    if not adapters:
        raise UserError(
            f"{type(model).__name__} has no adapter to merge: apply_adapters puts them in"
        )
    for name, adapter in adapters:
        replace_submodule(model, name, adapter.merge())
    return model


def base_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a model under the names that they have without adapters, as in its state_dict.

    Parameters and buffers of the adapters' own are left out. The tensors share the model's memory.
    """
    prefixes = [f"{name}." for name, m in model.named_modules() if isinstance(m, Adapter)]
    tensors = {}
    for name, tensor in model.state_dict().items():
        prefix = next((p for p in prefixes if name.startswith(p)), "")
        if not prefix:
            tensors[name] = tensor
        elif name.startswith(f"{prefix}base_layer."):
            tensors[prefix + name.removeprefix(f"{prefix}base_layer.")] = tensor
    return tensors


def target_names(model: nn.Module, targets: Sequence[str]) -> list[str]:
    """Full names of the linear layers that `targets` end, in the model's order."""
    linear_names = [name for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    valid = sorted({re.sub(r"^.*\.\d+\.", "", name) for name in linear_names})
    if not targets:
        raise UserError(f"targets is empty: name the linear layers to adapt, from {valid}")
    for target in targets:
        if not any(ends_with(name, target) for name in linear_names):
            raise UserError(f"targets: {target!r} ends no linear layer's name: take from {valid}")
    return [name for name in linear_names if any(ends_with(name, t) for t in targets)]


def ends_with(name: str, target: str) -> bool:
    """Whether the last parts of a dotted name are `target`."""
    return name == target or name.endswith(f".{target}")


def replace_submodule(model: nn.Module, name: str, module: nn.Module) -> None:
    """Puts `module` in the place of the submodule called `name`."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
