"""Names of rows and tables: what one may be, and what a run is called that was given none."""

import hashlib
import re
from collections.abc import Mapping
from typing import Annotated, Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from pydantic import Strict

from cli.parsing import parse, place
from cli.rules import rule

LONGEST = 100
FOREIGN = re.compile(r"[^A-Za-z0-9._,=+-]+")

Name = Annotated[
    str,
    Strict(),
    rule(
        lambda name: 0 < len(name) <= LONGEST and name[0] != "." and not FOREIGN.search(name),
        f"a name: letters, digits and ._,=+- without a leading dot, at most {LONGEST}",
    ),
]

# Beside the dropout's own settings, the choices that a name tells.
TOLD_GROUPS = ("adapter", "model", "optimizer", "schedule", "sampling")


def row_name(cfg: DictConfig) -> str:
    """The run's name: a row's, or a given one; else its preset's with what differs from that.

    `learned,shift_init=1.57`. A preset whose filled slots were all replaced is not named:
    `mlp_output=locked`.
    """
    if not HydraConfig.initialized():
        return str(cfg.row_name)
    given = parse(HydraConfig.get().overrides.task)
    told = [override for override in given if _is_told(override)]
    if not told or any(override.key_or_group in ("row", "row_name") for override in given):
        return str(cfg.row_name)
    rest = [str(override.input_line) for override in given if override not in told]
    preset = compose(HydraConfig.get().job.config_name, rest)

    replaced = {_slot(override) for override in told} - {None}
    base = [] if replaced and replaced >= _filled(preset) else [str(cfg.dropout.name)]
    slots = _filled(cfg)
    return as_name(
        ",".join(base + [_label(o, cfg, slots) for o in told if _differs(o, cfg, preset)])
    )


def as_name(text: str) -> str:
    """`text` as a name: what may not stand in one is `_`, what is too long ends in a digest."""
    name = FOREIGN.sub("_", text).lstrip(".") or "_"
    if len(name) > LONGEST:
        name = f"{name[: LONGEST - 9]},{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return name


def _is_told(override: Override) -> bool:
    name = override.key_or_group
    return name.startswith(("dropout.", "dropout/")) or name in TOLD_GROUPS


def _differs(override: Override, cfg: DictConfig, preset: DictConfig) -> bool:
    key = place(override)
    return bool(OmegaConf.select(cfg, key) != OmegaConf.select(preset, key))


def _slot(override: Override) -> str | None:
    """The slot that `dropout/slot@dropout.mlp_output=...` fills."""
    if override.key_or_group != "dropout/slot":
        return None
    return place(override).removeprefix("dropout.")


def _filled(cfg: DictConfig) -> set[str]:
    return {str(key) for key, node in cfg.dropout.items() if _drops(node)}


def _drops(node: Any) -> bool:
    return isinstance(node, Mapping) and not str(node.get("_target_", ".NoDropout")).endswith(
        ".NoDropout"
    )


def _label(override: Override, cfg: DictConfig, slots: set[str]) -> str:
    """`dropout.mlp_output.shift_init=1.57` -> `shift_init=1.57`, if no other slot is filled."""
    key = place(override).removeprefix("dropout.")
    slot, _, own = key.partition(".")
    if own and slots == {slot}:
        key = own
    if "/" in override.key_or_group or override.key_or_group in TOLD_GROUPS:
        return f"{key}={override.value()}"
    value = OmegaConf.select(cfg, place(override))
    return f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
