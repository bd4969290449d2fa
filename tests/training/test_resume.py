"""Stopped at any step and resumed, a run has the same bits at its end."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tracking.checkpoint import read_checkpoint, save_checkpoint
from training.evaluate import evaluate
from training.state import TrainState
from training.step import train_step

Build = Callable[..., TrainState]
PRESETS = sorted(p.stem for p in (Path(__file__).parents[2] / "configs/dropout").glob("*.yaml"))
STEPS = 6


def take_steps(state: TrainState) -> list[dict[str, float]]:
    """Train to STEPS; the metrics of each step, the closing evaluation last."""
    lines = []
    while state.progress.step < STEPS:
        lines.append({name: float(value) for name, value in train_step(state).items()})
    return [*lines, evaluate(state)]


def check_every_step(build: Build, directory: Path, *overrides: str) -> None:
    whole = build(*overrides)
    save_checkpoint(directory / "0", "last", whole)
    expected = []
    for step in range(1, STEPS + 1):
        expected.append({name: float(value) for name, value in train_step(whole).items()})
        save_checkpoint(directory / str(step), "last", whole)
    expected.append(evaluate(whole))
    for step in range(STEPS + 1):
        resumed = build(*overrides)
        resumed.load(read_checkpoint(directory / str(step) / f"last-{step:08d}"))
        assert take_steps(resumed) == expected[step:], f"resumed at step {step}"
        tensors = resumed.tensors()
        assert tensors.keys() == whole.tensors().keys()
        for name, tensor in whole.tensors().items():
            assert torch.equal(tensors[name], tensor), f"{name}, resumed at step {step}"


def test_resumed_at_every_step(tiny_state: Build, tmp_path: Path) -> None:
    """Learned dropout, stochastic rounding, two micro-batches; masks that are half ones."""
    check_every_step(tiny_state, tmp_path, "dropout=learned", "dropout.shift_init=1.5")


def test_averaged_weights_and_muon_resumed_at_every_step(tiny_state: Build, tmp_path: Path) -> None:
    options = ("ema_decay=0.9", "optimizer=muon", "decay_schedule=ramp", "schedule=linear")
    check_every_step(tiny_state, tmp_path, "dropout=none", *options)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_resumed_at_every_step(
    tiny_state: Build, tmp_path: Path, preset: str, dtype: str
) -> None:
    selu = ["model.activation=selu"] if preset in ("alpha", "feature_alpha") else []
    check_every_step(tiny_state, tmp_path, f"dropout={preset}", f"dtype={dtype}", *selu)


@pytest.mark.soak
def test_compiled_and_resumed_at_every_step(tiny_state: Build, tmp_path: Path) -> None:
    check_every_step(tiny_state, tmp_path, "dropout=learned", "compile=true")
