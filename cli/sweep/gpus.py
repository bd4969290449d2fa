"""Which GPU each job of a sweep has to itself. No torch: a sweep starts at once, and holds no GPU."""

import re
import subprocess
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path

from common.errors import UserError

VISIBLE = "CUDA_VISIBLE_DEVICES"
PROC = Path("/proc/driver/nvidia/gpus")
PATIENCE_S = 60  # nvidia-smi wakes the driver where nothing else has
GPU_ID = re.compile(r"\d+|(GPU|MIG)-\S+")


def gpus_of_workers(gpus: Sequence[str], workers: int, ranks: int = 1) -> list[str | None]:
    """The GPUs of each of `workers` jobs at a time, `ranks` of them each: `0,1`.

    They are given out in turns, so that jobs share them evenly. A job has its worker's, whatever its
    number: so one that starts where another ended is alone on that one's. None of it where there are
    no GPUs. Raises UserError where a job would need more than there are.
    """
    if not gpus:
        return [None] * workers
    if ranks > len(gpus):
        raise UserError(
            f"hydra.launcher.ranks={ranks} must be at most {len(gpus)}, the number of GPUs here: each "
            "rank of a job needs one to itself"
        )
    turns = [gpus[i % len(gpus)] for i in range(workers * ranks)]
    return [",".join(turns[i * ranks : (i + 1) * ranks]) for i in range(workers)]


def available_gpus(environment: Mapping[str, str]) -> list[str]:
    """The ids of this process's GPUs, as CUDA_VISIBLE_DEVICES has them where it is set.

    As CUDA reads it, what follows a word that is no GPU's id does not count: `0,-1,1` is one GPU.
    """
    visible = environment.get(VISIBLE)
    if visible is None:
        return [str(i) for i in range(_count())]
    words = (word.strip() for word in visible.split(","))
    return list(takewhile(GPU_ID.fullmatch, words))


def _count() -> int:
    """How many GPUs this machine has: by nvidia-smi, else by what the driver shows."""
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=PATIENCE_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return len(list(PROC.iterdir())) if PROC.is_dir() else 0
    return len(re.findall(r"^GPU \d+:", listed.stdout, re.M))
