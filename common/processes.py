"""What binds a process to the one that started it."""

import ctypes
import os
import sys
from signal import Signals

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>

_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def end_with(parent: int, signum: Signals) -> None:
    """Have the kernel send this process `signum` when `parent`, which started it, dies; on Linux."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signum)
        if os.getppid() != parent:  # it has died already
            os._exit(1)
