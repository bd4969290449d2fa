"""Leaving rows out, beside a dense model: the table says of real runs what they do."""

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import saved_flops
from benchmarks.contender import Spec, compose_config
from common.errors import UserError
from model.leaving_out import leave_out
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
    """Runs as `load_run` gives them, by directory: none, and token masks of which some are shut."""
    runs = {}
    for name in ("none", "learned_token"):
        cfg = tiny_cfg(f"dropout={name}", "table_name=tiny")
        state = TrainState.build(cfg)
        for block in state.model.blocks if name == "learned_token" else ():
            torch.nn.init.constant_(block.residual_mlp.dropout.shift, 1.5)
            torch.nn.init.normal_(block.residual_mlp.dropout.read.weight)
        state.model.eval()
        state.directory = Path(name)
        runs[name] = state
    monkeypatch.setattr("tracking.load.load_run", lambda directory, *_: runs[directory])
    return runs


def test_runs_stand_beside_the_dense_one(loaded, results, monkeypatch, capsys) -> None:
    ask(monkeypatch, "--run", "learned_token", "none")
    (row,) = json.loads((results / "saved_flops-tiny.json").read_text())["rows"]
    losses = {name: evaluate_split(run, "val")["val/loss_nats"] for name, run in loaded.items()}
    assert row["val_loss"] == losses["learned_token"]
    assert row["val_loss_without_rows"] == pytest.approx(row["val_loss"], abs=1e-4)
    assert row["minus_none"] == losses["learned_token"] - losses["none"]
    assert 0.5 < row["work_kept"] < 1
    assert all(row[f"{part}_left_out"] > 0 for part in ("blocks", "with_head"))
    assert "| learned_token |" in capsys.readouterr().out


def test_a_run_without_its_dense_partner_is_refused(loaded, results, monkeypatch) -> None:
    with pytest.raises(
        UserError, match="no run without dropout of its shape, seed 1 and weight decay"
    ):
        ask(monkeypatch, "--run", "learned_token")
    with pytest.raises(UserError, match="no run with token masks was given"):
        ask(monkeypatch, "--run", "none")


def test_masks_by_hand(results, monkeypatch, capsys) -> None:
    monkeypatch.setattr(saved_flops, "compose_config", lambda spec: tiny_of(spec))
    ask(monkeypatch, "--scale", "nano")
    rows = json.loads((results / "saved_flops-nano.json").read_text())["rows"]
    assert len(rows) == len(saved_flops.PATTERNS) * len(saved_flops.SHARES)
    assert "MLPs, some tokens" in capsys.readouterr().out


def tiny_of(spec: Spec):
    return compose_config(Spec("ours", (*TINY, "model.vocab_size=96", *spec.overrides), "float32"))


@pytest.mark.parametrize("pattern", saved_flops.PATTERNS)
def test_a_mask_by_hand_keeps_its_share(pattern: str) -> None:
    model = build_model(tiny_of(Spec("ours", ("dropout=learned_token",)))).eval()
    tokens = torch.randint(96, (50, 8))
    masks = saved_flops.PATTERNS[pattern](model, 0.5, tokens.shape)
    with torch.no_grad():
        assert not torch.equal(
            saved_flops.with_masks(masks)(model, tokens), leave_out(model, tokens)
        )
    shares = torch.stack([mask.float().mean() for mask in masks.values()])
    assert shares.mean().item() == pytest.approx(0.5, abs=0.06)
    assert set(shares.tolist()) == {0.0, 1.0} if "whole" in pattern else bool((shares < 0.6).all())
    assert len(masks) == (4 if "all" in pattern else 2)
