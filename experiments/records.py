"""Records of runs, read and checked: <row>/seed<k>.json or <row>/seed<k>-<hash>/record.json."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

from common.errors import UserError

SCHEMA = 1
STATUSES = ("finished", "failed", "interrupted", "running")

# Where a number of the table lies in a record.
METRICS = {
    "train": "metrics.train/loss_nats",
    "val": "metrics.val/loss_nats",
    "train_stderr": "metrics.train/loss_stderr",
    "val_stderr": "metrics.val/loss_stderr",
    "bits_per_byte": "metrics.val/bits_per_byte",
    "ones": "metrics.train/ones",
    "eval_ones": "metrics.eval/ones",
    "best_val": "best.val/loss_nats",
    "best_train": "best.train/loss_nats",
    "best_step": "best.step",
    "test": "test.final.test/loss_nats",
    "test_stderr": "test.final.test/loss_stderr",
    "test_bits_per_byte": "test.final.test/bits_per_byte",
    "best_test": "test.best.test/loss_nats",
    "parameters": "parameters",
    "trainable": "parameters_trainable",
    "flops_per_token": "flops_per_token",
    "epoch": "metrics.epoch",
    "tokens_per_s": "metrics.tokens_per_s",
    "time_s": "metrics.time_s",
    "memory_bytes": "metrics.memory_bytes",
}

_NUMBER = (int, float)
_EVERY_RECORD: dict[str, tuple[type, ...]] = {
    "row": (str,),
    "seed": (int,),
    "status": (str,),
    "error": (str, NoneType),
    "config": (dict,),
    "config.scale": (str,),
}
_FINISHED_RECORD: dict[str, tuple[type, ...]] = {
    "steps": (int,),
    "dtype": (str,),
    "compile": (bool,),
    "code.commit": (str, NoneType),
    "code.dirty": (bool, NoneType),
    "code.code_hash": (str,),
    "device.kind": (str,),
    "device.name": (str,),
    "device.threads": (int,),
    "data.source": (str,),
    "data.fingerprint": (str,),
    "data.files": (dict,),
    "data.train_tokens": (int,),
    "data.val_tokens": (int,),
    "data.tokenizer.name": (str,),
    "data.tokenizer.vocab_size": (int,),
    "data.tokenizer.sha256": (str,),
    "curve": (list,),
    **{METRICS[name]: _NUMBER for name in ("train", "val", "train_stderr", "val_stderr")},
    **{METRICS[name]: _NUMBER for name in ("best_val", "best_step", "epoch", "time_s")},
    "flops_per_token": _NUMBER,
    "parameters": (int,),
    "parameters_trainable": (int,),
}
# Absent where there is nothing to measure (ones without a learned mask, the speed of a session
# that had no step left to do; the test split before it is read) or no way to measure it.
_OPTIONAL: dict[str, tuple[type, ...]] = {
    METRICS[name]: (*_NUMBER, NoneType)
    for name in (
        *("bits_per_byte", "ones", "eval_ones", "best_train", "tokens_per_s", "memory_bytes"),
        *("test", "test_stderr", "test_bits_per_byte", "best_test"),
    )
} | {"device.compiled_kernels": (bool, NoneType)}


@dataclass(frozen=True)
class Record:
    """One run's record: who it is, how it ended, and everything it wrote."""

    name: str
    row: str
    seed: int
    status: str
    error: str | None
    content: Mapping[str, Any]

    def get(self, path: str) -> Any:
        """The entry at a dotted path such as `data.tokenizer.sha256`; None where there is none."""
        entry: Any = self.content
        for key in path.split("."):
            entry = entry.get(key) if isinstance(entry, Mapping) else None
        return entry

    def metric(self, name: str) -> float | None:
        """A number of the table by its name in METRICS."""
        value = self.get(METRICS[name])
        return None if value is None else float(value)


def read_records(folder: Path) -> list[Record]:
    """All records under `folder`, by row and seed.

    Raises ValueError naming the file for JSON that cannot be read, a missing entry, a wrong type, a
    loss that is not finite, a record that lies under another row or seed, or two of the same.
    """
    records: dict[tuple[str, int], Record] = {}
    for path in sorted([*folder.glob("*/seed*.json"), *folder.glob("*/seed*/record.json")]):
        record = read_record(path, path.relative_to(folder))
        twin = records.setdefault((record.row, record.seed), record)
        if twin is not record:
            raise UserError(
                f"{twin.name} and {record.name} are both row {record.row!r}, seed {record.seed}: "
                "a table takes one run of each; move one of them away"
            )
    return [records[key] for key in sorted(records)]


def read_record(path: Path, name: Path) -> Record:
    """The record at `path`; `name`, `<row>/seed<k>...`, must agree with what it says."""
    content = _parse(path)
    if content.get("schema") != SCHEMA:
        raise UserError(
            f"{path}: schema={content.get('schema')!r} must be {SCHEMA}: "
            "the record was written by another version; run it again"
        )
    _check_entries(path, content, _EVERY_RECORD)
    if content["status"] not in STATUSES:
        raise UserError(f"{path}: status={content['status']!r} must be one of {STATUSES}")
    if content["status"] == "finished":
        _check_entries(path, content, _FINISHED_RECORD)
        _check_entries(path, content, _OPTIONAL)
        _check_curve(path, content["curve"])
    row, seed = name.parts[0], re.match(r"seed(\d+)", name.parts[1])
    if seed is None or (content["row"], content["seed"]) != (row, int(seed[1])):
        raise UserError(
            f"{path}: the record says row={content['row']!r}, seed={content['seed']}, which its "
            "place does not: records lie at <row>/seed<k>.json; move it where it belongs"
        )
    return Record(str(name), row, content["seed"], content["status"], content["error"], content)


def _parse(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: not a readable JSON record ({error}); run it again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: a record must be a JSON object, this is {_kind(content)}")
    return content


def _check_entries(path: Path, content: Any, rules: Mapping[str, tuple[type, ...]]) -> None:
    for entry, types in rules.items():
        value: Any = content
        for key in entry.split("."):
            if not isinstance(value, dict) or key not in value:
                value = None
                if NoneType in types:
                    break
                raise UserError(f"{path}: `{entry}` is missing: a record must have it")
            value = value[key]
        # bool is an int to Python, not to a table.
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            # Where any number will do, the integer goes without saying.
            kinds = [kind for kind in types if kind is not int or float not in types]
            wanted = " or ".join(_NAMES[kind] for kind in kinds)
            raise UserError(f"{path}: `{entry}` is {_kind(value)}, it must be {wanted}")
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{path}: `{entry}`={value} must be finite: the run is not a result")


def _check_curve(path: Path, curve: list[Any]) -> None:
    for index, point in enumerate(curve):
        if not isinstance(point, dict):
            raise UserError(f"{path}: `curve[{index}]` is {_kind(point)}, it must be an object")
        _check_entries(path, point, {"step": (int,), "val/loss_nats": _NUMBER})


_NAMES = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    dict: "an object",
    list: "a list",
    NoneType: "null",
}


def _kind(value: Any) -> str:
    return _NAMES.get(type(value), type(value).__name__)
