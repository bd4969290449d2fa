"""What may share a table: the refusal to mix runs that measured different things."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from common.errors import UserError
from common.settings import NO_NUMBER
from experiments.records import Finished, Record, Start

# Records that differ in one of these measure different things and never share a table.
IDENTITY = {
    "data fingerprint": "data.fingerprint",
    "data files": "data.files",
    "tokenizer hash": "data.tokenizer.sha256",
    "scale": "scale",
    "dtype": "dtype",
    "kind of device": "device.kind",
}

# Settings that change no number of a run, or that IDENTITY, the base or the rows themselves
# speak of.
INCIDENTAL = NO_NUMBER | {"seed", "hydra"}

# What must not change between the processes that worked on a run: its bits depend on them.
WATCHED: dict[str, Callable[[Start], Any]] = {
    "torch": lambda start: start.versions.get("torch"),
    "threads": lambda start: start.device.threads,
    "ranks": lambda start: start.device.ranks,
    "compiled kernels": lambda start: start.device.compiled_kernels,
    "device": lambda start: start.device.name,
}

Groups = dict[str, list[Finished]]


def check_comparable(records: Sequence[Record], scale: str | None = None) -> None:
    """Refuse to mix: finished records agree in IDENTITY and in the code that they share.

    Those of one row agree in their settings as well. `scale` is the table's own, if it has one.
    Raises UserError naming what differs, the values, and which records have which.
    """
    finished = [record for record in records if isinstance(record, Finished)]
    for what, groups in identity_differences(finished):
        raise UserError(
            f"records that differ in their {what} cannot share a table: "
            f"{_describe(groups)}; run the odd ones again as the others were, or move them away"
        )
    if differing := list(code_differences(finished)):
        said = [f"`{file}` is {_describe(groups)}" for file, groups in differing[:3]]
        said += [f"and {len(differing) - 3} more files differ"] * (len(differing) > 3)
        raise UserError(
            "records whose common code computes different things cannot share a table: "
            f"{'; '.join(said)}; run the odd ones again with this code, or move them away"
        )
    for row in sorted({record.row for record in finished}):
        for setting, groups in config_differences([r for r in finished if r.row == row]):
            raise UserError(
                f"the seeds of row {row!r} differ in `{setting}` and are not one row: "
                f"{_describe(groups)}; run the odd ones again as the others were"
            )
    if finished and scale not in (None, finished[0].scale):
        raise UserError(
            f"scale={finished[0].scale!r} must be {scale!r} in this table: "
            f"{finished[0].name} belongs to another (--list names them)"
        )


def identity_differences(records: Sequence[Finished]) -> Iterator[tuple[str, Groups]]:
    """Each entry of IDENTITY in which the records differ, and the records that have each value."""
    for what, path in IDENTITY.items():
        groups = _by_value((record, record.get(path)) for record in records)
        if len(groups) > 1:
            yield f"{what} (`{path}`)", groups


def code_differences(records: Sequence[Finished]) -> Iterator[tuple[str, Groups]]:
    """Each file that two of the records used and that does not compute the same in both.

    What one record alone used, such as the dropout of its row, is its own.
    """
    for file in sorted({file for record in records for file in record.code.files}):
        users = [record for record in records if file in record.code.files]
        groups = _by_value((record, record.code.files[file][:12]) for record in users)
        if len(groups) > 1:
            yield file, groups


def common_code(records: Sequence[Finished]) -> str:
    """A hash over the files that all of the records used, the same whatever rows join them."""
    shared = set.intersection(*(set(record.code.files.items()) for record in records))
    return hashlib.sha256(json.dumps(sorted(shared)).encode()).hexdigest()


def changes_on_the_way(record: Finished) -> list[str]:
    """What changed from one start of the run to another: `threads 2, 1 from step 300`."""
    said = []
    for what, value_of in WATCHED.items():
        values = [(start.step, value_of(start)) for start in record.starts]
        changed = [
            f"{value} from step {step:,}"
            for (_, before), (step, value) in pairwise(values)
            if value != before
        ]
        if changed:
            said.append(", ".join([f"{what} {values[0][1]}", *changed]))
    return said


def config_differences(records: Iterable[Finished]) -> Iterator[tuple[str, Groups]]:
    """Each setting in which the configurations differ, with the records that have each value."""
    flat = [(record, dict(_settings(record))) for record in records]
    for setting in sorted({setting for _, settings in flat for setting in settings}):
        groups = _by_value((record, settings.get(setting)) for record, settings in flat)
        if len(groups) > 1:
            yield setting, groups


def _settings(record: Finished) -> Iterator[tuple[str, Any]]:
    yield from _flatten(record.config)
    yield "base", None if record.base is None else record.base.model_dump()


def _flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if not prefix and key in INCIDENTAL:
            continue
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _by_value(pairs: Iterable[tuple[Finished, Any]]) -> Groups:
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
