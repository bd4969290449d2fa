"""Clocks: contenders in turns, the machine's own limits, and tables."""

from __future__ import annotations

import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from benchmarks.contender import Contender, Spec

WARM_UP_STEPS = 2  # the first compiles, allocates and makes the optimizer's state


@dataclass(frozen=True)
class Result:
    """One contender's speed; `step_s` is the median over its steps, `working_bytes` the peak."""

    spec: Spec
    facts: dict[str, Any]
    step_s: float
    working_bytes: int

    @property
    def tokens_per_s(self) -> float:
        return self.facts["tokens_per_step"] / self.step_s

    @property
    def flops_per_s(self) -> float:
        """Floating-point operations of the model's products a second; the optimizer's do not count."""
        return self.tokens_per_s * self.facts["flops_per_token"]

    def as_dict(self) -> dict[str, Any]:
        return {
            "kind": self.spec.kind,
            "settings": self.spec.settings,
            "keeps_memory": self.spec.keeps_memory,
            "kernels": self.spec.kernels,
            "overrides": list(self.spec.overrides),
            **self.facts,
            "step_s": self.step_s,
            "tokens_per_s": self.tokens_per_s,
            "working_bytes": self.working_bytes,
        }


def race(specs: Sequence[Spec], rounds: int, steps: int = 1) -> list[Result]:
    """Let the contenders take turns of `steps` steps, `rounds` times: one load hits all alike."""
    with ExitStack() as stack:
        contenders = [stack.enter_context(Contender(spec)) for spec in specs]
        for contender in contenders:
            contender.steps(WARM_UP_STEPS)
        times: list[list[float]] = [[] for _ in contenders]
        for _ in range(rounds):
            for contender, own in zip(contenders, times, strict=True):
                own += contender.steps(steps)
        return [
            Result(c.spec, c.facts, statistics.median(own), c.working_bytes())
            for c, own in zip(contenders, times, strict=True)
        ]


class Progress:
    """Says on stderr what is measured next, and how long all of it will still take.

    `expected_s` is a guess at the whole, and each `begin` has the guess at its part. What is left of
    the guess is taken at the pace so far, measured seconds a guessed one; so that a short first part
    does not decide it, a tenth of the whole counts as measured and as guessed beforehand.
    """

    def __init__(self, expected_s: float) -> None:
        self.expected_s, self._begun_s = expected_s, 0.0
        self._start = time.monotonic()

    def begin(self, what: str, expected_s: float) -> None:
        """A part begins, and the one before has ended."""
        gone_s = time.monotonic() - self._start
        tenth_s = 0.1 * self.expected_s
        pace = (gone_s + tenth_s) / (self._begun_s + tenth_s)
        left_s = pace * max(self.expected_s - self._begun_s, expected_s)
        print(
            f"[{_minutes(gone_s)} gone, about {_minutes(left_s)} left] {what}",
            file=sys.stderr,
            flush=True,
        )
        self._begun_s += expected_s


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def expected_s(spec: Spec) -> float:
    """A guess at how long a contender takes to start and to step a little, for `Progress`."""
    return 60.0 if spec.compiled else 12.0


def median_time(function: Callable[[], object], repeats: int, device: str = "cpu") -> float:
    """Median seconds of a call, after one that does not count."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        function()
        if device == "cuda":
            import torch

            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def matrix_peak(device: str, dtype: str, size: int = 4096, repeats: int = 5) -> float:
    """FLOP/s of one large square matrix product: what the machine gives, not what its maker says."""
    import torch

    a, b = (torch.randn(size, size, device=device, dtype=getattr(torch, dtype)) for _ in range(2))
    return 2 * size**3 / median_time(lambda: a @ b, repeats, device)


def memory_bandwidth(device: str, n_bytes: int = 2**30, repeats: int = 5) -> float:
    """Bytes a second, read and written, of copying a large tensor."""
    import torch

    source = torch.zeros(n_bytes // 4, device=device)
    target = torch.empty_like(source)
    return 2 * n_bytes / median_time(lambda: target.copy_(source), repeats, device)


def machine(device: str) -> dict[str, Any]:
    """Where the figures come from."""
    import torch

    name = torch.cuda.get_device_name() if device == "cuda" else _processor()
    return {
        "device": device,
        "name": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            models = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        models = []
    return models[0] if models else platform.machine()


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its columns lined up."""
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    rule = ["-" * width for width in widths]
    lines = [header, rule, *rows]
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    )
