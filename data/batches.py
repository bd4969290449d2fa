"""Windows of tokens: batch = f(seed, step), so there is no reader's position to save or lose."""

import numpy as np
import torch
from torch import Tensor

from common.errors import UserError
from common.streams import stream_seed


class Batches:
    """Windows of one split, gathered on the device.

    A window is `block_size` tokens and, shifted by one, their targets. On a GPU the whole split
    lives in its memory (2 or 4 bytes a token), so that a batch costs one small copy of the windows'
    positions; on a CPU the file stays mapped from disk and nothing is read before it is needed.

    Args:
        tokens: (n_tokens,) uint16 or uint32, a split of `data.prepare.TokenData`.
        block_size: inputs per window; at least one token more must be there for the last target.
        device: where `gather` puts the batch.
        end_of_text: the token that ends every document; None where the split is one document.

    Raises:
        ValueError: the split is shorter than one window.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        block_size: int,
        device: torch.device | str = "cpu",
        end_of_text: int | None = None,
    ):
        if tokens.size < block_size + 1:
            raise UserError(
                f"block_size={block_size} needs {block_size + 1} tokens and the split has "
                f"{tokens.size}: use more text or a smaller model.block_size"
            )
        self.block_size = block_size
        self.device = torch.device(device)
        self.n_tokens = tokens.size
        self.n_starts = tokens.size - block_size
        # torch indexes signed integers on every device and unsigned ones only on some; gather()
        # takes the sign away again.
        signed = {2: np.int16, 4: np.int32}[tokens.itemsize]
        self._mask = (1 << 8 * tokens.itemsize) - 1
        self._tokens = torch.from_numpy(tokens.view(signed)).to(self.device)
        self._offsets = torch.arange(block_size + 1, device=self.device)
        self._host_tokens, self._end_of_text = tokens, end_of_text

    @property
    def n_disjoint(self) -> int:
        """How many windows there are that share no target."""
        return (self.n_tokens - 1) // self.block_size

    @property
    def n_tail(self) -> int:
        """Tokens at the end of the split that fill no window: `disjoint_starts` leaves them out."""
        return self.n_tokens - 1 - self.n_disjoint * self.block_size

    def disjoint_starts(self, limit: int | None = None) -> Tensor:
        """Positions of windows side by side, every target in one of them: (n,) int64 on the device.

            start_i = i block_size    for i = 0 ... (n_tokens - 1) // block_size - 1

        Where there are more than `limit` of them, that many, spread evenly: i = floor(j n / limit)
        for j = 0 ... limit - 1. Nothing is drawn: all callers get the same windows. The last
        `n_tail` tokens of the split, fewer than block_size, fill no window and are left out; the
        first token is never a target.
        """
        if limit is not None and limit < 1:
            raise UserError(f"windows={limit} must be at least 1")
        chosen = evenly_spread(self.n_disjoint, limit or self.n_disjoint)
        return (chosen * self.block_size).to(self.device)

    def window_starts(self, n_windows: int, seed: int, purpose: str, step: int = 0) -> Tensor:
        """Positions of the first tokens of `n_windows` windows: (n_windows,) int64 on the device.

        Uniform over all positions, with replacement; a pure function of its arguments. Draw a
        whole step's windows at once and cut them into micro-batches afterwards: then how they
        are cut changes no batch.
        """
        generator = np.random.Generator(np.random.Philox(stream_seed(seed, purpose, step)))
        starts = torch.from_numpy(generator.integers(self.n_starts, size=n_windows))
        return starts.to(self.device, non_blocking=True)

    def gather(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and targets of `windows`, each (n, block_size) int64.

        targets[i, t] = inputs[i, t + 1], and for the last t the token after the window.

        Args:
            windows: (n,) the windows' first positions, or (n, block_size + 1) all of them, where
                a window is made of several pieces of the split.
        """
        positions = windows if windows.ndim == 2 else windows[:, None] + self._offsets
        tokens = self._tokens[positions].long() & self._mask
        return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def document_starts(self) -> np.ndarray:
        """Positions of the first token of each document: (n_documents,) int64, in order.

        A document ends with the end-of-text token, the last one with the split; where there is no
        such token the whole split is one.
        """
        if self._end_of_text is None:
            return np.zeros(1, dtype=np.int64)
        after = np.flatnonzero(self._host_tokens == self._end_of_text) + 1
        return np.concatenate([[0], after[after < self.n_tokens]])


def evenly_spread(n: int, limit: int) -> Tensor:
    """At most `limit` of 0 ... n - 1, each once and at equal distances: (min(n, limit),) int64."""
    count = min(n, limit)
    return torch.arange(count) * n // max(count, 1)
