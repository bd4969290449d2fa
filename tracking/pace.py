"""How fast a run trains."""

import contextlib
import time
from collections.abc import Iterator

import torch

from training.state import TrainState


class Pace:
    """Counts training time alone; used as `with pace.paused():` around all else.

    A process's first step, which may compile or warm up, is not counted.
    """

    def __init__(self, state: TrainState) -> None:
        self._state = state
        self._first_step: int | None = None
        self._began = time.perf_counter()

    def step_done(self) -> None:
        if self._first_step is None:
            self._first_step = self._state.progress.step
            self._began = self._now()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        stopped = self._now()
        yield
        self._began += self._now() - stopped

    def metrics(self) -> dict[str, float]:
        """`tokens`, `epoch` and `memory_bytes` so far, `tokens_per_s` since this process began."""
        state, step = self._state, self._state.progress.step
        tokens_per_step = state.cfg.batch_size * state.cfg.model.block_size
        metrics: dict[str, float] = {
            "tokens": step * tokens_per_step,
            "epoch": step * tokens_per_step / state.data.n_tokens("train"),
            "memory_bytes": state.machine.peak_memory_bytes(),
        }
        if self._first_step is not None and step > self._first_step:
            elapsed = self._now() - self._began
            metrics["tokens_per_s"] = (step - self._first_step) * tokens_per_step / elapsed
        return metrics

    def _now(self) -> float:
        if self._state.machine.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()
