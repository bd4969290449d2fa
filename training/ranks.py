"""The processes that share the work of a run: one, or those that torchrun started.

Every rank holds the whole state and takes every step of it. Of a step each computes a contiguous part
of the micro-batches, whose noise is a function of their place in the step; the gradients are added up,
and all go on from the same sum. Two ranks of one micro-batch each equal one rank of two bit for bit;
with more to add, sums differ in their last places.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from common.errors import LostRankError, UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process's place, `rank` of `size`; alone without torchrun, where nothing here waits."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that opens, writes, tracks and prints."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[tuple[int, T]]:
        """This rank's contiguous part of the items, each with its place among all."""
        begin, end = (len(items) * rank // self.size for rank in (self.rank, self.rank + 1))
        return [(index, items[index]) for index in range(begin, end)]

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the ranks, in one exchange.

        One flat sum after a step's last micro-batch, and not DistributedDataParallel: parameters
        without a gradient need no care, nothing is averaged that has to be scaled back, and with
        several micro-batches there is little to overlap.
        """
        if self.size == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        with _others_alive():
            dist.all_reduce(flat)
        parts = flat.split([tensor.numel() for tensor in tensors])
        torch._foreach_copy_(
            list(tensors), [p.view_as(t) for p, t in zip(parts, tensors, strict=True)]
        )

    def gather(self, items: list[T]) -> list[T]:
        """The items of all ranks, in the order of ranks: what `share` had given out, in its order."""
        if self.size == 1:
            return items
        found: list[Any] = [None] * self.size
        with _others_alive():
            dist.all_gather_object(found, items)
        return [item for part in found for item in part]

    def any(self, flag: bool) -> bool:
        """Whether any rank says so. By the processors: no device is waited for."""
        if self.size == 1:
            return flag
        said = torch.tensor(int(flag))
        with _others_alive():
            dist.all_reduce(said, dist.ReduceOp.MAX)
        return bool(said)

    def from_first(self, make: Callable[[], T]) -> T:
        """What the first rank makes; the others get a copy of it."""
        if self.size == 1:
            return make()
        made = [make() if self.is_first else None]
        with _others_alive():
            dist.broadcast_object_list(made, src=0)
        return made[0]  # type: ignore[return-value]

    def first_alone(self, make: Callable[[], T]) -> T:
        """What each rank makes; the first one before the others, who then find the work done."""
        if not self.is_first:
            self.meet()
        made = make()
        if self.is_first:
            self.meet()
        return made

    def meet(self) -> None:
        """Wait until every rank is here."""
        self.any(False)

    @contextlib.contextmanager
    def leaving_together(self) -> Iterator[None]:
        """No rank leaves before the others are done: torchrun ends all where one has left.

        Not so where one fails: then the others are to end.
        """
        try:
            yield
        except SystemExit:  # interrupted, all of them, after a checkpoint
            self._part()
            raise
        self._part()

    def _part(self) -> None:
        if self.size > 1:
            self.meet()
            dist.destroy_process_group()


def check_shares(ranks: int, batch_size: int, micro_batch_size: int) -> None:
    """Raise UserError where the micro-batches of a step are no multiple of the ranks."""
    n = batch_size // micro_batch_size
    if n % ranks == 0:
        return
    if batch_size % ranks:
        raise UserError(
            f"batch_size={batch_size} cannot be shared out to {ranks} ranks: it must be a multiple"
        )
    most = min(micro_batch_size, batch_size // ranks)
    fits = next(m for m in range(most, 0, -1) if batch_size % (m * ranks) == 0)
    raise UserError(
        f"micro_batch_size={micro_batch_size} makes {n} micro-batches of batch_size={batch_size}, "
        f"which {ranks} ranks cannot share evenly: micro_batch_size={fits} would do"
    )


ALONE = Ranks()


@contextlib.contextmanager
def _others_alive() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # gloo's and nccl's word for a connection that ended
        raise LostRankError(
            "another rank of this run has ended, for a reason that it says itself; the same command "
            "goes on from the last checkpoint"
        ) from error
