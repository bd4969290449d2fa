"""Independent random streams: every draw has its own (seed, purpose, step)."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def stream_seed(seed: int, purpose: str, step: int = 0) -> int:
    """The 63-bit seed of one random stream.

    The first 63 bits of SHA-256("seed/purpose/step"). Two purposes, or two steps, never share a
    stream, so a draw added to one changes no other; and a stream is a function of its three
    names, so a checkpoint has no generator state to keep.

    `purpose` is a name such as `batches` or `dropout`; `step` counts optimizer updates. 63 bits,
    because that is what `torch.manual_seed` and a signed 64-bit integer hold.
    """
    digest = sha256(f"{seed}/{purpose}/{step}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, purpose: str, step: int = 0) -> torch.Generator:
    """A generator on the CPU at the start of one random stream."""
    import torch

    return torch.Generator().manual_seed(stream_seed(seed, purpose, step))
