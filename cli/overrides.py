"""Overrides that Hydra lets pass and that would not do what they say.

An optional group ignores a choice that does not exist, and where the config is free in shape (data,
dropout, adapter, tracker) any key and any value goes: one that nobody reads, and a word where a
number stood.
"""

import re
from collections.abc import Mapping
from numbers import Real
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from cli.parsing import is_choice, parse, place
from cli.rows import check_row
from cli.spelling import unknown_choice, unknown_key
from common.errors import UserError


def check_overrides(cfg: DictConfig) -> None:
    """Raise UserError at the first override of the command line that is of no effect or no kind."""
    if not HydraConfig.initialized():
        return  # composed by a program, not typed by a person
    hydra = HydraConfig.get()
    given = parse(hydra.overrides.task)
    chosen = [override for override in given if is_choice(override)]
    for override in chosen:
        _check_choice(override)
    check_row(str(hydra.job.config_name), hydra.overrides.task)
    for override in given:
        _check_read(override, cfg)
    valued = [override for override in given if override not in chosen and not _adds(override)]
    if valued:
        others = [str(override.input_line) for override in given if override not in valued]
        before = compose(hydra.job.config_name, overrides=others)
        for override in valued:
            _check_kind(override.key_or_group, before, cfg)


def _check_choice(override: Override) -> None:
    group, choice = override.key_or_group, override.value()
    repository = GlobalHydra.instance().config_loader().repository  # type: ignore[attr-defined]
    if isinstance(choice, str) and not repository.config_exists(f"{group}/{choice}"):
        raise UserError(unknown_choice(group, choice))


def _check_read(override: Override, cfg: DictConfig) -> None:
    """`dropout.KEY` is a slot, or some slot refers to it, or nobody reads it."""
    group, _, key = place(override).partition(".")
    key = key.partition(".")[0]
    if override.is_delete() or not key:
        return
    _check_takes_part(group, key, cfg)
    if group != "dropout":
        return
    penalised = any(_is_object(node) and "penalty" in node for node in cfg.dropout.values())
    read = {"name", *_referred_to(cfg)} | ({"penalty_weight"} if penalised else set())
    if key in read or (_is_object(cfg.dropout[key]) and not _adds(override)):
        return
    if _is_object(cfg.dropout[key]) and key in _slots():
        return
    objects = {str(name) for name, node in cfg.dropout.items() if _is_object(node)}
    raise UserError(unknown_key(f"dropout.{key}", read | objects - {key}))


def _check_takes_part(group: str, key: str, cfg: DictConfig) -> None:
    """Refuse what another value leaves without effect."""
    if (group, key) == ("schedule", "min_lr") and cfg.schedule.get("decay_steps", 0) is None:
        raise UserError(
            f"schedule.min_lr={cfg.schedule.min_lr} is read by nobody: with schedule.decay_steps=null "
            "the rate stays at optimizer.lr; set decay_steps too"
        )
    if group == "adapter" and cfg.adapter.layer is None:
        raise UserError(
            f"adapter.{key} is read by nobody at adapter={cfg.adapter.name}: choose one, such as "
            "adapter=lora"
        )


def _referred_to(cfg: DictConfig) -> set[str]:
    raw = OmegaConf.to_container(cfg.dropout, resolve=False)
    return set(re.findall(r"\$\{(?:oc\.select:)?dropout\.(\w+)", str(raw)))


def _is_object(node: Any) -> bool:
    return isinstance(node, Mapping) and "_target_" in node


def _slots() -> tuple[str, ...]:
    from model.slots import SLOTS  # torch comes with it: asked last, and for slots alone

    return tuple(SLOTS)


def _check_kind(key: str, before: DictConfig, cfg: DictConfig) -> None:
    was, value = OmegaConf.select(before, key), OmegaConf.select(cfg, key)
    if was is not None and value is not None and _kind(value) != _kind(was):
        raise UserError(f"{key}={value} must be {_kind(was)}: it is {was} by default")


def _adds(override: Override) -> bool:
    return override.is_add() or override.is_force_add() or override.is_delete()


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, Real):
        return "a number"
    return "a name" if isinstance(value, str) else "of the same shape"
