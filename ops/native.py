"""What PyTorch is slow at on a CPU, compiled for this machine when it is first needed.

The sources in `kernels/` become one shared library in the user's cache directory, by `$CXX` or g++, in
about two seconds. Without a compiler everything works as before, more slowly.
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
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

KERNELS = Path(__file__).with_name("kernels")
COMPILE = (
    *("-std=c++17", "-O3", "-march=native", "-fopenmp"),
    *("-fno-exceptions", "-fno-strict-aliasing", "-Wno-psabi", "-fPIC", "-c"),
)
# No OpenMP library of our own: its threads would fight with those of torch's, which is loaded already.
LINK = ("-shared", "-nodefaultlibs", "-lm", "-lc")
log = logging.getLogger(__name__)


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None, with the reason in the log, where they cannot be made or loaded."""
    try:
        return _declare(ctypes.CDLL(str(_built())))
    except (OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
        log.info("without compiled kernels, so slower on this CPU: %s", error)
        return None


_hidden = False


@contextmanager
def without_kernels() -> Iterator[None]:
    """In its block everything takes torch's operations, whose products can be counted."""
    global _hidden
    before, _hidden = _hidden, True
    try:
        yield
    finally:
        _hidden = before


def usable(x: Tensor) -> bool:
    """Whether a kernel can read `x`: on a CPU, no fake tensor, and not while torch compiles."""
    readable = not torch.compiler.is_compiling() and x.device.type == "cpu" and type(x) is Tensor
    return readable and not _hidden and library() is not None


@cache
def attends_in(dtype: torch.dtype) -> bool:
    """Whether there is an attention kernel for `dtype`: float32, and bfloat16 with AMX."""
    kernels = library()
    if dtype == torch.bfloat16:
        return kernels is not None and bool(kernels.attention_has_bfloat16())
    return kernels is not None and dtype == torch.float32


def function(name: str, dtype: torch.dtype) -> Any:
    """The kernel of this name for tensors of `dtype`, to be called with pointers and numbers."""
    return getattr(library(), f"{name}_{str(dtype).removeprefix('torch.')}")


def draw_seed() -> int:
    """A number from torch's generator, for noise that a kernel makes by itself."""
    return int(torch.randint(2**63 - 1, (), device="cpu"))


def _built() -> Path:
    """The library's file, compiled if the cache has none for these sources, compiler and CPU."""
    if sys.platform != "linux":
        raise RuntimeError(f"they are compiled on Linux alone, and this is {sys.platform}")
    compiler = shlex.split(os.environ.get("CXX") or "g++")
    if not compiler or shutil.which(compiler[0]) is None:
        raise RuntimeError(f"there is no compiler {' '.join(compiler)}; install g++ or set CXX")
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = [line for line in lines if line.lower().startswith(("flags", "features"))][:1]
    files = sorted(file for file in KERNELS.iterdir() if file.suffix in (".cpp", ".h"))
    sources = [(file.name, file.read_bytes()) for file in files]
    key = hashlib.sha256(repr((sources, compiler, COMPILE, LINK, cpu)).encode()).hexdigest()
    built = _cache_directory() / f"kernels-{key[:16]}.so"
    if not built.exists():
        _compile(compiler, built)
    return built


def _cache_directory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    directory = Path(base) / "learned-dropout-gpt"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


def _compile(compiler: list[str], built: Path) -> None:
    """Compile into `built` in one move, so that two processes can do so at once."""
    sources = sorted(map(str, KERNELS.glob("*.cpp")))
    objects = [f"{Path(source).stem}.o" for source in sources]
    with tempfile.TemporaryDirectory(dir=built.parent) as scratch:
        for command in (
            [*compiler, *COMPILE, *sources],
            [*compiler, *objects, *LINK, "-o", built.name],
        ):
            done = subprocess.run(command, cwd=scratch, capture_output=True, timeout=300)
            if done.returncode:
                said = done.stderr.decode(errors="replace").strip()
                raise RuntimeError(f"{shlex.join(command)} failed: {said[-500:]}")
        Path(scratch, built.name).replace(built)


def _declare(kernels: ctypes.CDLL) -> ctypes.CDLL:
    """Give the functions their argument types; an AttributeError would be a mistake of ours."""
    pointer, count, seed = ctypes.c_void_p, ctypes.c_int64, ctypes.c_uint64
    kernels.bernoulli_float32.argtypes = [pointer, pointer, count, seed]
    for dtype in ("float32", "bfloat16"):
        getattr(kernels, f"softmax_minus_target_{dtype}").argtypes = [pointer] * 3 + [count] * 2
        getattr(kernels, f"gelu_forward_{dtype}").argtypes = [pointer] * 2 + [count]
        getattr(kernels, f"gelu_backward_{dtype}").argtypes = [pointer] * 3 + [count]
        change = [ctypes.c_double, *[ctypes.c_float] * 3]
        getattr(kernels, f"dropout_{dtype}").argtypes = [pointer] * 2 + [count, *change, seed]
        rows = [count, ctypes.c_int, seed]
        getattr(kernels, f"learned_mask_forward_{dtype}").argtypes = [pointer] * 5 + rows
        getattr(kernels, f"learned_mask_backward_{dtype}").argtypes = (
            [pointer] * 7 + [ctypes.c_float] + rows
        )
    settings = [ctypes.c_int] * 4 + [ctypes.c_double, seed]
    for dtype in ("float32", "bfloat16")[: 1 + kernels.attention_has_bfloat16()]:
        getattr(kernels, f"attention_forward_{dtype}").argtypes = [pointer] * 3 + settings
        getattr(kernels, f"attention_backward_{dtype}").argtypes = [pointer] * 5 + settings
    if kernels.attention_has_bfloat16():
        kernels.weight_gradient_bfloat16.argtypes = [pointer] * 3 + [count] * 5 + [ctypes.c_int] * 2
    return kernels
