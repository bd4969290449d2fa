"""The one door for a run's own files: its record, its lines, its nonce, a checkpoint's facts.

Whoever wrote them, what comes through has what this room reads, of its types and within bounds; what
else a record holds is kept as it is. The answer comes at once: no pipe is waited for.
"""

import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, ConfigDict, Field

from common.door import Count, Label, Many, Part, build, read_json, typed
from common.errors import UserError
from common.files import StorageError, read_regular
from common.wandb_places import RECORD

ANEW = "fresh=true keeps the directory beside and runs anew, or restore the file from a copy"
MAX_SOURCES = 10_000
_SOURCE = re.compile(r"(?:\w[\w.-]*/)*\w[\w.-]*\.(?:py|cpp|h)")
_NONCE = re.compile("[0-9a-f]{8}")


def _digest(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise ValueError("64 hexadecimal digits")
    return text


def _hash_or_none(text: str) -> str:
    return _digest(text) if text else text


def _source(text: str) -> str:
    """A name that leads out of the repository would have this process read whatever it names."""
    if len(text) > 200 or not _SOURCE.fullmatch(text):
        raise ValueError("the path of a source file below the repository's root")
    return text


Digest = Annotated[str, AfterValidator(_digest)]
Source = Annotated[str, AfterValidator(_source)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=1e12)]
Values = dict[str, Finite | None]
Status = Literal["running", "interrupted", "failed", "finished"]


class Code(Part):
    """The commit, and each file of ours that the run used, with a hash of what it computes."""

    commit: Label | None
    files: Annotated[dict[Source, str], Field(max_length=MAX_SOURCES)]


class Device(Part):
    """What the run computes on."""

    kind: Literal["cpu", "cuda"]
    name: str


class Start(Part):
    """One of the processes that worked on the run."""

    step: Count


class Point(Part):
    """One evaluation on the way; null where a loss was not finite."""

    step: Count
    train: Finite | None = Field(None, alias="train/loss_nats")
    val: Finite | None = Field(alias="val/loss_nats")


class Ensemble(Part):
    """The runs whose probabilities were averaged, their hashes by seed."""

    members: dict[str, str]


class Record(Part):
    """A run's record, at whatever point of the run; `content` is all that it holds."""

    content: dict[str, Any]
    status: Status
    code: Code
    table: Label | None = None
    row: Label | None = None
    seed: Count | None = None
    started: Label | None = None
    starts: Many[Start] = ()
    versions: dict[str, str | None] | None = None
    device: Device | None = None
    dtype: Literal["float32", "bfloat16"] | None = None
    time_s: Seconds | None = None
    metrics: Values | None = None
    best: Values | None = None
    test: dict[str, Values] = Field(default_factory=dict)
    ensemble: Ensemble | None = None
    curve: Many[Point] = ()


class InterruptedRecord(Record):
    """Of a run that goes on, with its clock, from where it stopped."""

    time_s: Seconds


class Identity(Part):
    """What a config calls its run."""

    seed: Count
    scale: Label
    row_name: Label
    table_name: Label | None = None


class FinishedRecord(Record):
    """Of a run that is added to, or shown to a tracker."""

    status: Literal["finished"]
    seed: Count
    device: Device
    run_hash: Digest
    config: Identity
    steps: Count
    best: Values


class Tokens(Part):
    """How much text the run had."""

    train_tokens: Count


class Metrics(Part):
    """The closing evaluation, as far as a run's last words tell it."""

    train: Finite = Field(alias="train/loss_nats")
    train_stderr: Finite | None = Field(alias="train/loss_stderr")
    val: Finite = Field(alias="val/loss_nats")
    val_stderr: Finite | None = Field(alias="val/loss_stderr")
    epoch: Finite
    time_s: Seconds


class Best(Part):
    """The lowest validation loss on the way."""

    step: Count
    val: Finite = Field(alias="val/loss_nats")


class Summary(Part):
    """What a record must have for a run's last words."""

    row: Label
    seed: Count
    parameters: Count
    data: Tokens
    metrics: Metrics
    best: Best
    curve: Many[Point]
    time_s: Seconds


class Line(Part):
    """A line of metrics.jsonl or media.jsonl: numbers, histograms or samples of one step."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: Values

    step: Count
    time_s: Seconds | None = None
    final: bool = False
    histograms: dict[str, Many[Count]] = Field(default_factory=dict)
    samples: Many[str] = ()


class Progress(Part):
    """How far a training had come, with the entries of `training.state.Progress` and no other."""

    model_config = ConfigDict(extra="forbid")

    step: Count
    best_step: Count | None = None
    best_val_loss_nats: Finite | None = None


class Facts(Part):
    """What stands beside the tensors of a checkpoint, where it is there."""

    run: Annotated[str, AfterValidator(_hash_or_none)] = ""
    step: Count = 0
    progress: Progress | None = None


class RunFacts(Facts):
    """The same of a run that goes on from it."""

    run: Digest
    step: Count
    progress: Progress


Kind = TypeVar("Kind", bound=Record)


def read_record(directory: Path, kind: type[Kind]) -> Kind | None:
    """The record of a run's directory, None where none was written yet; UserError where it is none."""
    path = directory / RECORD
    if not os.path.lexists(path):
        return None
    try:
        content = read_json(path)
        check_text(content)
        return build(_of_status(kind, content), content | {"content": content}, path)
    except StorageError:
        raise
    except ValueError as error:
        why = _without(path, error)
        raise UserError(f"{path} is not a run's record ({why}): {ANEW}") from error


def check_text(content: dict[str, Any]) -> None:
    """ValueError where a text in it is half a character, which JSON can name and no file can hold."""
    json.dumps(content, ensure_ascii=False).encode()


def _of_status(kind: type[Kind], content: dict[str, Any]) -> type[Kind]:
    goes_on = content.get("status") == "interrupted"
    return InterruptedRecord if goes_on and kind is Record else kind  # type: ignore[return-value]


def check_summary(directory: Path, content: dict[str, Any]) -> None:
    """UserError where a finished run's record lacks what its last words tell."""
    try:
        typed(Summary, content)
    except UserError as error:
        path = directory / RECORD
        raise UserError(f"{path} is not a finished run's record ({error}): {ANEW}") from None


def read_nonce(path: Path) -> str:
    """Eight hexadecimal digits; UserError where the file holds anything else."""
    try:
        nonce = read_regular(path, 100).decode().strip()
        if not _NONCE.fullmatch(nonce):
            raise UserError("must hold 8 hexadecimal digits")
    except StorageError:
        raise
    except ValueError as error:
        raise UserError(
            f"{path} is not a run's nonce ({_without(path, error)}): remove it, and the run has "
            "another id with its tracker from now on"
        ) from error
    return nonce


def _without(path: Path, error: Exception) -> str:
    """Why, where the message around it names the file already."""
    return str(error).removeprefix(str(path)).removeprefix(":").strip()
