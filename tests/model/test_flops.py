"""The products of a training step, against counts made by hand."""

from functools import partial

import torch

from dropout.learned import LearnedDropout
from dropout.penalties import MaskPenalty
from dropout.rounding import StochasticRounding
from dropout.standard import StandardDropout
from model.adapters.lora_drop import LoRADropAdapter
from model.flops import training_flops_per_token
from model.gpt import GPT, GPTConfig

V, T, N, C = 50, 8, 2, 12
TINY = GPTConfig(vocab_size=V, block_size=T, n_layer=N, n_head=2, n_embd=C)
LINEAR = 2 * 12 * C * C  # of a block, forward, for a token; the attention beside it:
ATTENTION = 2 * 2 * T * C
HEAD = 2 * V * C
LEARNED = partial(LearnedDropout, rounding=StochasticRounding(), penalty=MaskPenalty(squared=1.0))


def test_a_model_that_trains_whole_takes_three_times_its_forward_pass() -> None:
    forward = N * (LINEAR + ATTENTION) + HEAD
    assert training_flops_per_token(GPT(TINY, {})) == 3 * forward


def test_a_learned_mask_adds_its_attention() -> None:
    learned = N * (2 * 3 * C * C + ATTENTION)
    forward = N * (LINEAR + ATTENTION) + HEAD + learned
    assert training_flops_per_token(GPT(TINY, {"mlp_output": LEARNED})) == 3 * forward


def test_a_frozen_weight_has_no_gradient_to_count() -> None:
    model = GPT(TINY, {})
    whole = training_flops_per_token(model)
    model.blocks[1].mlp.project.weight.requires_grad_(False)
    assert whole - training_flops_per_token(model) == 2 * 4 * C * C  # its input's stays


def test_nothing_goes_back_below_the_lowest_trainable_weight() -> None:
    model = GPT(TINY, {}).requires_grad_(False)
    forward = N * (LINEAR + ATTENTION) + HEAD
    assert training_flops_per_token(model) == forward
    model.blocks[1].mlp.project.weight.requires_grad_(True)
    assert training_flops_per_token(model) == forward + HEAD + 2 * 4 * C * C


def test_an_adapter_adds_its_branch_and_takes_the_base_weights_gradient_away() -> None:
    model = GPT(TINY, {}).requires_grad_(False)
    model.token_embedding.weight.requires_grad_(True)  # so that all inputs need gradients
    before = training_flops_per_token(model)
    assert before == N * (2 * LINEAR + 3 * ATTENTION) + 3 * HEAD
    layer = model.blocks[0].mlp.project
    model.blocks[0].mlp.project = LoRADropAdapter(layer, rank=3, dropout_rate=0.5)
    assert training_flops_per_token(model) - before == 3 * 2 * (4 * C * 3 + 3 * C)


def test_counting_leaves_no_trace() -> None:
    model = GPT(TINY, {"mlp_output": partial(StandardDropout, p=0.5)})
    model.blocks[0].eval()
    torch.manual_seed(0)
    drawn = torch.rand(3)
    torch.manual_seed(0)
    training_flops_per_token(model)
    assert torch.rand(3).equal(drawn)
    assert all(p.grad is None for p in model.parameters())
    assert model.training and not model.blocks[0].training
