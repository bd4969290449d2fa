"""A run's directory: found by what changes its numbers, and held by one process at a time."""

import fcntl
import hashlib
import json
import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from omegaconf import DictConfig, OmegaConf

from common.errors import InUseError, UserError
from common.files import explained, remove_leftovers, write_atomically

# What changes no number: where things go, what they are called, how often they are written.
# `data`, `device` and `dtype` enter as what they came to: a fingerprint, a kind, a type.
_IRRELEVANT = (
    "tracker", "table_name", "row_name", "scale", "fresh", "log_every", "save_every",
    "runs_dir", "results_dir", "device", "dtype", "data",
)  # fmt: skip

Status = Literal["new", "resume", "finished"]


def plain(cfg: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """The resolved config as plain dictionaries, lists and values."""
    if isinstance(cfg, DictConfig):
        return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[return-value]
    return dict(cfg)


def run_hash(
    cfg: DictConfig | Mapping[str, Any], data_fingerprint: str, *, dtype: str, device_kind: str
) -> str:
    """sha256 of what changes a run's numbers: resolved values, data, and kind of arithmetic."""
    config = {key: value for key, value in plain(cfg).items() if key not in _IRRELEVANT}
    facts = {"config": config, "data": data_fingerprint, "dtype": dtype, "device": device_kind}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


@dataclass
class RunDirectory:
    """An open run directory. The lock goes with `close`, or with the process however it ends."""

    path: Path
    run_hash: str
    config: dict[str, Any]
    status: Status
    nonce: str = ""
    _lock: int | None = field(default=None, repr=False)

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def id(self) -> str:
        """Names this run to a tracker: the same after a resume, another one for every new start."""
        return f"{self.run_hash[:8]}-{self.nonce}"

    def read_record(self) -> dict[str, Any]:
        """The run's record.json, or an empty dictionary where none was written yet."""
        return _read_record(self.path)

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
    code_hash: str,
) -> RunDirectory:
    """Find or make, and lock, the directory `runs/<table or scale>/<row>/seed<k>-<hash8>`.

    Its `status` says what is to be done: `new`, `resume` (go on from the newest checkpoint, if one
    was written) or `finished` (nothing). `fresh=true` moves what is there aside, never deletes it.

    Raises ValueError where another process holds the directory, where the code that makes the
    numbers has changed since the run was started, and where nothing can be written.
    """
    config = plain(cfg)
    digest = run_hash(config, data_fingerprint, dtype=dtype, device_kind=device_kind)
    parent = Path(config.get("runs_dir") or "runs") / (config.get("table_name") or config["scale"])
    path = parent / config["row_name"] / f"seed{config['seed']}-{digest[:8]}"
    with explained(path, "runs_dir=DIR"):
        lock = _acquire(path)
        try:
            if config.get("fresh") and (path / "record.json").exists():
                lock = _move_aside(path, lock)
            remove_leftovers(path / "checkpoints")  # of a save that was killed: no other may follow
            status = _decide(path, code_hash)
            if status == "new":
                write_atomically(path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)))
            return RunDirectory(path, digest, config, status, _nonce(path), lock)
        except BaseException:
            os.close(lock)
            raise


def open_finished(path: Path, code_hash: str) -> RunDirectory:
    """Lock the directory of a finished run, to add to its record.

    Raises ValueError where it is no run's or not finished, where another process holds it, and where
    the code that makes the numbers has changed since.
    """
    record = _read_record(path)
    if not record:
        raise UserError(f"{path} is not a run's directory: it has no record.json")
    if _decide(path, code_hash) != "finished":
        raise UserError(f"{path} is {record['status']}, not finished: let the run go on first")
    lock = _acquire(path)
    return RunDirectory(path, record["run_hash"], record["config"], "finished", _nonce(path), lock)


def _decide(path: Path, code_hash: str) -> Status:
    record = _read_record(path)
    if not record:
        return "new"
    old = record["code"]["code_hash"]
    finished = record["status"] == "finished"
    if old != code_hash:
        state = "finished" if finished else "was started"
        raise UserError(
            f"{path} {state} with code {old[:8]}, and the code is now {code_hash[:8]}: "
            "one run's numbers come from one code. fresh=true runs it anew and keeps the old "
            f"directory beside it; or check out the old code (commit {record['code']['commit']})"
        )
    return "finished" if finished else "resume"


def _read_record(path: Path) -> dict[str, Any]:
    try:
        text = (path / "record.json").read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    try:
        record: dict[str, Any] = json.loads(text)
        record["status"], record["code"]["code_hash"], record["code"]["commit"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path / 'record.json'} is not a run's record ({error}): fresh=true keeps the "
            "directory beside and runs anew"
        ) from error
    return record


def _nonce(path: Path) -> str:
    """Eight letters made once per directory, so that no two runs share a tracker's id."""
    file = path / "nonce"
    if not file.exists():
        write_atomically(file, secrets.token_hex(4))
    return file.read_text(encoding="utf-8").strip()


def _acquire(path: Path) -> int:
    """Lock the directory and return the descriptor that holds the lock.

    The kernel drops the lock with the process, so a killed one leaves nothing to clean up.
    """
    path.mkdir(parents=True, exist_ok=True)
    file = path / "lock"
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = not os.path.samestat(os.fstat(descriptor), os.stat(file))  # moved aside meanwhile
    except BlockingIOError:
        held = True
    if held:
        holder = os.pread(descriptor, 1000, 0).decode(errors="replace").strip()
        os.close(descriptor)
        raise InUseError(
            f"{path} is in use by {holder or 'another process'}: "
            "wait for it, stop it, or choose another seed or runs_dir=DIR"
        )
    now = datetime.now(UTC).isoformat(timespec="seconds")
    holder = f"process {os.getpid()} on {socket.gethostname()} since {now}\n"
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, holder.encode(), 0)
    return descriptor


def _move_aside(path: Path, lock: int) -> int:
    """Rename the directory to `<name>.old<n>` and lock a new one in its place."""
    number = 1
    while (aside := path.with_name(f"{path.name}.old{number}")).exists():
        number += 1
    path.rename(aside)
    try:
        return _acquire(path)
    finally:
        os.close(lock)
