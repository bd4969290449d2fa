"""Files that are whole or not there, and disk errors that say what to do.

New bytes are written beside the old ones, flushed to the disk, and renamed over them: a crash at
any instruction leaves the old file or the new one, never a part of either.
"""

import errno
import hashlib
import json
import math
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from common.errors import UserError

TEMPORARY = ".tmp-"  # the prefix of whatever is not (or no longer) there: safe to remove


def _no_fault(operation: str, path: Path) -> None:
    pass


# Called with the operation and its path before each write, fsync, rename and remove. Tests put a
# SIGKILL here, to prove that there is no bad moment to die.
fault_hook: Callable[[str, Path], None] = _no_fault

_REMEDIES = {
    errno.ENOSPC: "the disk is full: free some space, or write elsewhere",
    errno.EDQUOT: "the disk quota is used up: free some space, or write elsewhere",
    errno.EFBIG: "the file size limit is reached: raise it (ulimit -f), or write elsewhere",
    errno.EACCES: "permission denied: change the directory's owner or mode, or go elsewhere",
    errno.EPERM: "permission denied: change the directory's owner or mode, or go elsewhere",
    errno.EROFS: "the file system is read-only: write elsewhere",
    errno.ENOTDIR: "a file stands where a directory is needed: move it away, or write elsewhere",
    errno.EMFILE: "too many files are open: raise the limit (ulimit -n 4096)",
    errno.EIO: "the disk reports an error: check it, and go elsewhere",
}


class StorageError(UserError):
    """The disk refused: full, not writable, over a limit. The message says what to change."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.errno = number


@contextmanager
def explained(path: Path, elsewhere: str = "runs_dir=DIR", action: str = "write") -> Iterator[None]:
    """Turn a refusal by the disk, on `path`, into a StorageError that says what to change.

    `elsewhere` is how a person chooses another place. safetensors puts the system's error number
    into the text of an exception of its own; it is read from there.
    """
    try:
        yield
    except Exception as error:
        number = _error_number(error)
        if number is None:
            raise
        remedy = _REMEDIES.get(number, f"{os.strerror(number)}: try another place")
        message = f"cannot {action} {path}: {remedy} ({elsewhere})"
        raise StorageError(message, number) from error


def _error_number(error: Exception) -> int | None:
    if isinstance(error, OSError):
        return error.errno or errno.EIO
    if type(error).__name__ == "SafetensorError":
        found = re.search(r"os error (\d+)", str(error))
        return int(found[1]) if found else None
    return None


def make_directory(path: Path) -> None:
    """Make `path` and its parents where they are missing."""
    with explained(path):
        path.mkdir(parents=True, exist_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Replace the file at `path` by `text` in UTF-8, whole or not at all; OSError where it can't."""
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    try:
        write_durably(temporary, text.encode())
        rename(temporary, path)
        fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON as the standard has it: a number that is not finite becomes null."""
    return json.dumps(_finite(value), indent=indent, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_durably(path: Path, content: bytes) -> None:
    """Write a file, not atomically, and flush it to the disk."""
    fault_hook("write", path)
    path.write_bytes(content)
    fsync(path)


def fsync(path: Path) -> None:
    """Flush a file's bytes or a directory's entries: else a power cut may undo a rename."""
    fault_hook("fsync", path)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename(source: Path, target: Path) -> None:
    """Rename in one step: `target` is the old thing or the new one at every moment."""
    fault_hook("rename", target)
    os.replace(source, target)


def remove_directory(path: Path) -> None:
    """Remove a directory as a whole: renamed away first, so that half of it is never seen."""
    doomed = path.with_name(f"{TEMPORARY}removed-{path.name}")
    rename(path, doomed)
    fault_hook("remove", doomed)
    shutil.rmtree(doomed)


@contextmanager
def whole_or_absent(directory: Path) -> Iterator[Path]:
    """A directory to write into that becomes `directory` at the end, or vanishes on any error.

    Its files are flushed to the disk before the renaming, so even after a power cut the directory
    is whole or absent. What a killed process left of an earlier try is removed first: hold
    `locks.sole_builder(directory)` around this.
    """
    staging = directory.with_name(f"{directory.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
        for path in (*staging.iterdir(), staging):
            fsync(path)
        rename(staging, directory)
        fsync(directory.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def remove_leftovers(directory: Path) -> None:
    """Remove what an interrupted write left in `directory`, which the caller alone writes to."""
    for path in sorted(directory.glob(f"{TEMPORARY}*")):
        fault_hook("remove", path)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextmanager
def open_regular(path: Path) -> Iterator[BufferedReader]:
    """Open a plain file to read bytes; a link is not followed, and a pipe not waited for."""
    with explained(path, "check the path", action="read"):
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise UserError(f"{path} must be a plain file: no link, directory, pipe or device")
        with path.open("rb") as file:
            yield file


def read_regular(path: Path, max_bytes: int) -> bytes:
    """The bytes of a plain file; a ValueError where it is none, or longer than `max_bytes`."""
    with open_regular(path) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise UserError(f"{path} must have at most {max_bytes:,} bytes")
    return content


def sha256_of(path: Path) -> str:
    """The SHA-256 of a plain file's bytes, in hexadecimal, in constant memory."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
