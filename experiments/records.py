"""Records of runs, typed: <row>/seed<k>.json or <row>/seed<k>-<hash>/record.json, of schema 2."""

import re
from collections.abc import Iterator, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from common.door import Count, Name, Number, Part, build, read_json
from common.equal_code import oldest
from common.errors import UserError

SCHEMA = 2

# Where a number of the table lies in a finished record.
METRICS = {
    "train": "metrics.train",
    "val": "metrics.val",
    "train_stderr": "metrics.train_stderr",
    "val_stderr": "metrics.val_stderr",
    "val_ema": "metrics.val_ema",
    "bits_per_byte": "metrics.bits_per_byte",
    "ones": "metrics.ones",
    "eval_ones": "metrics.eval_ones",
    "best_val": "best.val",
    "best_train": "best.train",
    "best_step": "best.step",
    "test": "test.final.loss",
    "test_stderr": "test.final.stderr",
    "test_bits_per_byte": "test.final.bits_per_byte",
    "best_test": "test.best.loss",
    "test_ema": "test.final.ema",
    "own_masks": "masks.val.own",
    "other_masks": "masks.val.other",
    "mean_masks": "masks.val.mean",
    "random_masks": "masks.val.random",
    "parameters": "parameters",
    "trainable": "parameters_trainable",
    "flops_per_token": "flops_per_token",
    "epoch": "metrics.epoch",
    "tokens_per_s": "metrics.tokens_per_s",
    "time_s": "metrics.time_s",
    "memory_bytes": "metrics.memory_bytes",
}


LATER = ("test", "ensemble", "masks")  # parts that `evaluate.py --record` adds


class Code(Part):
    """The commit, and each project file that the run used with a hash of what it computes.

    Of versions that are known to compute the same, the oldest one's hash.
    """

    commit: str | None
    dirty: bool | None
    files: dict[str, str]

    @field_validator("files")
    @classmethod
    def _as_oldest(cls, files: dict[str, str]) -> dict[str, str]:
        return {name: oldest(name, digest) for name, digest in files.items()}


class Device(Part):
    """What the run computed on."""

    kind: str
    name: str
    threads: Count
    ranks: Count = 1
    compiled_kernels: bool | None = None


class Start(Part):
    """One of the processes that worked on the run."""

    step: Count
    versions: dict[str, str | None]
    device: Device


class Base(Part):
    """What a fine-tuned run started from: a trained run, or weights from outside, of no run."""

    run_hash: str | None
    checkpoint_sha256: str


class Tokenizer(Part):
    """Its name, its size and the hash of its tables."""

    name: str
    vocab_size: Count
    sha256: str


class Data(Part):
    """The text, by source and hash, and how many tokens it came to."""

    source: str
    revision: str | None = None
    fingerprint: str
    files: dict[str, str]
    train_tokens: Count
    val_tokens: Count
    tokenizer: Tokenizer


class Metrics(Part):
    """The closing evaluation of the last weights, and what the run took.

    Ones are there for rows with a learned mask, `val_ema` for averaged weights, a standard error for
    two windows or more, and no speed is there for a run whose last process had no step left to do.
    """

    train: Number = Field(alias="train/loss_nats")
    train_stderr: Number | None = Field(None, alias="train/loss_stderr")
    train_windows: Count | None = Field(None, alias="train/windows")
    val: Number = Field(alias="val/loss_nats")
    val_stderr: Number | None = Field(None, alias="val/loss_stderr")
    val_windows: Count | None = Field(None, alias="val/windows")
    val_ema: Number | None = Field(None, alias="val/ema_loss_nats")
    bits_per_byte: Number | None = Field(None, alias="val/bits_per_byte")
    ones: Number | None = Field(None, alias="train/ones")
    eval_ones: Number | None = Field(None, alias="eval/ones")
    epoch: Number
    time_s: Number
    tokens_per_s: Number | None = None
    memory_bytes: Count | None = None


class Best(Part):
    """The same closing evaluation, of the checkpoint with the lowest val loss on the way."""

    step: Count
    val: Number = Field(alias="val/loss_nats")
    val_stderr: Number | None = Field(None, alias="val/loss_stderr")
    train: Number | None = Field(None, alias="train/loss_nats")


class Held(Part):
    """One model's loss on the held-out split."""

    loss: Number | None = Field(None, alias="test/loss_nats")
    ema: Number | None = Field(None, alias="test/ema_loss_nats")
    stderr: Number | None = Field(None, alias="test/loss_stderr")
    bits_per_byte: Number | None = Field(None, alias="test/bits_per_byte")


class Test(Part):
    """The held-out split, read by the last and by the best weights."""

    final: Held
    best: Held | None = None


class Joint(Part):
    """The loss of an ensemble that this run is in, and its loss without this run."""

    loss: Number = Field(alias="loss_nats")
    without: Number = Field(alias="without_nats")


class Joints(Part):
    """The ensembles of one split: of the last, the best and the averaged weights."""

    final: Joint
    best: Joint
    ema: Joint | None = None


class Ensemble(Part):
    """A row's runs with their probabilities averaged; `members` are their hashes by seed."""

    members: dict[str, str]
    val: Joints | None = None
    test: Joints | None = None


class OtherMasks(Part):
    """The last weights' loss under its own learned masks and under others: `evaluate.py --masks`."""

    own: Number
    other: Number
    mean: Number
    random: Number


