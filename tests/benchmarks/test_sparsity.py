"""Skipping what a mask throws away gives what the model gives."""

import pytest
import torch

from benchmarks.contender import Spec, compose_config
from benchmarks.sparsity import (
    Layer,
    capture,
    dense,
    kept_blocks,
    measure,
    shares,
    skipping,
    skipping_branches,
)
from training.state import build_model

TINY = ("scale=nano", "model.n_layer=2", "model.n_embd=24", "model.n_head=3", "model.block_size=8")


def layers(dropout: str) -> list[Layer]:
    overrides = (*TINY, "model.vocab_size=96", f"dropout={dropout}")
    model = build_model(compose_config(Spec("ours", overrides, "float32")))
    for module in model.modules():
        if hasattr(module, "shift"):  # about half of each mask zero
            torch.nn.init.normal_(module.shift, mean=torch.pi / 2, std=2.0)
    torch.manual_seed(0)
    return capture(model, torch.randint(96, (3, 8)))


@pytest.mark.parametrize("dropout", ["learned", "learned_precomputed"])
@pytest.mark.parametrize("size", [1, 7, 16, 32])
def test_skipping_gives_the_dense_result(dropout, size):
    for layer in layers(dropout):
        mask = layer.mask.clone()
        mask[::3] = 0  # whole branches too
        mask[:, 16:] = 0
        some = Layer(layer.mlp, layer.inputs, mask)
        with torch.no_grad():
            torch.testing.assert_close(skipping(some, size), dense(some))
            torch.testing.assert_close(skipping_branches(some), dense(some))
            assert dense(some).abs().sum() > 0


def test_dense_is_what_the_model_adds():
    found = layers("learned")
    assert len(found) == 2
    assert {0.0, 1.0} == set(torch.cat([layer.mask for layer in found]).unique().tolist())


def test_shares_of_a_mask_made_by_hand():
    mask = torch.ones(4, 40)
    mask[0] = 0
    mask[1, :32] = 0
    mask[2, :16] = 0
    mask[3, 0] = 0
    counted = shares([Layer(torch.nn.Identity(), mask, mask)])
    assert counted == pytest.approx(
        {
            "single outputs": (40 + 32 + 16 + 1) / 160,
            "blocks of 16 outputs": (3 + 2 + 1) / 12,
            "blocks of 32 outputs": (2 + 1) / 8,
            "whole branches": 1 / 4,
        }
    )
    assert kept_blocks(mask, 16)[3].all()


def test_measure_prints_shares_and_times():
    report = measure(layers("learned"), "cpu", repeats=1)
    assert report["table"].count("ms (") == 4
    assert report["times_s"]["dense"] > 0


def test_a_model_without_such_masks_is_refused():
    with pytest.raises(ValueError, match="masks no MLP's output"):
        layers("none")
