"""The part that PyTorch is slow at on a CPU, compiled for this machine when it is first needed.

`attention.cpp` becomes a shared library in the user's cache directory, by `$CXX` or g++, in a second or
two. Its parallel loops use the OpenMP threads that torch has started, since a second set of threads
would fight with them for the cores: hence no library of their own at linking.
"""

import ctypes
import hashlib
import logging
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import torch

SOURCE = Path(__file__).with_name("attention.cpp")
COMPILE = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-fPIC", "-Wno-psabi", "-c")
LINK = ("-shared", "-nodefaultlibs", "-lm", "-lc")
log = logging.getLogger(__name__)


@cache
def library() -> ctypes.CDLL | None:
    """The compiled library; None, with the reason in the log, where it cannot be made or loaded."""
    try:
        return _declare(ctypes.CDLL(str(_built())))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        log.info("attention takes plain products, several times slower on a CPU: %s", error)
        return None


def supports(dtype: torch.dtype) -> bool:
    """Whether attention in `dtype` has a kernel here: float32, and bfloat16 with AMX."""
    loaded = library()
    if loaded is None or dtype not in (torch.float32, torch.bfloat16):
        return False
    return dtype == torch.float32 or _has_bfloat16()


@cache
def _has_bfloat16() -> bool:
    loaded = library()
    return loaded is not None and bool(loaded.attention_has_bfloat16())


def _built() -> Path:
    """The library's file, compiled if the cache has none for this source, compiler and CPU."""
    if sys.platform != "linux":
        raise RuntimeError(f"it is compiled on Linux alone, and this is {sys.platform}")
    command = shlex.split(os.environ.get("CXX", "g++"))
    if not command or shutil.which(command[0]) is None:
        raise RuntimeError(f"there is no compiler {' '.join(command)}; install g++ or set CXX")
    cpu = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("flags")][:1]
    key = repr((SOURCE.read_bytes(), command, COMPILE, LINK, cpu)).encode()
    built = _cache_directory() / f"attention-{hashlib.sha256(key).hexdigest()[:16]}.so"
    if not built.exists():
        _compile(command, built)
    return built


def _cache_directory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    directory = Path(base) / "learned-dropout-gpt"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


def _compile(command: list[str], built: Path) -> None:
    """Compile into `built` in one move, so that two processes can do so at once."""
    with tempfile.TemporaryDirectory(dir=built.parent) as scratch:
        compiled, linked = Path(scratch) / "attention.o", Path(scratch) / built.name
        for step in (
            [*command, *COMPILE, str(SOURCE), "-o", str(compiled)],
            [*command, str(compiled), *LINK, "-o", str(linked)],
        ):
            done = subprocess.run(step, capture_output=True, text=True, timeout=300)
            if done.returncode:
                raise RuntimeError(f"{shlex.join(step)} failed: {done.stderr.strip()[-500:]}")
        linked.replace(built)


def _declare(loaded: ctypes.CDLL) -> ctypes.CDLL:
    """Give the functions their argument types; AttributeError is left for a mistake of ours."""
    pointer, size = ctypes.c_void_p, ctypes.c_int
    shape_and_dropout = [size] * 4 + [ctypes.c_double, ctypes.c_uint64]
    for suffix in ("float32", "bfloat16")[: 1 + loaded.attention_has_bfloat16()]:
        getattr(loaded, f"attention_forward_{suffix}").argtypes = [pointer] * 3 + shape_and_dropout
        getattr(loaded, f"attention_backward_{suffix}").argtypes = [pointer] * 5 + shape_and_dropout
    return loaded
