"""Checkpoints: directories of tensors and facts, whole or not there, checked to the last byte.

    checkpoints/last-00000500/
        tensors.safetensors     every tensor, bit for bit
        facts.json              everything else: the run's hash, the step, the best loss, ...
        manifest.json           size and sha256 of the two

Nothing here is pickled, so that reading a stranger's checkpoint runs none of its code.
"""

import json
import logging
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from common import files
from common.door import typed
from common.errors import UserError
from tracking.door import Facts, RunFacts

_log = logging.getLogger(__name__)

TENSORS, FACTS, MANIFEST = "tensors.safetensors", "facts.json", "manifest.json"
KEPT = {"last": 2, "best": 1}
_NAME = re.compile(r"(last|best)-(\d{8})(\.replaced)?")
_MAX_JSON_BYTES = 2**20  # a few thousand times what is written
# What json, torch and safetensors raise on arbitrary bytes.
_UNREADABLE = (ValueError, TypeError, KeyError, ArithmeticError, RuntimeError, SafetensorError)


class CheckpointError(UserError):
    """A checkpoint that cannot be trusted; the message names the file and what is wrong."""


@dataclass(frozen=True)
class Checkpoint:
    """What was saved: tensors on the CPU, and the facts beside them."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]
    path: Path

    @property
    def step(self) -> int:
        return _step(self.path)

    def sha256(self) -> str:
        """Of the file of tensors: two checkpoints of the same weights and moments have the same."""
        return files.sha256_of(self.path / TENSORS)


def checkpoint_name(kind: str, step: int) -> str:
    """The name of a checkpoint: `last-00000500`."""
    name = f"{kind}-{step:08d}"
    if not _NAME.fullmatch(name):
        raise UserError(
            f"kind={kind!r}, step={step!r} must be one of {list(KEPT)} and 0 <= step < 10^8"
        )
    return name


def save_checkpoint(directory: Path, kind: str, state: Any, run_hash: str = "") -> Path:
    """Write a checkpoint of `kind`, last or best, of a `TrainState`, in the name of its run."""
    step = state.progress.step
    facts = {"run": run_hash, "step": step, "progress": asdict(state.progress)}
    return write_checkpoint(directory, checkpoint_name(kind, step), state.tensors(), facts)


def write_checkpoint(
    directory: Path, name: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
) -> Path:
    """Save under `directory / name`, and prune what the new checkpoint makes useless.

    `facts` have the step that the name has, and the hash of the run that it is of, as `run`.
    Two `last` are kept, the new one and the newest before it, and one `best`. A later `last` than
    the new one is pruned too: a run that wrote it and now stands before it found it broken. Tensors
    that share memory are saved once each, and come back equal and apart.

    Raises StorageError where the disk refuses; what was there before is then untouched.
    """
    if not (parsed := _NAME.fullmatch(name)) or parsed[3]:
        raise UserError(f"name={name!r} must be last-<step> or best-<step>, the step in 8 digits")
    content = _facts_as_json(facts)
    files.make_directory(directory)
    temporary = directory / f"{files.TEMPORARY}{name}"
    with files.explained(directory / name):
        files.remove_leftovers(directory)
        try:
            temporary.mkdir()
            _write_parts(temporary, tensors, content)
            _put_in_place(temporary, directory / name)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _prune(directory, name)
    return directory / name


def read_checkpoint(path: Path, run_hash: str | None = None) -> Checkpoint:
    """Load a checkpoint, every byte of it checked against the manifest.

    Raises CheckpointError, naming the file, where a byte is missing, added or changed, where it is of
    another step than its name says, or of another run than `run_hash`.
    """
    path = Path(path)
    if path.is_symlink() or not path.is_dir():
        raise CheckpointError(f"{path} is not a checkpoint: there is no such directory")
    try:
        _check_manifest(path)
        facts = json.loads(files.read_regular(path / FACTS, _MAX_JSON_BYTES))
        if not isinstance(facts, dict):
            raise CheckpointError(f"{path / FACTS} must hold one JSON object")
        _check_entries(path, facts, Facts)
        _check_identity(path, facts, run_hash)
        if run_hash is not None:
            _check_entries(path, facts, RunFacts)
        # pread gives each tensor its own memory; a mapped file could change under the run.
        tensors = load_file(path / TENSORS, device="cpu", backend="pread")
    except CheckpointError:
        raise
    except _UNREADABLE as error:
        why = " ".join(str(error).split())
        raise CheckpointError(f"the checkpoint {path} cannot be read: {why}") from error
    return Checkpoint(tensors, facts, path)


def latest_checkpoint(directory: Path, run_hash: str | None = None) -> Checkpoint | None:
    """The newest valid `last` checkpoint of the run, or None where none was ever completed.

    A broken or foreign one is reported in a warning that names its file, and the one before it is
    used. Raises CheckpointError where there are some and all are broken: to begin again is a decision.
    """
    return _newest_valid(Path(directory), "last", run_hash)


def best_checkpoint(directory: Path, run_hash: str | None = None) -> Checkpoint | None:
    """The valid `best` checkpoint, as `latest_checkpoint` finds the last."""
    return _newest_valid(Path(directory), "best", run_hash)


def _check_identity(path: Path, facts: Mapping[str, Any], run_hash: str | None) -> None:
    if (named := _NAME.fullmatch(path.name)) and facts.get("step") != int(named[2]):
        raise CheckpointError(
            f"{path} holds step {facts.get('step')}, which its name does not say: it was renamed"
        )
    progress = facts.get("progress")
    if isinstance(progress, Mapping) and progress.get("step") != facts.get("step"):
        raise CheckpointError(
            f"{path} holds step {facts.get('step')} of a training at step "
            f"{str(progress.get('step'))[:20]}: it was forged"
        )
    if run_hash is not None and facts.get("run") != run_hash:
        raise CheckpointError(
            f"{path} is of run {str(facts.get('run'))[:8]}, and this is run {run_hash[:8]}: "
            "move it back to where it was made"
        )


def _check_entries(path: Path, facts: Mapping[str, Any], kind: type[Facts]) -> None:
    try:
        typed(kind, facts)
    except UserError as error:
        raise CheckpointError(f"{path / FACTS}: {error}") from None


def _newest_valid(directory: Path, kind: str, run_hash: str | None) -> Checkpoint | None:
    problems = []
    for path in _of_kind(directory, kind):
        try:
            return read_checkpoint(path, run_hash)
        except CheckpointError as error:
            _log.warning("%s; trying the one before it", error)
            problems.append(str(error))
    if problems:
        raise CheckpointError(
            f"no {kind} checkpoint in {directory} is valid: {'; '.join(problems)}. "
            "Restore one from a copy, or begin the run again with fresh=true"
        )
    return None


def _of_kind(directory: Path, kind: str) -> list[Path]:
    """Completed checkpoints, newest first; one that was being replaced comes after its successor."""
    found = [path for path in directory.glob(f"{kind}-*") if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: (-_step(path), path.name))


def _step(path: Path) -> int:
    parsed = _NAME.fullmatch(path.name)
    assert parsed is not None
    return int(parsed[2])


def _facts_as_json(facts: Mapping[str, Any]) -> bytes:
    try:
        content = json.dumps(facts, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"facts must be plain JSON without NaN or infinity: {error}") from error
    if json.loads(content) != facts:
        raise UserError(
            "facts must come back from JSON as they went in: make tuples lists and keys strings"
        )
    return content.encode()


def _write_parts(directory: Path, tensors: Mapping[str, Tensor], facts: bytes) -> None:
    path = directory / TENSORS
    files.fault_hook("write", path)
    try:
        save_file(_detached(tensors), path)
    except KeyError as error:
        raise UserError(f"a tensor of type {error} cannot be saved: convert it first") from error
    files.fsync(path)
    files.write_durably(directory / FACTS, facts)
    files.write_durably(directory / MANIFEST, _manifest(directory))
    files.fsync(directory)


def _detached(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, contiguous, no two in one piece of memory: safetensors refuses aliases."""
    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        result[name] = tensor.clone() if storage in seen else tensor
        seen.add(storage)
    return result


