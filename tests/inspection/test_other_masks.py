"""A run under masks that were not made for its text."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from data.batches import Batches
from dropout.learned_static import LearnedStatic
from dropout.penalties import MaskPenalty
from dropout.rounding import StochasticRounding
from inspection.observe import dropout_modules, observe
from inspection.other_masks import (
    WAYS,
    channel_means,
    losses_with_other_masks,
    masks_for,
    with_masks_of,
)
from tests.inspection.conftest import small_gpt
from training.bundle import Bundle
from training.evaluate import evaluate_split

EVALUATE = {"windows": 2, "final_windows": 100, "batch_size": 5, "attention_dropout": False}


@pytest.fixture
def bundle(machine):
    """A model as a run has it, on 12 windows of random tokens in each split."""

    def make(model) -> Bundle:
        cfg = {"seed": 1, "compile": False, "evaluate": EVALUATE}
        data = SimpleNamespace(n_tokens=lambda split: 193, n_bytes=lambda split: 400)
        run = Bundle(OmegaConf.create(cfg), machine, model, data)
        run.batches = {}
        draws = torch.Generator().manual_seed(3)
        for split in ("train", "val"):
            tokens = torch.randint(40, (193,), generator=draws).numpy().astype(np.uint16)
            run.batches[split] = Batches(tokens, 16, machine.device, 0)
        return run

    return make


@pytest.fixture
def static():
    make = partial(LearnedStatic, rounding=StochasticRounding(), penalty=MaskPenalty())
    model = small_gpt(mlp_output=partial(make, shift_init=1.5))
    for dropout in dropout_modules(model).values():
        torch.nn.init.uniform_(dropout.shift, 0.1, 3.0)
    return model


def test_its_own_masks_give_its_own_loss_and_others_another(learned, bundle):
    run = bundle(learned)
    own = evaluate_split(run, "val")["val/loss_nats"]
    found = losses_with_other_masks(run, "val")
    assert tuple(found) == WAYS
    assert found["own"] == own
    assert len({round(loss, 6) for loss in found.values()}) == len(WAYS)
    assert found == losses_with_other_masks(run, "val")
    assert evaluate_split(run, "val")["val/loss_nats"] == own


def test_masks_that_do_not_read_their_input_are_the_same_for_any_other(static, bundle):
    found = losses_with_other_masks(bundle(static), "val")
    assert found["other"] == found["own"] == found["mean"] == found["random"]  # rates are 0 or 1


def test_others_masks_are_those_that_the_model_makes_of_them(learned, machine, windows):
    others = windows.roll(3, 0)
    masks = observe(learned, others, machine, training=False)
    forced = {key: partial(lambda mask, hidden: mask, one.mask) for key, one in masks.items()}
    with torch.no_grad():
        with masks_for(learned, forced):
            expected = learned(windows).hidden
        assert torch.equal(with_masks_of(learned, list(masks), windows, others).hidden, expected)
        own = with_masks_of(learned, list(masks), windows, windows).hidden
        torch.testing.assert_close(own, learned(windows).hidden)


@pytest.mark.parametrize("batch_size", [1, 5, 12])
def test_which_window_is_the_other_does_not_hang_on_the_batches(batch_size, learned, bundle):
    run = bundle(learned)
    expected = losses_with_other_masks(run, "val")["other"]
    run.cfg.evaluate.batch_size = batch_size
    found = losses_with_other_masks(run, "val")
    assert found["other"] == pytest.approx(expected, rel=1e-6)
    assert found["other"] != pytest.approx(found["own"], rel=1e-6)


def test_one_window_alone_is_told(learned, bundle):
    run = bundle(learned)
    run.cfg.evaluate.final_windows = 1
    with pytest.raises(ValueError, match="the split val has 1 window, and --masks swaps"):
        losses_with_other_masks(run, "val")


def test_channels_have_their_means_over_the_train_windows(learned, bundle, machine):
    run = bundle(learned)
    soft, ones = channel_means(run)
    starts = run.batches["train"].disjoint_starts(100)
    tokens, _ = run.batches["train"].gather(starts)
    for key, one in observe(learned, tokens, machine, training=False).items():
        torch.testing.assert_close(soft[key], one.soft_mask.double().mean((0, 1)))
        torch.testing.assert_close(ones[key], one.mask.double().mean((0, 1)))


def test_a_run_without_learned_masks_is_told(standard, bundle):
    with pytest.raises(ValueError, match="no learned mask in this run: --masks needs one"):
        losses_with_other_masks(bundle(standard), "val")