class Masks(Part):
    """The same, by split."""

    val: OtherMasks | None = None
    test: OtherMasks | None = None


class Point(Part):
    """One evaluation on the way."""

    step: Count
    val: Number = Field(alias="val/loss_nats")
    train: Number | None = Field(None, alias="train/loss_nats")
    val_ema: Number | None = Field(None, alias="val/ema_loss_nats")
    train_ema: Number | None = Field(None, alias="train/ema_loss_nats")


class Record(Part):
    """One run's record: who it is, how it ended, and, in `content`, everything it wrote."""

    name: str
    path: Path
    content: dict[str, Any]
    table: str | None = None
    row: Name
    seed: Count
    status: Literal["finished", "failed", "interrupted", "running"]
    error: str | None
    config: dict[str, Any]

    @property
    def scale(self) -> Any:
        """The scale that the config names, if any."""
        return self.config.get("scale")


class Finished(Record):
    """The record of a run that reached its last step."""

    status: Literal["finished"]
    run_hash: str
    overrides: list[str]
    steps: Count
    dtype: str
    compile: bool
    code: Code
    versions: dict[str, str | None]
    device: Device
    starts: list[Start]
    base: Base | None = None
    data: Data
    parameters: Count
    parameters_trainable: Count
    flops_per_token: Number
    metrics: Metrics
    best: Best
    curve: list[Point]
    missing_evaluations: list[Count] = Field(default_factory=list)
    test: Test | None = None
    ensemble: Ensemble | None = None
    masks: Masks | None = None
    finished: str | None = None
    taken_from: str | None = None  # the other table's record that this one is

    def metric(self, name: str) -> float | None:
        """A number of the table by its name in METRICS; None where the run has none."""
        value: Any = self
        for key in METRICS[name].split("."):
            value = None if value is None else getattr(value, key)
        return None if value is None else float(value)

    def get(self, path: str) -> Any:
        """An entry by its dotted path, `data.tokenizer.sha256`."""
        return attrgetter(path)(self)


def with_later(content: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """A record's content, with what was measured later and the other one, of the same run, has."""
    missing = [p for p in LATER if content.get(p) is None and other.get(p) is not None]
    return {**content, **{part: other[part] for part in missing}}


def rebuilt(record: Finished, content: Mapping[str, Any], name: str | None = None) -> Finished:
    """The record with another content."""
    said = {"name": name or record.name, "path": record.path, "content": dict(content)}
    return build(Finished, {**content, **said}, record.path)


def find_records(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Each record's path under `folder`, and its place there, `<row>/seed<k>...`."""
    for path in sorted([*folder.glob("*/seed*.json"), *folder.glob("*/seed*/record.json")]):
        yield path, path.relative_to(folder)


def read_records(folder: Path) -> list[Record]:
    """All records under `folder`, by row and seed.

    Raises UserError naming the file for JSON that cannot be read, a missing entry, a wrong type, a
    loss that is not finite, a record that lies under another row or seed, or two of the same.
    """
    return sole([read_record(path, name) for path, name in find_records(folder)])


def read_row(folder: Path) -> list[Record]:
    """The records of one row's folder, which bears the row's name."""
    folder = folder.resolve()
    paths = sorted([*folder.glob("seed*.json"), *folder.glob("seed*/record.json")])
    if not paths:
        raise UserError(
            f"add={folder} holds no record: it must be the folder of a row, "
            "runs/<table>/<row>, with its seed<k>-<hash>/record.json"
        )
    return sole([read_record(path, path.relative_to(folder.parent)) for path in paths])


def sole(records: list[Record]) -> list[Record]:
    """The records by row and seed; UserError where two are of the same."""
    found: dict[tuple[str, int], Record] = {}
    for record in records:
        twin = found.setdefault((record.row, record.seed), record)
        if twin is not record:
            raise UserError(
                f"{twin.name} and {record.name} are both row {record.row!r}, seed {record.seed}: "
                "a table takes one run of each; move one of them away"
            )
    return [found[key] for key in sorted(found)]


def read_record(path: Path, name: Path) -> Record:
    """The record at `path`; `name`, `<row>/seed<k>...`, must agree with what it says."""
    record = _typed(path, name, _content(path))
    row, seed = name.parts[0], re.match(r"seed(\d{1,15})(?=[-.]|$)", name.parts[1])
    if seed is None or (record.row, record.seed) != (row, int(seed[1])):
        raise UserError(
            f"{path}: the record says row={record.row!r}, seed={record.seed}, which its "
            "place does not: records lie at <row>/seed<k>.json; move it where it belongs"
        )
    return record


def read_lone_record(path: Path) -> Record:
    """The record at a `path` that says nothing of its row and seed; named as a published one."""
    content = _content(path)
    return _typed(path, Path(f"{content.get('row')}/seed{content.get('seed')}.json"), content)


def _content(path: Path) -> dict[str, Any]:
    content = read_json(path)
    schema = content.get("schema")
    if type(schema) is not int or schema != SCHEMA:
        raise UserError(
            f"{path}: schema={str(schema)[:20]} must be {SCHEMA}: "
            "the record was written by another version; run it again"
        )
    return content


def _typed(path: Path, name: Path, content: Mapping[str, Any]) -> Record:
    kind = Finished if content.get("status") == "finished" else Record
    return build(kind, {**content, "name": str(name), "path": path, "content": content}, path)
