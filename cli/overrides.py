"""Overrides that Hydra lets pass and that would not do what they say.

An optional group ignores a choice that does not exist, and where the config is free in shape (data,
dropout, adapter, tracker) any value goes: a word where a number stood, as well.
"""

from numbers import Real
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from cli.spelling import groups, unknown_choice
from common.errors import UserError


def check_overrides(cfg: DictConfig) -> None:
    """Raise ValueError at the first override of the command line that is of no effect or no kind."""
    if not HydraConfig.initialized():
        return  # composed by a program, not typed by a person
    hydra = HydraConfig.get()
    given = OverridesParser.create().parse_overrides(list(hydra.overrides.task))
    chosen = [override for override in given if override.key_or_group in groups()]
    for override in chosen:
        _check_choice(override)
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
