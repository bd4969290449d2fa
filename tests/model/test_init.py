"""Initial weights: their distribution, and that a name alone decides them."""

from functools import partial

import torch

from dropout.learned import LearnedDropout
from dropout.penalties import MaskPenalty
from dropout.rounding import StochasticRounding
from model.gpt import GPT, GPTConfig
from model.init import init_weights

SHAPE = GPTConfig(vocab_size=300, block_size=16, n_layer=3, n_head=2, n_embd=64)
LEARNED = partial(LearnedDropout, rounding=StochasticRounding(), penalty=MaskPenalty(squared=1.0))


def build(seed: int = 1, activation: str = "gelu", **dropouts) -> GPT:
    model = GPT(SHAPE, dropouts)
    init_weights(model, seed, SHAPE.n_layer, activation)
    return model


def test_standard_deviations_are_gpt2s() -> None:
    for name, weight in build(mlp_output=LEARNED).named_parameters():
        if weight.dim() < 2:
            continue
        expected = 0.02 / 6**0.5 if name.endswith("project.weight") else 0.02
        assert abs(weight.std().item() / expected - 1) < 5 / (2 * weight.numel()) ** 0.5, name


def test_selu_gets_lecun_normal_linear_layers() -> None:
    for name, weight in build(activation="selu").named_parameters():
        if weight.dim() == 2 and "embedding" not in name:
            assert abs(weight.std().item() * weight.shape[1] ** 0.5 - 1) < 0.05, name


def test_a_dropouts_weights_do_not_shift_the_backbones() -> None:
    bare, learned = build().state_dict(), build(mlp_output=LEARNED).state_dict()
    assert bare.keys() < learned.keys()
    assert all(torch.equal(bare[name], learned[name]) for name in bare)


def test_a_seed_gives_its_weights_again_whatever_was_drawn_before() -> None:
    first = build(3).state_dict()
    torch.manual_seed(99)
    again, other = build(3).state_dict(), build(4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["token_embedding.weight"], other["token_embedding.weight"])
