"""Random zeros and ones, made on a CPU about as fast as they are used."""

import torch
from torch import Tensor

from ops import native


def bernoulli(probability: Tensor) -> Tensor:
    """1 with the given probability in [0, 1], else 0, each element by itself; without a gradient.

    N < probability with N ~ Uniform[0, 1): 0 is never drawn at 1, nor 1 at 0. On a CPU in float32 the
    noise is a hash of the element's place and one number from torch's generator, where torch's own
    would draw one number an element on one thread (`kernels/bernoulli.cpp`).
    """
    probability = probability.detach()
    if probability.dtype == torch.float32 and native.usable(probability):
        probability = probability.contiguous()
        out = torch.empty_like(probability)
        draw = native.function("bernoulli", torch.float32)
        draw(probability.data_ptr(), out.data_ptr(), out.numel(), native.draw_seed())
        return out
    # In place: turning bools into numbers costs a CPU more than the comparison.
    return torch.rand_like(probability).lt_(probability)
