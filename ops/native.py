"""What PyTorch is slow at on a CPU, compiled for this machine when it is first needed.

`build` makes the sources in `kernels/` into one shared library in the user's cache directory, by
`$CXX` or g++, in about two seconds. Without a compiler everything works as before, more slowly.
"""

import ctypes
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ops import build

log = logging.getLogger(__name__)


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None, with the reason in the log, where they cannot be made or loaded."""
    try:
        return _declare(ctypes.CDLL(str(build.kernels())))
    except (OSError, RuntimeError, ValueError) as error:
        level = logging.INFO if isinstance(error, build.NoCompilerError) else logging.WARNING
        log.log(level, "without compiled kernels, so slower on this CPU: %s", error)
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
def multiplies_in(dtype: torch.dtype) -> bool:
    """Whether the kernels that multiply matrices take `dtype`: float32, and bfloat16 with AMX."""
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
