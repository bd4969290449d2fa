"""Rotary positions."""

import torch
from torch import Tensor


def rotate(x: Tensor, base: float = 10000.0) -> Tensor:
    """Turns each pair of channels by an angle that grows with its position (Su et al. 2021).

    `x` (..., T, n_head, size), queries or keys. Channels i and i + size // 2 are a pair, as a complex
    number, and at position t it is multiplied by exp(i t base^(-i / (size // 2))): the product of a
    query and a key then depends on the distance of their positions alone. Of an odd size the last
    channel stays as it is. Angles are in float32 at least.
    """
    half = x.shape[-1] // 2
    dtype = torch.promote_types(x.dtype, torch.float32)
    positions = torch.arange(x.shape[-3], dtype=dtype, device=x.device)
    channels = torch.arange(half, dtype=dtype, device=x.device)
    angles = (positions[:, None] * base ** (-channels / half))[:, None]  # (T, 1, half)
    cos, sin = angles.cos(), angles.sin()
    real, imaginary, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    turned = (real * cos - imaginary * sin, real * sin + imaginary * cos, rest)
    return torch.cat([part.to(x.dtype) for part in turned], -1)