def _manifest(directory: Path) -> bytes:
    """Made from the files as they lie there, in one spelling: equal files, equal manifests."""
    entries = {
        name: {
            "bytes": (directory / name).stat().st_size,
            "sha256": files.sha256_of(directory / name),
        }
        for name in (TENSORS, FACTS)
    }
    return _spelled(entries)


def _spelled(entries: Any) -> bytes:
    return (json.dumps({"schema": 1, "files": entries}, indent=2) + "\n").encode()


def _check_manifest(path: Path) -> None:
    """Compare manifest and files. File names come from this module, never from the manifest."""
    for name in (MANIFEST, TENSORS, FACTS):
        if not (path / name).exists():
            raise CheckpointError(f"{path / name} is missing")
    stored = files.read_regular(path / MANIFEST, max_bytes=4096)
    actual = _manifest(path)
    if stored == actual:
        return
    was, now = _entries(stored), _entries(actual)
    if was is None or was.keys() != now.keys() or _spelled(was) != stored:
        raise CheckpointError(f"{path / MANIFEST} is damaged")
    broken = next((name for name in (TENSORS, FACTS) if was.get(name) != now[name]), MANIFEST)
    raise CheckpointError(f"{path / broken} is damaged: its size or sha256 is not the manifest's")


def _entries(manifest: bytes) -> Any:
    try:
        entries = json.loads(manifest)["files"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    return entries if isinstance(entries, dict) else None


def _put_in_place(temporary: Path, path: Path) -> None:
    """Rename the finished directory to its name; an old one of that name steps aside, still valid."""
    if path.exists():
        aside = path.with_name(path.name + ".replaced")
        if aside.exists():
            files.remove_directory(aside)
        files.rename(path, aside)
    files.rename(temporary, path)
    files.fsync(path.parent)


def _prune(directory: Path, name: str) -> None:
    kind = name.partition("-")[0]
    others = [path for path in _of_kind(directory, kind) if path.name != name]
    before = [path for path in others if _step(path) < _step(directory / name)]
    kept = before[: KEPT[kind] - 1]
    for path in others:
        if path not in kept:
            files.remove_directory(path)
    files.fsync(directory)
