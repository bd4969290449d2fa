"""Directories that are whole or not there, one builder at a time, and hashes of files."""

import fcntl
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import file_digest
from pathlib import Path


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


@contextmanager
def whole_or_absent(directory: Path) -> Iterator[Path]:
    """A directory to write into that becomes `directory` at the end, or vanishes on any error.

    Its files are flushed to the disk before the renaming, so even after a power cut the directory
    is whole or absent. What a killed process left of an earlier try is removed first: hold
    `sole_builder(directory)` around this.
    """
    staging = directory.with_name(f"{directory.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
        for path in (*staging.iterdir(), staging):
            _flush_to_disk(path)
        staging.rename(directory)
        _flush_to_disk(directory.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def sole_builder(directory: Path) -> Iterator[None]:
    """One process at a time builds beside `directory`; another one says who does, and waits.

    The kernel lets go of the lock when its holder ends, however it ends. The file `.lock` stays:
    removing it would race with the next process.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    with (directory.parent / ".lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            print(f"waiting for {lock.read().strip() or 'another process'}", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}, which makes {directory}")
        lock.flush()
        yield
