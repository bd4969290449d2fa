"""The overrides of a command line, parsed."""

from collections.abc import Iterable

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from cli.spelling import groups


def parse(overrides: Iterable[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides(list(overrides))


def is_choice(override: Override) -> bool:
    """Whether it chooses from a config group, as `dropout=none` does."""
    return override.key_or_group in groups()


def place(override: Override) -> str:
    """Where in the config it acts: `dropout/slot@dropout.mlp_output=locked` -> dropout.mlp_output."""
    if not is_choice(override):
        return override.key_or_group
    return override.package or override.key_or_group.replace("/", ".")
