"""Resume: stopped at any step, a run ends with the same bits."""

from collections.abc import Callable
from math import nan
from pathlib import Path

import pytest
import torch

from tracking.checkpoint import latest_checkpoint, save_checkpoint
from training.evaluate import evaluate
from training.state import Progress, TrainState
from training.step import train_step

Build = Callable[..., TrainState]
PRESETS = sorted(p.stem for p in (Path(__file__).parents[2] / "configs/dropout").glob("*.yaml"))


def overrides(preset: str) -> list[str]:
    alpha = preset in ("alpha", "feature_alpha")
    return [f"dropout={preset}"] + (["model.activation=selu"] if alpha else [])


def run(state: TrainState, steps: int) -> list[dict[str, float]]:
    return [{k: float(v) for k, v in train_step(state).items()} for _ in range(steps)]


@pytest.mark.parametrize("preset", PRESETS)
def test_ten_steps_are_five_a_resume_and_five(
    tiny_state: Build, tmp_path: Path, preset: str
) -> None:
    """With accumulation; bit for bit: weights, moments, every later metric."""
    whole = tiny_state(*overrides(preset))
    metrics = run(whole, 10)
    first = tiny_state(*overrides(preset))
    run(first, 5)
    save_checkpoint(tmp_path, "last", first)
    second = tiny_state(*overrides(preset))
    second.load(latest_checkpoint(tmp_path))
    assert run(second, 5) == metrics[5:]
    a, b = whole.tensors(), second.tensors()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert evaluate(whole) == evaluate(second)


def test_the_best_is_the_first_lowest() -> None:
    progress = Progress()
    seen = []
    for progress.step, loss in enumerate([nan, 3.0, 2.5, 2.5, nan, 2.4]):
        seen.append(progress.is_best(loss))
    assert seen == [False, True, True, False, False, True]
    assert (progress.best_step, progress.best_val_loss_nats) == (5, 2.4)


def test_another_models_weights_are_refused(tiny_state: Build, tmp_path: Path) -> None:
    state = tiny_state("dropout=learned")
    save_checkpoint(tmp_path, "last", state)
    with pytest.raises(ValueError, match="these weights are of another model"):
        tiny_state("dropout=none").load(latest_checkpoint(tmp_path))
