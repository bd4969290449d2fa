"""Every config composes; every row of every table takes two steps; each preset's golden first step."""

import json

import pytest
import torch

from tests.golden import CONFIGS, FILE, PRESETS, TINY, composed, first_step
from training.state import TrainState, build_model
from training.step import train_step


def names(folder: str) -> list[str]:
    root = CONFIGS / folder
    return sorted(str(p.relative_to(root).with_suffix("")) for p in root.rglob("*.yaml"))


ROWS = [row for row in names("row") if not row.startswith("adapters/")]


@pytest.mark.parametrize("scale", names("scale"))
@pytest.mark.parametrize("dropout", ["none", "standard", "learned", "learned_precomputed"])
def test_every_scale_composes_and_builds(scale: str, dropout: str) -> None:
    with torch.device("meta"):
        cfg = composed(f"scale={scale}", f"dropout={dropout}", "model.n_layer=1")
        assert cfg.row_name == dropout
        if scale != "gpt2":
            build_model(cfg)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (("dropout=standard",), 15_441_192),
        (("dropout=learned",), 15_335_424),
        (("dropout=learned_precomputed",), 15_418_368),
    ],
)
def test_the_published_scale_has_the_published_sizes(monkeypatch, options, count) -> None:
    monkeypatch.setattr("training.state.init_weights", lambda *args: None)
    with torch.device("meta"):
        assert build_model(composed("scale=published", *options)).n_parameters() == count


@pytest.mark.parametrize("scale", ["nano", "small"])
def test_the_matched_row_has_learned_dropouts_parameters(scale: str) -> None:
    counts = [
        build_model(composed(f"scale={scale}", f"row=published/{row}")).n_parameters()
        for row in ("learned", "none_matched")
    ]
    assert counts[1] == pytest.approx(counts[0], rel=1e-3)


@pytest.mark.parametrize("row", ROWS)
def test_every_row_takes_two_steps(row: str) -> None:
    state = TrainState.build(composed(f"row={row}", *TINY))
    losses = [float(train_step(state)["train/batch_loss_nats"]) for _ in range(2)]
    assert all(6 < loss < 8 for loss in losses)  # ln 1024 = 6.93


@pytest.mark.parametrize("preset", PRESETS)
def test_the_first_step_gives_the_golden_numbers(preset: str) -> None:
    golden = json.loads(FILE.read_text(encoding="utf-8"))
    assert first_step(preset) == pytest.approx(golden[preset], rel=2e-4)
