"""Evaluation: fixed windows, evaluation mode, and nothing disturbed."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from unittest.mock import Mock

import pytest
import torch
import torch.nn.functional as F

from common.streams import stream_seed
from training.evaluate import (
    bits_per_byte,
    evaluate,
    evaluate_losses,
    evaluate_split,
    run_windows,
    summarize_losses,
    validation_masks,
    window_starts,
)
from training.ranks import Ranks
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
        in_bits = bits_per_byte(metrics[f"{split}/loss_nats"], state.data, split)
        assert metrics[f"{split}/bits_per_byte"] == in_bits


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


@pytest.mark.parametrize("extent", ["curve", "closing"])
def test_averaged_weights_are_evaluated_beside_the_others(tiny_state: Build, extent: str) -> None:
    options = ("ema_decay=0.9", "dtype=float32", "optimizer.lr=0.01")
    state = tiny_state(*options, "evaluate.windows=4")
    for _ in range(4):
        train_step(state)
    before = {name: p.detach().clone() for name, p in state.model.named_parameters()}
    metrics = evaluate(state, extent)
    assert all(torch.equal(before[name], p) for name, p in state.model.named_parameters())
    state.model.load_state_dict(state.average.tensors)
    averaged = evaluate(state, extent)
    names = [f"{split}/loss_{what}" for split in ("train", "val") for what in ("nats", "stderr")]
    for name in names:
        own = metrics.pop(name.replace("loss", "ema_loss"))
        assert own == averaged[name] != metrics[name]
    assert not any("ema" in name for name in metrics)


def test_evaluating_changes_no_later_step(tiny_state: Build) -> None:
    once, often = tiny_state(), tiny_state()
    for _ in range(3):
        train_step(once)
        evaluate(often)
        train_step(often)
    a, b = once.tensors(), often.tensors()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_statistics_are_means_over_windows_by_module_and_over_modules(tiny_state: Build) -> None:
    windows = ("evaluate.windows=3", "evaluate.final_windows=6")
    state = tiny_state("dtype=float32", "dropout.shift_init=1.5", *windows)
    metrics = evaluate(state, "closing")
    assert 0.3 < metrics["train/ones"] < 0.8
    for split, mode in (("val", "eval"), ("train", "train")):
        parts = window_starts(state, split, "closing").split(4)
        torch.manual_seed(stream_seed(1, f"evaluate {split} noise"))
        state.model.train(mode == "train")
        with torch.no_grad():
            four, two = (state.model(state.batches[split].gather(part)[0]).stats for part in parts)
        for kind in ("ones", "above_0.9", "below_0.1", "penalty"):
            keys = [f"block{i}/mlp_output/{kind}" for i in (0, 1)]
            means = [((4 * four[key] + 2 * two[key]) / 6).item() for key in keys]
            found = [metrics[f"modules/block{i}/mlp_output/{mode}/{kind}"] for i in (0, 1)]
            assert found == pytest.approx(means)
            assert metrics[f"{mode}/{kind}"] == pytest.approx(sum(means) / 2)


def test_a_draw_of_training_takes_no_loss(tiny_state: Build) -> None:
    losses, stats = run_windows(tiny_state(), "train", "curve", training=True)
    assert len(losses) == 0 and stats


@pytest.mark.parametrize("attention_dropout", [False, True])
def test_two_ranks_find_what_one_does_and_share_all_but_what_goes_on_drawing(
    tiny_state: Build, monkeypatch: pytest.MonkeyPatch, attention_dropout: bool
) -> None:
    options = ("dropout/slot@dropout.attention=standard", "evaluate.batch_size=2")
    options += (f"evaluate.attention_dropout={attention_dropout}",)
    alone = evaluate(tiny_state(*options))
    given = []

    def gather(ranks: Ranks, items: list) -> list:
        given.append(items)
        return items if ranks.rank == 0 else given.pop(0) + items

    monkeypatch.setattr(Ranks, "gather", gather)
    for rank in (0, 1):
        state = tiny_state(*options)
        state.machine = replace(state.machine, ranks=Ranks(rank, 2))
        state.forward = Mock(wraps=state.forward)
        metrics = evaluate(state)
        assert state.forward.call_count == (12 if attention_dropout else 8)
    assert metrics == pytest.approx(alone, rel=1e-12)


def test_soft_masks_are_those_of_evaluation_on_the_first_batch(tiny_state: Build) -> None:
    slots = [f"dropout/slot@dropout.{s}=standard" for s in ("attention", "attention_output")]
    state = tiny_state("dtype=float32", *slots, "evaluate.attention_dropout=true")
    for block in state.model.blocks:
        torch.nn.init.normal_(block.attention.project.weight)
    masks = validation_masks(state)
    assert state.model.training
    tokens, _ = state.batches["val"].gather(window_starts(state, "val", "curve")[:4])
    out = state.model.eval()(tokens, return_masks=True).masks
    assert masks.keys() == {f"block{i}/mlp_output" for i in (0, 1)} < out.keys()
    for key, mask in masks.items():
        assert torch.equal(mask, out[key].soft_mask) and not mask.requires_grad


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
    with pytest.raises(ValueError, match=r"^the data has no split test; it has train, val$"):
        evaluate_split(tiny_state("data/cut=published"), "test")


def test_one_window_has_no_standard_error(tiny_state: Build) -> None:
    state = tiny_state("dropout=none")
    one, two = (summarize_losses(state, "val", torch.tensor([3.0, 5.0][:n])) for n in (1, 2))
    assert math.isnan(one["val/loss_stderr"]) and one["val/loss_nats"] == 3
    assert two["val/loss_stderr"] == two["val/loss_nats"] - 3 == 1


def test_other_weights_are_measured_in_the_closing_windows_unless_asked(tiny_state: Build) -> None:
    state = tiny_state("dropout=none", "evaluate.windows=4")
    weights = {name: torch.zeros_like(p) for name, p in state.model.named_parameters()}
    own, closing = evaluate(state), evaluate_losses(state, weights)
    curve = evaluate_losses(state, weights, "curve")
    assert evaluate_split(state, "val")["val/windows"] == 8
    for split in ("train", "val"):
        counts = [losses[f"{split}/windows"] for losses in (own, closing, curve)]
        assert counts == [4, 8, 4]
        assert closing[f"{split}/loss_nats"] == pytest.approx(math.log(300))
