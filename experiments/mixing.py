"""What may share a table: the refusal to mix runs that measured different things."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from common.errors import UserError
from experiments.records import Record

# Records that differ in one of these measure different things and never share a table.
IDENTITY = {
    "code hash": "code.code_hash",
    "data fingerprint": "data.fingerprint",
    "data files": "data.files",
    "tokenizer hash": "data.tokenizer.sha256",
    "scale": "config.scale",
    "dtype": "dtype",
    "kind of device": "device.kind",
}

# Settings that change no number of a run, or that IDENTITY or the rows themselves speak of.
INCIDENTAL = frozenset(
    {
        "seed",
        "table_name",
        "row_name",
        "scale",
        "fresh",
        "tracker",
        "hydra",
        "device",
        "dtype",
        "data",
    }
    | {"log_every", "save_every", "runs_dir", "results_dir"}
)

Groups = dict[str, list[Record]]


def check_comparable(records: Sequence[Record], scale: str | None = None) -> None:
    """Refuse to mix: finished records agree in IDENTITY, and those of one row in their settings.

    `scale` is the table's own, if it has one. Raises ValueError naming what differs, the values,
    and which records have which.
    """
    finished = [record for record in records if record.status == "finished"]
    for what, path in IDENTITY.items():
        groups = _by_value((record, record.get(path)) for record in finished)
        if len(groups) > 1:
            raise UserError(
                f"records that differ in their {what} (`{path}`) cannot share a table: "
                f"{_describe(groups)}; run the odd ones again as the others were, or move them away"
            )
    for row in sorted({record.row for record in finished}):
        for setting, groups in config_differences([r for r in finished if r.row == row]):
            raise UserError(
                f"the seeds of row {row!r} differ in `{setting}` and are not one row: "
                f"{_describe(groups)}; run the odd ones again as the others were"
            )
    if finished and scale not in (None, finished[0].get("config.scale")):
        raise UserError(
            f"scale={finished[0].get('config.scale')!r} must be {scale!r} in this table: "
            f"{finished[0].name} belongs to another (--list names them)"
        )


def config_differences(records: Iterable[Record]) -> Iterator[tuple[str, Groups]]:
    """Each setting in which the configurations differ, with the records that have each value."""
    flat = [(record, dict(_flatten(record.content["config"]))) for record in records]
    for setting in sorted({setting for _, settings in flat for setting in settings}):
        groups = _by_value((record, settings.get(setting)) for record, settings in flat)
        if len(groups) > 1:
            yield setting, groups


def _flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if not prefix and key in INCIDENTAL:
            continue
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _by_value(pairs: Iterable[tuple[Record, Any]]) -> Groups:
    groups: Groups = {}
    for record, value in pairs:
        groups.setdefault(json.dumps(value, sort_keys=True), []).append(record)
    return groups


def _describe(groups: Groups, most: int = 4) -> str:
    """`"abc" in none/seed1.json, none/seed2.json; "def" in learned/seed1.json`, rarest last."""
    parts = []
    for value, records in sorted(groups.items(), key=lambda group: (-len(group[1]), group[0])):
        names = [record.name for record in records]
        more = f" and {len(names) - most} more" if len(names) > most else ""
        shown = value if len(value) <= 80 else f"{value[:77]}..."
        parts.append(f"{shown} in {', '.join(names[:most])}{more}")
    return "; ".join(parts)
