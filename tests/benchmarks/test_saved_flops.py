"""Leaving rows out, beside a dense model: the table says of real runs what they do."""

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import saved_flops
from benchmarks.contender import Spec, compose_config
from common.errors import UserError
from dropout.base import DropoutOutput
from training.device import choose_machine
from training.evaluate import evaluate_split
from training.state import TrainState, build_model

TINY = ("scale=nano", "model.n_layer=2", "model.n_embd=24", "model.n_head=3", "model.block_size=8")


@pytest.fixture
def results(monkeypatch, tmp_path) -> Path:
    monkeypatch.setattr(saved_flops, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


def ask(monkeypatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["saved_flops", "--rounds", "1", "--windows", "4", *words])
    saved_flops.main()


@pytest.fixture
def loaded(tiny_cfg, monkeypatch):
    """Runs as `load_run` gives them, by directory; of the token masks some are shut."""
    runs = {}
    for name, overrides in {
        "none": ("dropout=none",),
        "thin": ("dropout=none", "model.mlp_ratio=1"),
        "token": ("dropout=learned_token",),
        "elsewhere": ("dropout=learned_token", "optimizer.weight_decay=0.7"),
        "unfinished": ("dropout=none",),
    }.items():
        state = TrainState.build(tiny_cfg(*overrides, f"row_name={name}", "table_name=tiny"))
        for block in state.model.blocks if name == "token" else ():
            torch.nn.init.constant_(block.residual_mlp.dropout.shift, 1.5)
            torch.nn.init.normal_(block.residual_mlp.dropout.read.weight)
        state.model.eval()
        state.directory = Path(name)
        state.checkpoint = SimpleNamespace(step=3 if name == "unfinished" else state.cfg.steps)
        runs[name] = state
    monkeypatch.setattr("tracking.load.load_run", lambda directory, *_: runs[directory])
    return runs


def test_runs_stand_beside_the_dense_one(loaded, results, monkeypatch, capsys) -> None:
    ask(monkeypatch, "--run", "token", "thin", "none")
    report = json.loads((results / "saved_flops-tiny.json").read_text())
    assert {"commit", "dtype", "windows", "rounds", "machine"} < set(report)
    rows = {row["row"]: row for row in report["rows"]}
    assert set(rows) == {"token", "thin"}
    losses = {name: evaluate_split(run, "val")["val/loss_nats"] for name, run in loaded.items()}
    for name, row in rows.items():
        assert row["val_loss"] == losses[name]
        assert row["val_loss_left_out"] == pytest.approx(row["val_loss"], abs=1e-4)
        assert row["minus_none"] == losses[name] - losses["none"]
    model = loaded["none"].cfg.model  # of its products a thin one saves three quarters of the MLP's
    attention = 4 * model.n_embd + 2 * model.block_size
    assert rows["thin"]["products"] == pytest.approx(
        (attention + 2 * model.n_embd) / (attention + 8 * model.n_embd)
    )
    said = capsys.readouterr().out
    assert "| thin " in said
    assert "| token " in said


def test_faster_is_more_than_one(monkeypatch) -> None:
    durations = {"base": 6, "twice": 3}
    passing = [0.0]

    def seconds() -> float:
        return passing[0]

    class Pass:
        def __init__(self, name: str) -> None:
            self.name = name

        def __call__(self) -> None:
            passing[0] += durations[self.name]

    monkeypatch.setattr(saved_flops.time, "perf_counter", seconds)
    found = saved_flops.speed_ups(Pass("base"), {"x": Pass("twice")}, 5, choose_machine("cpu"))
    assert found == {"x": [2.0, 2.0, 2.0]}


def test_a_bar_is_met_by_speed_and_loss_together() -> None:
    def row(speed: float, loss: float) -> dict:
        quartiles = {key: [0.0, speed, 9.0] for key in list(saved_flops.HEADER)[6:]}
        return {
            "row": "x",
            "seed": 1,
            "val_loss": 4.0,
            "minus_none": loss,
            "products": 0.5,
        } | quartiles

    rows = [row(1.4, 0.005), row(1.2, -0.1), row(1.4, 0.02)]
    lines = saved_flops.table(rows).splitlines()[2:5]
    assert [line.count(" met ") for line in lines] == [1, 0, 0]


def test_runs_that_cannot_stand_beside_another_are_refused(loaded, results, monkeypatch) -> None:
    for words, said in (
        (("token",), "no run without dropout, but else of its setting"),
        (
            ("elsewhere", "none"),
            r"elsewhere: no run without dropout, but else of its setting \(seed 1, ",
        ),
        (("none",), "nothing to set beside none"),
        (("unfinished", "token"), "unfinished stands at step 3 of 6: finish it first"),
    ):
        with pytest.raises(UserError, match=said):
            ask(monkeypatch, "--run", *words)


def test_masks_by_hand(results, monkeypatch, capsys) -> None:
    monkeypatch.setattr(saved_flops, "compose_config", lambda spec: tiny_of(spec))
    ask(monkeypatch, "--scale", "nano")
    rows = json.loads((results / "saved_flops-nano.json").read_text())["rows"]
    assert len(rows) == len(saved_flops.PATTERNS) * len(saved_flops.SHARES)
    assert "MLPs, some tokens" in capsys.readouterr().out


def tiny_of(spec: Spec):
    return compose_config(Spec("ours", (*TINY, "model.vocab_size=96", *spec.overrides), "float32"))


@pytest.mark.parametrize("pattern", saved_flops.PATTERNS)
def test_a_mask_by_hand_is_applied(pattern: str) -> None:
    torch.manual_seed(0)
    model = build_model(tiny_of(Spec("ours", ("dropout=learned_token",)))).eval()
    tokens = torch.randint(96, (50, 8))
    masks = saved_flops.PATTERNS[pattern](model, 0.5, tokens.shape)
    assert len(masks) == (4 if "all" in pattern else 2)
    shares = torch.stack([mask.float().mean() for mask in masks.values()])
    assert shares.mean().item() == pytest.approx(0.5, abs=0.06)
    assert "whole" not in pattern or set(shares.tolist()) == {0.0, 1.0}
    for block in model.blocks:  # the same masks, multiplied
        for slot in (block.residual_attention, block.residual_mlp):
            mask = masks.get(slot.key, torch.ones(50, 8, dtype=torch.bool))
            slot.dropout.forward = lambda hidden, *_, m=mask: DropoutOutput(hidden * m[..., None])
    with torch.no_grad():
        applied = model(tokens).hidden
    torch.testing.assert_close(saved_flops.with_masks(masks)(model, tokens), applied)


@pytest.mark.parametrize("n_layer", [5, 6])
def test_what_is_said_to_be_kept_is_kept(n_layer: int, monkeypatch, results) -> None:
    monkeypatch.setattr(
        saved_flops,
        "compose_config",
        lambda spec: tiny_of(Spec("ours", (*spec.overrides, f"model.n_layer={n_layer}"))),
    )
    ask(monkeypatch, "--scale", "nano")
    rows = json.loads((results / "saved_flops-nano.json").read_text())["rows"]
    kept = [row["kept"] for row in rows if row["row"] == "MLPs, whole ones"]
    assert kept == pytest.approx([math.ceil(s * n_layer) / n_layer for s in saved_flops.SHARES])
