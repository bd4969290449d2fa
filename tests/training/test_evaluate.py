"""Evaluation: fixed windows, evaluation mode, and nothing disturbed."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from training.evaluate import bits_per_byte, evaluate, evaluate_split
from training.state import TrainState
from training.step import train_step

Build = Callable[..., TrainState]


def test_the_loss_is_plain_cross_entropy_over_the_windows(tiny_state: Build) -> None:
    state = tiny_state("dtype=float32", "dropout=standard")
    metrics = evaluate(state)
    batches = state.batches["val"]
    tokens, targets = batches.gather(batches.window_starts(8, 1, "evaluate val"))
    state.model.eval()
    with torch.no_grad():
        logits = state.model.logits(state.model(tokens).hidden)
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(8, -1)
    windows = losses.mean(1)
    assert metrics["val/loss_nats"] == pytest.approx(windows.mean().item(), rel=1e-5)
    assert metrics["val/loss_stderr"] == pytest.approx(windows.std().item() / 8**0.5, rel=1e-4)


def test_evaluating_changes_no_later_step(tiny_state: Build) -> None:
    once, often = tiny_state(), tiny_state()
    for _ in range(3):
        train_step(once)
        evaluate(often)
        train_step(often)
    a, b = once.tensors(), often.tensors()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_learned_dropout_reports_ones_of_both_modes_and_by_module(tiny_state: Build) -> None:
    metrics = evaluate(tiny_state("dropout.shift_init=1.5"))
    modules = [metrics[f"modules/block{i}/mlp_output/train/ones"] for i in (0, 1)]
    assert metrics["train/ones"] == pytest.approx(sum(modules) / 2)
    assert 0.3 < metrics["train/ones"] < 0.8
    assert {"eval/ones", "eval/above_0.9", "eval/below_0.1", "eval/penalty"} <= metrics.keys()


def test_attention_dropout_can_be_left_on_as_in_the_original(tiny_state: Build) -> None:
    options = ("dropout=standard", "dropout.p=0.5", "dtype=float32")
    clean, noisy = tiny_state(*options), tiny_state(*options, "evaluate.attention_dropout=true")
    for state in (clean, noisy):
        for block in state.model.blocks:
            torch.nn.init.normal_(block.attention.qkv.weight)
            torch.nn.init.normal_(block.attention.project.weight)
        noisy.model.load_state_dict(clean.model.state_dict())
    assert evaluate(clean)["val/loss_nats"] != evaluate(noisy)["val/loss_nats"]
    assert noisy.model.training and noisy.model.blocks[0].attention.attention.training


def test_bits_per_byte_is_the_loss_over_the_texts_bytes(tiny_state: Build) -> None:
    data = tiny_state().data
    per_byte = data.n_tokens("val") / data.n_bytes("val")
    assert bits_per_byte(0.6931471805599453, data, "val") == pytest.approx(per_byte)


def test_a_split_that_is_not_there_is_named(tiny_state: Build) -> None:
    with pytest.raises(ValueError, match="no split test; it has train, val"):
        evaluate_split(tiny_state("data/cut=published"), "test", 2)
