"""Faults planted in a run's own process, before it starts."""

import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import tracking.checkpoint
import training.evaluate
import training.sample
import training.step
from common import files
from training.state import TrainState

PHASES: dict[str, tuple[Any, str]] = {
    "step": (training.step, "train_step"),
    "evaluation": (training.evaluate, "evaluate"),
    "saving": (tracking.checkpoint, "save_checkpoint"),
    "sampling": (training.sample, "sample_text"),
}


def around(phase: str, before: Callable[[int, Any], None]) -> None:
    """Call `before(n, state)` at the beginning of the phase's n-th time, from 1."""
    holder, name = PHASES[phase]
    original, count = getattr(holder, name), 0

    def wrapped(state: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        before(count, state)
        return original(state, *arguments, **options)

    setattr(holder, name, wrapped)


def note_phases(path: str) -> None:
    """Keep the name of the phase that the run is in at the beginning of a file."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT)

    def note(phase: str) -> None:
        os.pwrite(file, f"{phase:10}".encode(), 0)

    note("starting")
    for phase in PHASES:
        around(phase, lambda n, state, phase=phase: note(phase))  # type: ignore[misc]


def send_signal(phase: str, nth: int, *names: str) -> None:
    """The run gets these signals, one after another, as it begins its nth step, evaluation, ..."""

    def before(n: int, state: Any) -> None:
        if n == nth:
            for name in names:
                os.kill(os.getpid(), signal.Signals[name])

    around(phase, before)


def own_handler(name: str, runs_dir: str, code: int) -> None:
    """Somebody's handler of a signal, set before the run's: it tells what is there, and exits."""

    def handle(number: int, frame: Any) -> None:
        (record,) = Path(runs_dir).glob("*/*/*/record.json")
        status = json.loads(record.read_text())["status"]
        saved = tracking.checkpoint.latest_checkpoint(record.parent / "checkpoints")
        step = None if saved is None else saved.facts["progress"]["step"]
        print(f"handed on: {name}, {status}, saved at step {step}")
        sys.exit(code)

    signal.signal(signal.Signals[name], handle)


def kill_in_files(nth: int) -> None:
    """SIGKILL before the nth write, fsync, rename or removal."""
    count = 0

    def hook(operation: str, path: Path) -> None:
        nonlocal count
        count += 1
        if count == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    files.fault_hook = hook


def spoil_gradient(nth: int, parameter: str, value: float) -> None:
    """One element of one parameter's gradient becomes `value` in the nth step."""

    def spoil(gradient: torch.Tensor) -> torch.Tensor:
        gradient = gradient.clone()
        gradient.view(-1)[0] = value
        return gradient

    def before(n: int, state: TrainState) -> None:
        if n == nth:
            dict(state.model.named_parameters())[parameter].register_hook(spoil)

    around("step", before)


def spoil_weight(nth: int, parameter: str, value: float) -> None:
    """One weight becomes `value` before the nth step: the loss is not finite then."""

    def before(n: int, state: TrainState) -> None:
        if n == nth:
            weight = dict(state.model.named_parameters())[parameter]
            weight.data.view(-1)[0] = value

    around("step", before)


def run_out_of_memory(nth: int) -> None:
    """From the nth step on the process may take no more memory, and a step asks for 256 MiB."""

    def before(n: int, state: TrainState) -> None:
        if n >= nth:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + 2**20
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            torch.empty(2**26)

    around("step", before)


def limit_file_size(phase: str, nth: int, n_bytes: int) -> None:
    """From the phase's nth time on no file may grow beyond `n_bytes`: as on a disk that is full."""

    def before(n: int, state: Any) -> None:
        if n == nth:
            resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))

    around(phase, before)
