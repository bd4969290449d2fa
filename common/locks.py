"""One process at a time: a file that names its holder, and that the kernel lets go with it."""

import errno
import fcntl
import os
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from common.errors import UserError


def acquire(file: Path, on_busy: Callable[[str], None], what: str = "") -> int:
    """Lock `file`, made where it is missing, and return the descriptor that holds the lock.

    Where another process has it, `on_busy` is told who: it raises to give up, or returns to wait.
    The kernel drops the lock with the descriptor or the process, however that ends, so there is
    nothing to clean up; the file stays, for removing it would race with the next process.

    The file says who holds it, and `what` for. It is written to only if it is a plain file of that
    very name: UserError for a link, whose target would be overwritten, and for anything else.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _open_plain(file)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 1000, 0).decode(errors="replace").strip()
            on_busy(holder or "another process")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        moved = not _is_at(file, descriptor)
        if not moved:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            holder = f"process {os.getpid()} on {socket.gethostname()} since {now}{what}\n"
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, holder.encode(), 0)
    except BaseException:
        os.close(descriptor)
        raise
    if moved:  # with its directory, since it was opened: that lock guards nothing here any more
        os.close(descriptor)
        return acquire(file, on_busy, what)
    return descriptor


def _open_plain(file: Path) -> int:
    rule = f"{file} must be a plain file: it is a lock, and will be written to; remove it"
    try:
        # Not blocking: a pipe or a device is refused and not waited for.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(file, flags, 0o644)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise UserError(rule) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UserError(rule)
    return descriptor


def _is_at(file: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(file))
    except FileNotFoundError:
        return False


@contextmanager
def sole_builder(directory: Path) -> Iterator[None]:
    """One process at a time builds beside `directory`; another one says who does, and waits."""

    def say(holder: str) -> None:
        print(f"waiting for {holder}", file=sys.stderr)

    lock = acquire(directory.parent / ".lock", say, f", which makes {directory}")
    try:
        yield
    finally:
        os.close(lock)
