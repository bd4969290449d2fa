"""Windows of tokens: batch = f(seed, step), so there is no reader's position to save or lose."""

import numpy as np
import torch
from torch import Tensor

from common.errors import UserError
from common.streams import stream_seed


class Batches:
    """Random windows of one split, drawn with replacement and gathered on the device.

    A window is `block_size` tokens and, shifted by one, their targets. On a GPU the whole split
    lives in its memory (2 bytes a token), so that a batch costs one small copy of the windows'
    positions; on a CPU the file stays mapped from disk and nothing is read before it is needed.

    Args:
        tokens: (n_tokens,) uint16, a split of `data.prepare.TokenData`.
        block_size: inputs per window; at least one token more must be there for the last target.
        device: where `gather` puts the batch.

    Raises:
        ValueError: the split is shorter than one window.
    """

    def __init__(self, tokens: np.ndarray, block_size: int, device: torch.device | str = "cpu"):
        if tokens.size < block_size + 1:
            raise UserError(
                f"block_size={block_size} needs {block_size + 1} tokens and the split has "
                f"{tokens.size}: use more text or a smaller model.block_size"
            )
        self.block_size = block_size
        self.device = torch.device(device)
        self.n_starts = tokens.size - block_size
        # torch indexes int16 on every device and uint16 only on some; gather() restores the sign.
        self._tokens = torch.from_numpy(tokens.view(np.int16)).to(self.device)
        self._offsets = torch.arange(block_size + 1, device=self.device)

    def window_starts(self, n_windows: int, seed: int, purpose: str, step: int = 0) -> Tensor:
        """Positions of the first tokens of `n_windows` windows: (n_windows,) int64 on the device.

        Uniform over all positions, with replacement; a pure function of its arguments. Draw a
        whole step's windows at once and cut them into micro-batches afterwards: then how they
        are cut changes no batch.
        """
        generator = np.random.Generator(np.random.Philox(stream_seed(seed, purpose, step)))
        starts = torch.from_numpy(generator.integers(self.n_starts, size=n_windows))
        return starts.to(self.device, non_blocking=True)

    def disjoint_starts(self, limit: int | None = None) -> Tensor:
        """Positions of every window that overlaps no other: (windows,) int64 on the device."""
        count = self.n_starts_disjoint
        starts = torch.arange(count) if limit is None else evenly_spread(count, limit)
        return (starts * self.block_size).to(self.device)

    @property
    def n_starts_disjoint(self) -> int:
        return (self.n_starts + self.block_size - 1) // self.block_size

    def gather(self, starts: Tensor) -> tuple[Tensor, Tensor]:
        """The windows at `starts` (n,): inputs and targets, each (n, block_size) int64.

        targets[i, t] = inputs[i, t + 1], and for the last t the token after the window.
        """
        windows = self._tokens[starts[:, None] + self._offsets].long() & 0xFFFF
        return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()


def evenly_spread(count: int, limit: int) -> Tensor:
    """At most `limit` of 0 .. count - 1, each once and at equal distances: (n,) int64."""
    n = min(count, limit)
    return torch.arange(n) * count // n
