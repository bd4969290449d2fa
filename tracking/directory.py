"""A run's directory: found by what changes its numbers, and held by one process at a time."""

import hashlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from omegaconf import DictConfig, OmegaConf

from common.errors import InUseError, UserError
from common.files import explained, remove_leftovers, write_atomically
from common.locks import acquire
from common.settings import NO_NUMBER
from tracking import door
from tracking.provenance import changed_files

_TELLING = ("record.json", "metrics.jsonl", "media.jsonl")  # one of them: something was done here

Status = Literal["new", "resume", "finished"]


def plain(cfg: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """The resolved config as plain dictionaries, lists and values."""
    if isinstance(cfg, DictConfig):
        return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[return-value]
    return dict(cfg)


def run_hash(
    cfg: DictConfig | Mapping[str, Any],
    data_fingerprint: str,
    *,
    dtype: str,
    device_kind: str,
    base: Mapping[str, Any] | None = None,
) -> str:
    """sha256 of what changes a run's numbers: resolved values, data, kind of arithmetic, base."""
    config = {key: value for key, value in plain(cfg).items() if key not in NO_NUMBER}
    facts = {"config": config, "data": data_fingerprint, "dtype": dtype, "device": device_kind}
    if base is not None:
        facts["base"] = dict(base)
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


@dataclass
class RunDirectory:
    """An open run directory. The lock goes with `close`, or with the process however it ends."""

    path: Path
    run_hash: str
    config: dict[str, Any]
    status: Status
    nonce: str = ""
    changed: Sequence[str] = ()  # files of a finished run that compute something else by now
    _lock: int | None = field(default=None, repr=False)

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def id(self) -> str:
        """Names this run to a tracker: the same after a resume, another one for every new start."""
        return f"{self.run_hash[:8]}-{self.nonce}"

    def read_record(self) -> dict[str, Any]:
        """As `read_record`."""
        return read_record(self.path)

    def __getstate__(self) -> dict[str, Any]:
        """A copy in another process holds nothing: the lock is the first one's."""
        return {**self.__dict__, "_lock": None}

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def open_run(
    cfg: DictConfig | Mapping[str, Any],
    data_fingerprint: str,
    *,
    dtype: str,
    device_kind: str,
    base: Mapping[str, Any] | None = None,
) -> RunDirectory:
    """Find or make, and lock, the directory `runs/<table or scale>/<row>/seed<k>-<hash8>`.

    Its `status` says what is to be done: `new`, `resume` (go on from the newest checkpoint, if one
    was written) or `finished` (nothing). `fresh=true` moves what is there aside, never deletes it.

    Raises ValueError where another process holds the directory, where an unfinished run uses a file
    that computes something else since it was started, and where nothing can be written.
    """
    config = plain(cfg)
    digest = run_hash(config, data_fingerprint, dtype=dtype, device_kind=device_kind, base=base)
    parent = Path(config.get("runs_dir") or "runs") / (config.get("table_name") or config["scale"])
    path = parent / config["row_name"] / f"seed{config['seed']}-{digest[:8]}"
    with explained(path, "runs_dir=DIR"):
        lock = _acquire(path)
        try:
            if config.get("fresh") and any(os.path.lexists(path / name) for name in _TELLING):
                lock = _move_aside(path, lock)
            remove_leftovers(path / "checkpoints")  # of a save that was killed: no other may follow
            status, changed = _decide(path)
            if status == "new":
                write_atomically(path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)))
            return RunDirectory(path, digest, config, status, _nonce(path), changed, lock)
        except BaseException:
            os.close(lock)
            raise


def open_finished(path: Path, by_any_code: bool = False) -> RunDirectory:
    """Lock the directory of a finished run, to add to its record, or to show it.

    Raises ValueError where it is no run's or not finished, where another process holds it, and unless
    `by_any_code`, where a file that it uses computes something else since.
    """
    record = door.read_record(path, door.Record)
    if record is None:
        raise UserError(f"{path} is not a run's directory: it has no record.json")
    status, changed = _decide(path)
    if status != "finished":
        raise UserError(f"{path} is {record.status}, not finished: let the run go on first")
    if changed and not by_any_code:
        raise UserError(f"{path} was finished by {_other_code(record, changed)}")
    finished = door.read_record(path, door.FinishedRecord)
    assert finished is not None
    config, nonce = finished.content["config"], _nonce(path)
    return RunDirectory(path, finished.run_hash, config, "finished", nonce, (), _acquire(path))


def _decide(path: Path) -> tuple[Status, list[str]]:
    """What is to be done, and the files of the run that have changed since it was started."""
    record = door.read_record(path, door.Record)
    if record is None:
        return "new", []
    changed = changed_files(record.code.files)
    if record.status == "finished":
        return "finished", changed
    if changed:
        raise UserError(
            f"{path} was started by {_other_code(record, changed)}: one run's numbers come from one "
            "code. fresh=true runs it anew and keeps the old directory beside it"
        )
    return "resume", []


def _other_code(record: door.Record, changed: Sequence[str]) -> str:
    """`other code (commit 1a2b..., since when dropout/learned.py computes something else)`."""
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    return (
        f"other code (commit {record.code.commit}, since which {', '.join(changed[:3])}{more} "
        "changed)"
    )


def read_record(path: Path) -> dict[str, Any]:
    """The record.json of a run's directory, or an empty dictionary where none was written yet.

    UserError where it is none.
    """
    record = door.read_record(path, door.Record)
    return {} if record is None else record.content


def _nonce(path: Path) -> str:
    """Eight letters made once per directory, so that no two runs share a tracker's id."""
    file = path / "nonce"
    if not os.path.lexists(file):
        write_atomically(file, secrets.token_hex(4))
    return door.read_nonce(file)


def _acquire(path: Path) -> int:
    """Lock the directory, made where it is missing, and return the descriptor that holds it."""

    def refuse(holder: str) -> None:
        raise InUseError(
            f"{path} is in use by {holder}: "
            "wait for it, stop it, or choose another seed or runs_dir=DIR"
        )

    return acquire(path / "lock", refuse)


def _move_aside(path: Path, lock: int) -> int:
    """Rename the directory to `old<n>-<name>`, which is no run's, and lock a new one in its place.

    The lock that was held is closed once the new one is: until then it is the caller's.
    """
    number = 1
    while (aside := path.with_name(f"old{number}-{path.name}")).exists():
        number += 1
    path.rename(aside)
    new = _acquire(path)
    os.close(lock)
    return new
