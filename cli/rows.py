"""A row is its definition: what its file sets is not overridden while a run carries its name."""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

import yaml
from hydra import compose
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from cli.parsing import is_choice, parse, place
from cli.spelling import CONFIGS
from common.errors import UserError

NAMES = ("row", "table", "row_name", "table_name")


def check_row(config_name: str, overrides: Sequence[str]) -> None:
    """Raise UserError where `overrides`, or the table's file, change what the row among them sets."""
    given = parse(overrides)
    chosen = {override.key_or_group: override.value() for override in given}
    row, table = chosen.get("row"), chosen.get("table")
    if not isinstance(row, str):
        return
    if isinstance(table, str) and "row_name" not in chosen:
        check_table(config_name, row, table)
    others = [override for override in given if override.key_or_group not in NAMES]
    if not others:
        return
    cfg = compose(config_name, list(overrides), return_hydra_config=True)
    settings = set(_settings(f"row/{row}", cfg.hydra.runtime.choices))
    changing = [override for override in others if any(_touched(override, settings))]
    if not changing:
        return
    dropped = [*changing, *(o for o in given if o.key_or_group == "row_name")]
    kept = [str(override.input_line) for override in given if override not in dropped]
    own = compose(config_name, kept, return_hydra_config=True)
    if cfg.row_name != own.row_name:
        return
    for override in changing:
        for key in _touched(override, settings):
            theirs, ours = _value(own, override, key), _value(cfg, override, key)
            if theirs != ours:
                said = f"{key}={theirs}" if theirs is not None else f"no {key}"
                raise UserError(
                    f"{override.input_line}: the row {row} has {said}, and a row is its "
                    "definition. Give the run names of its own: row_name=... table_name=..."
                )


@cache
def check_table(config_name: str, row: str, table: str) -> None:
    """Raise UserError where the table's file, which is read after the row's, changes what that sets."""
    own = compose(config_name, [f"row={row}"], return_hydra_config=True)
    theirs = compose(config_name, [f"row={row}", f"table={table}"], return_hydra_config=True)
    for key in _settings(f"row/{row}", own.hydra.runtime.choices):
        said, found = _chosen_or_set(own, key), _chosen_or_set(theirs, key)
        if said != found:
            raise UserError(
                f"table={table}: its file changes {key}, which the row {row} sets, and a row is its "
                f"definition. Leave {key} out of configs/table/{table}.yaml"
            )


def as_swept(arguments: Sequence[str]) -> list[str]:
    """The command line, with one value of what its table sweeps over written as a sweep of one.

    `dropout.p=0.1` beside `table=family` is a setting of its rows, whose kinds have a rate. Hydra would
    set it in the config that it composes first, without a row, whose dropout may have none.
    """
    if {"hydra.mode=RUN", "--help", "-h", "--cfg", "-c"} & set(arguments):  # a job, or no sweep
        return list(arguments)
    tables = [word.removeprefix("table=") for word in arguments if word.startswith("table=")]
    swept = [key for table in tables for key in _swept(table)]

    def written(word: str) -> str:
        key, _, value = word.partition("=")
        if key not in swept or "." not in key or not re.fullmatch(r"[\w.+-]+", value):
            return word
        return f"{key}=choice({value})"

    return [written(word) for word in arguments]


def as_typed(arguments: Sequence[str]) -> list[str]:
    """The command line as it was before `as_swept`, to be shown."""
    return [re.sub(r"=choice\(([\w.+-]+)\)$", r"=\1", word) for word in arguments]


def _swept(table: str) -> Sequence[str]:
    """The keys that a table's file sweeps over."""
    file = CONFIGS / "table" / f"{table}.yaml"
    if not re.fullmatch(r"\w+", table) or not file.is_file():
        return ()
    return list(OmegaConf.select(OmegaConf.load(file), "hydra.sweeper.params") or ())


def _settings(config: str, choices: DictConfig) -> Iterator[str]:
    """The keys that a file of `configs/` sets, and the places of the groups that it chooses."""
    text = (CONFIGS / f"{config}.yaml").read_text(encoding="utf-8")
    content = yaml.safe_load(text) or {}
    for entry in content.pop("defaults", []):
        if isinstance(entry, str):
            if entry != "_self_":
                yield from _settings(f"{config.partition('/')[0]}/{entry}", choices)
            continue
        for name in entry:
            group = name.removeprefix("override ").lstrip("/").removeprefix("optional /")
            yield group.replace("/", ".")
            if (choice := choices.get(group)) and _is_global(f"{group}/{choice}"):
                yield from _settings(f"{group}/{choice}", choices)
    yield from _leaves(content)


def _is_global(config: str) -> bool:
    file = CONFIGS / f"{config}.yaml"
    return file.exists() and file.read_text(encoding="utf-8").startswith("# @package _global_")


def _leaves(content: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        elif prefix + key not in NAMES:
            yield prefix + key


def _touched(override: Override, settings: Iterable[str]) -> Iterator[str]:
    """What an override may change of the row's settings: itself, below one, or those below it."""
    key = place(override)
    if any(f"{key}.".startswith(f"{setting}.") for setting in settings):
        yield key
    elif not is_choice(override):  # a group's choice comes before the row, whose values hold
        yield from sorted(setting for setting in settings if setting.startswith(f"{key}."))


def _chosen_or_set(cfg: DictConfig, key: str) -> Any:
    """What is chosen of a group that `_settings` names by its place, or the value of a setting."""
    for group, choice in cfg.hydra.runtime.choices.items():
        if group.replace("/", ".") == key:
            return choice
    value = OmegaConf.select(cfg, key)
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _value(cfg: DictConfig, override: Override, key: str) -> Any:
    chosen = is_choice(override) and not override.package and key == place(override)
    if chosen:
        return cfg.hydra.runtime.choices.get(override.key_or_group)
    return OmegaConf.select(cfg, key)
