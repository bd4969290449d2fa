"""Files that are whole or not there, and disk errors that say what to do."""

import errno
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_REMEDIES = {
    errno.ENOSPC: "the disk is full: free some space, or write elsewhere",
    errno.EDQUOT: "the disk quota is used up: free some space, or write elsewhere",
    errno.EFBIG: "the file size limit is reached: raise it (ulimit -f), or write elsewhere",
    errno.EACCES: "no permission to write: change the directory's owner or mode, or write elsewhere",
    errno.EPERM: "no permission to write: change the directory's owner or mode, or write elsewhere",
    errno.EROFS: "the file system is read-only: write elsewhere",
    errno.ENOTDIR: "a file stands where a directory is needed: move it away, or write elsewhere",
}


@contextmanager
def explained(path: Path, elsewhere: str) -> Iterator[None]:
    """Turn an `OSError` on `path` into a `ValueError` that says what to change.

    `elsewhere` is how a person chooses another place, such as `runs_dir=DIR`.
    """
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, f"{error.strerror or error}: try another place")
        raise ValueError(f"cannot write {path}: {remedy} ({elsewhere})") from error


def write_atomically(path: Path, text: str) -> None:
    """Replace `path` by `text`: after a crash the file is the old one or the new one, whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
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
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
