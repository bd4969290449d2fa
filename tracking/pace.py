"""How fast a run trains."""

import contextlib
import time
from collections.abc import Iterator
from datetime import timedelta

import torch

from training.evaluate import Extent, window_starts
from training.state import TrainState

SURE_S, SURE_STEPS = 5.0, 20  # whichever comes first: enough to tell how long the rest will take


class Pace:
    """Counts training time alone; used as `with pace.paused():` around all else.

    A process's first step, which may compile or warm up, is not counted.
    """

    def __init__(self, state: TrainState) -> None:
        self._state = state
        self._first_step: int | None = None
        self._began = time.perf_counter()
        self._longest_pause_s = 0.0
        self._told = False

    def step_done(self) -> None:
        if self._first_step is None:
            self._first_step = self._state.progress.step
            self._began = self._now()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        stopped = self._now()
        yield
        pause = self._now() - stopped
        self._began += pause
        self._longest_pause_s = max(self._longest_pause_s, pause)

    def forecast(self) -> str | None:
        """What the rest will take, said once, when it can be known from the first steps; else None."""
        step = self._state.progress.step
        if self._told or self._first_step is None or step == self._first_step:
            return None
        elapsed, counted = self._now() - self._began, step - self._first_step
        if elapsed < SURE_S and counted < SURE_STEPS:
            return None
        self._told = True
        cfg = self._state.cfg
        left = cfg.steps - step
        pauses = left // cfg.eval_every + 1 + 2 * self._closing_share()  # of the last, of the best
        seconds = left * elapsed / counted + pauses * self._longest_pause_s
        return f"about {timedelta(seconds=round(seconds))} to go for {left:,} steps"

    def _closing_share(self) -> float:
        """How many of the curve's evaluations a closing one is, by its windows."""
        return self._windows("closing") / self._windows("curve")

    def _windows(self, extent: Extent) -> int:
        return sum(len(window_starts(self._state, split, extent)) for split in ("train", "val"))

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
