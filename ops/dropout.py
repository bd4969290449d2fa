"""Standard dropout, with noise that a CPU makes about as fast as it multiplies."""

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 2**16


def dropout(x: Tensor, p: float) -> Tensor:
    """x / (1 - p) with probability 1 - p, else 0, independently for each element; p in [0, 1].

    What `F.dropout` does. But in eager mode on a CPU that draws one number an element on one thread,
    at several times the cost of the attention around it; here each 64-bit draw serves four elements,
    and the rate is the nearest of 65,536 steps to `p`.
    """
    n_dropped = round(p * LEVELS)
    if n_dropped == 0:
        return x
    if n_dropped == LEVELS or x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(x, p)
    count = x.numel()
    draws = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    noise = draws.view(torch.int16)[:count].view(x.shape)
    kept = noise.ge_(n_dropped - LEVELS // 2)  # stays int16: torch is slow to make numbers of bools
    return x * kept.to(x.dtype).mul_(1 / (1 - p))
