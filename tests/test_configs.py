"""Every config composes; every row of every table takes two steps; each preset's golden first step."""

import json

import pytest
import torch

from tests.golden import CONFIGS, FILE, TINY, composed, first_step
from training.state import TrainState, build_model
from training.step import train_step


def names(folder: str) -> list[str]:
    root = CONFIGS / folder
    return sorted(str(p.relative_to(root).with_suffix("")) for p in root.rglob("*.yaml"))


ROWS = [row for row in names("row") if not row.startswith("adapters/")]
# They choose a preset and a rate, and the presets are trained in tests/dropout.
OF_PRESETS = ("corpora", "family", "placement", "rivals", "surface")


PRESETS = ("none", "standard", "learned", "learned_precomputed")


@pytest.mark.parametrize(
    ("scale", "dropout"),
    [(s, preset) for s in names("scale") if not s.startswith("surface_") for preset in PRESETS],
)
def test_every_scale_composes_and_builds(scale: str, dropout: str) -> None:
    with torch.device("meta"):
        cfg = composed(f"scale={scale}", f"dropout={dropout}", "model.n_layer=1")
        assert cfg.row_name == dropout
        if not scale.startswith("gpt2"):
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


@pytest.mark.parametrize("size", ["0.2m", "0.9m", "2.9m"])
@pytest.mark.parametrize("text", ["41k", "123k", "400k"])
def test_a_cell_of_the_surface_is_what_its_name_says(size: str, text: str) -> None:
    cfg = composed(f"scale=surface_{size}_{text}", "dropout=none")
    count = build_model(cfg).n_parameters()
    assert f"{count / 1e6:.1f}m" == size
    assert f"{round(cfg.data.max_train_tokens, -3) // 1000}k".replace("399k", "400k") == text
    assert cfg.steps * cfg.batch_size * cfg.model.block_size == 40 * cfg.data.max_train_tokens


@pytest.mark.parametrize(
    ("row", "shape"),
    [
        ("row=published/none", (156, 12, 4.0)),
        ("row=published/standard_0.2", (156, 12, 4.0)),
        ("row=published/learned", (144, 9, 4.0)),
        ("row=published/learned_precomputed", (144, 9, 4.0)),
        ("row=published/none_matched", (144, 9, 5.5)),
        ("dropout=learned_fourier", (144, 9, 4.0)),
        ("dropout=learned_everywhere", (144, 9, 4.0)),
    ],
)
def test_a_published_model_has_its_dropouts_shape(row: str, shape: tuple[float, ...]) -> None:
    model = composed("scale=published", row).model
    assert (model.n_embd, model.n_head, model.mlp_ratio) == shape


@pytest.mark.parametrize("model", ["modern", "gpt model/mlp=squared_relu", "gpt model/mlp=swiglu"])
def test_other_blocks_train_with_about_as_many_parameters(model: str) -> None:
    count = build_model(composed()).n_parameters()
    options = f"model={model}".split()
    assert build_model(composed(*options)).n_parameters() == pytest.approx(count, rel=3e-3)
    state = TrainState.build(composed(*options, *TINY))
    losses = [float(train_step(state)["train/batch_loss_nats"]) for _ in range(2)]
    assert all(6 < loss < 8 for loss in losses)


@pytest.mark.parametrize("scale", ["nano", "small"])
def test_the_matched_row_has_learned_dropouts_parameters(scale: str) -> None:
    counts = [
        build_model(composed(f"scale={scale}", f"row=published/{row}")).n_parameters()
        for row in ("learned", "none_matched")
    ]
    assert counts[1] == pytest.approx(counts[0], rel=1e-3)


@pytest.mark.parametrize("row", [row for row in names("row") if row.startswith("adapters/")])
def test_every_row_of_adapters_composes_under_its_name(row: str) -> None:
    cfg = composed(f"row={row}")
    assert row in ("adapters/finetune", f"adapters/{cfg.row_name}")
    if "lora_0." in row:
        assert cfg.adapter.layer.scale_in_evaluation != row.endswith("_unscaled")
        assert str(cfg.adapter.layer.dropout_rate) in row


@pytest.mark.parametrize("row", [row for row in ROWS if row.startswith(OF_PRESETS)])
def test_every_row_of_a_preset_composes_under_its_name(row: str) -> None:
    table, _, name = row.partition("/")
    cfg = composed(f"row={row}", *[f"table={table}"] * (table in names("table")))
    assert cfg.row_name.startswith(name)
    if table != "placement" and "masked_inputs" not in name:  # these fill slots of none's
        assert name.startswith(cfg.dropout.name)


@pytest.mark.parametrize("row", [row for row in ROWS if not row.startswith(OF_PRESETS)])
def test_every_row_takes_two_steps(row: str) -> None:
    depth = ["model.n_layer=4"] if "as_learned" in row else []  # a rate for each of nano's layers
    state = TrainState.build(composed(f"row={row}", *TINY, *depth))
    losses = [float(train_step(state)["train/batch_loss_nats"]) for _ in range(2)]
    assert all(6 < loss < 8 for loss in losses)  # ln 1024 = 6.93


@pytest.mark.parametrize(("preset", "golden"), json.loads(FILE.read_text()).items())
def test_the_first_step_gives_the_golden_numbers(preset: str, golden: dict[str, float]) -> None:
    assert first_step(preset) == pytest.approx(golden, rel=2e-4)
