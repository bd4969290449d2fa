"""Which windows a step trains on: a pure function of (seed, step), chosen by `sampling`.

A sampler is made of the training split's `Batches`, and its windows are what `Batches.gather`
takes, so a step cuts them into micro-batches as it likes.
"""

from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from common.streams import stream_seed
from data.batches import Batches


class Sampler(Protocol):
    """What a training step asks."""

    def windows(self, n_windows: int, seed: int, step: int) -> Tensor:
        """The `n_windows` windows of step 1, 2, ...: (n_windows,) or (n_windows, block_size + 1)."""
        ...


class Replacement:
    """Windows at uniform positions, drawn anew for every step: none is promised to come up."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def windows(self, n_windows: int, seed: int, step: int) -> Tensor:
        return self.batches.window_starts(n_windows, seed, "train", step)


class Epochs:
    """Every window once an epoch, over the documents in a new order each time.

    Epoch e lays the documents one behind the other in the order of a permutation drawn from
    (seed, "documents", e), cuts that stream every block_size tokens, and takes the windows in the
    order of a second permutation:

        window w of the epoch = stream[w block_size : (w + 1) block_size + 1]
        w = 0 ... (n_tokens - 1) // block_size - 1

    The tokens behind the last whole window are left out, other ones in each epoch. A split that
    is one document is cut in two at a random token and its halves are exchanged, which moves the
    windows' grid. Step k of n windows has the windows (k - 1) n ... k n - 1 of the epochs' windows
    counted on, so a step may lie in two epochs. Nothing is remembered from one step to the next but
    the permutations of the last two epochs, which are made again where they are wanted.
    """

    def __init__(self, batches: Batches) -> None:
        self.batches = batches
        self.n_windows = batches.n_disjoint
        self._starts = batches.document_starts()
        self._order = lru_cache(maxsize=2)(self._draw_order)

    def windows(self, n_windows: int, seed: int, step: int) -> Tensor:
        """Positions of all tokens of the step's windows: (n_windows, block_size + 1) int64."""
        block_size, device = self.batches.block_size, self.batches.device
        epochs, counts = np.divmod(
            np.arange((step - 1) * n_windows, step * n_windows), self.n_windows
        )
        parts = []
        for epoch in range(epochs[0], epochs[-1] + 1):
            order = self._order(seed, epoch)
            first = order.windows[counts[epochs == epoch]] * block_size
            parts.append(order.positions(first[:, None] + np.arange(block_size + 1)))
        return torch.from_numpy(np.concatenate(parts)).to(device, non_blocking=True)

    def _draw_order(self, seed: int, epoch: int) -> "Order":
        generator = np.random.Generator(np.random.Philox(stream_seed(seed, "documents", epoch)))
        starts, n_tokens = self._starts, self.batches.n_tokens
        if len(starts) == 1:
            starts = np.array([0, generator.integers(1, n_tokens)])
            documents = np.array([1, 0])
        else:
            documents = generator.permutation(len(starts))
        lengths = np.diff(starts, append=n_tokens)[documents]
        return Order(
            windows=generator.permutation(self.n_windows),
            shift=starts[documents] - (lengths.cumsum() - lengths),
            ends=lengths.cumsum(),
        )


class Order(NamedTuple):
    """One epoch's orders.

    Attributes:
        windows: (n_windows,) the windows of the stream in the order of training.
        ends: (n_documents,) where in the stream each document ends, in the stream's order.
        shift: (n_documents,) position in the split minus position in the stream.
    """

    windows: np.ndarray
    shift: np.ndarray
    ends: np.ndarray

    def positions(self, places: np.ndarray) -> np.ndarray:
        """Positions in the split of these places of the stream."""
        return places + self.shift[np.searchsorted(self.ends, places, side="right")]
