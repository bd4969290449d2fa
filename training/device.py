"""Where a run computes, and in which type."""

import contextlib
import ctypes
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

import torch
import torch.distributed as dist

from common.errors import UserError
from training.ranks import ALONE, Ranks, check_shares

# While the first rank prepares a corpus the others wait; torchrun ends them where it died.
PATIENCE = timedelta(hours=12)


@dataclass(frozen=True)
class Machine:
    """A device, the type its matrix products run in, and who shares the work; weights stay float32."""

    device: torch.device
    dtype: torch.dtype
    ranks: Ranks = ALONE

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def peak_memory_bytes(self) -> int:
        """Highest memory so far: allocated on a GPU, resident in the process on a CPU."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        import resource
        import sys

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def choose_machine(device: str = "auto", dtype: str = "auto") -> Machine:
    """Resolve `auto`: a GPU where there is one; bfloat16 where the device multiplies it faster.

    ValueError for an unknown name, and for a GPU or a bfloat16 GPU that is not there.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"device={device} must be one of auto, cpu, cuda")
    if dtype not in ("auto", "float32", "bfloat16"):
        raise UserError(f"dtype={dtype} must be one of auto, float32, bfloat16")
    has_gpu = torch.cuda.is_available()
    if device == "cuda" and not has_gpu:
        raise UserError("device=cuda, but torch sees no GPU here: use device=cpu or device=auto")
    chosen = "cuda" if has_gpu and device != "cpu" else "cpu"
    fast = _multiplies_bfloat16_fast(chosen)
    if dtype == "auto":
        dtype = "bfloat16" if fast else "float32"
    return Machine(torch.device(chosen), getattr(torch, dtype))


def join_ranks(machine: Machine, batch_size: int, micro_batch_size: int) -> Machine:
    """The machine as one of torchrun's ranks, with a GPU of its own; as it is without torchrun.

    Gradients go by nccl between GPUs, everything else by gloo. Raises UserError where the
    micro-batches of a step cannot be shared out evenly, and where a rank would have no GPU.
    """
    ranks = Ranks(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))
    if ranks.size == 1:
        return machine
    check_shares(ranks.size, batch_size, micro_batch_size)
    device, backend = machine.device, "gloo"
    if device.type == "cuda":
        device, backend = _own_gpu(int(os.environ["LOCAL_RANK"])), "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=PATIENCE)
    return replace(machine, device=device, ranks=ranks)


def _own_gpu(local_rank: int) -> torch.device:
    if local_rank >= torch.cuda.device_count():
        raise UserError(
            f"nproc-per-node must be at most {torch.cuda.device_count()}, the number of GPUs that "
            f"torch sees here: rank {local_rank} would have none to itself (device=cpu needs none)"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def _multiplies_bfloat16_fast(device: str) -> bool:
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16"))


def keep_freed_memory() -> None:
    """Have the C library (glibc) keep freed memory for the next step, not return it to the kernel.

    The kernel zeroes every page that it hands out again: 110,000 pages a step, a fifth of the step, at
    `published` with 8 windows. For the whole process; other C libraries have no such setting and go
    without.
    """
    trim_threshold, mmap_max = -1, -4  # as glibc's malloc.h numbers them
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)
