"""Evaluation: fixed windows, evaluation mode, and nothing disturbed."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from training.evaluate import bits_per_byte, evaluate, evaluate_split, window_starts
from training.state import TrainState
from training.step import train_step

Build = Callable[..., TrainState]
ALL = "evaluate.final_windows=100000"


@pytest.mark.parametrize("extent", ["curve", "closing"])
def test_the_loss_is_plain_cross_entropy_over_windows_counted_by_hand(
    tiny_state: Build, extent: str
) -> None:
    state = tiny_state("dtype=float32", "dropout=standard", ALL)
    metrics = evaluate(state, extent)
    state.model.eval()
    for split in ("train", "val"):
        text = torch.from_numpy(state.data.tokens(split).astype("int64"))
        firsts = [n for n in range(0, len(text), 16) if n + 17 <= len(text)]
        left_out = len(text) - 1 - 16 * len(firsts)  # tokens that no window predicts
        assert 0 <= left_out < 16
        if extent == "curve":
            firsts = [firsts[k * len(firsts) // 8] for k in range(8)]
        losses = []
        for first in firsts:
            window = text[first : first + 17]
            with torch.no_grad():
                logits = state.model.logits(state.model(window[None, :-1]).hidden)[0]
            losses.append(F.cross_entropy(logits, window[1:]).item())
        losses = torch.tensor(losses, dtype=torch.float64)
        stderr = losses.std().item() / len(losses) ** 0.5
        assert metrics[f"{split}/loss_nats"] == pytest.approx(losses.mean().item(), abs=1e-5)
        assert metrics[f"{split}/loss_stderr"] == pytest.approx(stderr, rel=1e-3)
        assert metrics[f"{split}/windows"] == len(firsts)


def test_every_row_and_seed_is_measured_on_the_same_windows(tiny_state: Build) -> None:
    one, other = tiny_state("dropout=none", ALL), tiny_state("dropout=learned", "seed=2", ALL)
    for split in ("train", "val"):
        curve, closing = (window_starts(one, split, extent) for extent in ("curve", "closing"))
        assert torch.equal(curve, window_starts(other, split, "curve"))
        assert set(curve.tolist()) <= set(closing.tolist())
        assert len(closing) == (one.data.n_tokens(split) - 1) // 16
    limited = tiny_state("evaluate.final_windows=20")
    starts = window_starts(limited, "val", "closing").tolist()
    assert len(set(starts)) == 20 and starts[0] == 0
    gaps = {b - a for a, b in pairwise(starts)}
    assert max(gaps) - min(gaps) <= 16


def test_averaged_weights_are_evaluated_beside_the_others(tiny_state: Build) -> None:
    state = tiny_state("ema_decay=0.9", "dtype=float32", "optimizer.lr=0.01")
    for _ in range(4):
        train_step(state)
    before = {name: p.detach().clone() for name, p in state.model.named_parameters()}
    metrics = evaluate(state)
    assert all(torch.equal(before[name], p) for name, p in state.model.named_parameters())
    state.model.load_state_dict(state.average.tensors)
    assert (
        evaluate(state)["val/loss_nats"] == metrics["val/ema_loss_nats"] != metrics["val/loss_nats"]
    )


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
        evaluate_split(tiny_state("data/cut=published"), "test")
