from functools import partial

import pytest
import torch

from dropout.channel import ChannelDropout
from dropout.head import HeadDropout
from inspection.observe import dropout_modules, label, learned_only, observe
from model.gpt import GPT, GPTConfig


def test_every_mask_comes_with_the_input_that_it_was_drawn_for(learned, machine, windows):
    seen = observe(learned, windows, machine, training=False)
    assert list(seen) == ["block0/mlp_output", "block1/mlp_output"]
    for key, one in seen.items():
        out = dropout_modules(learned)[key](one.hidden, one.mask_source, True)
        assert torch.equal(one.mask, out.mask)
        assert torch.equal(one.soft_mask, out.soft_mask)
        assert 0.05 < one.mask.mean() < 0.95


def test_a_seed_repeats_a_draw_and_nothing_else_is_touched(standard, machine, windows):
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first, again, other = (
        observe(standard, windows, machine, training=True, seed=seed)["block1/mlp_output"].mask
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)
    assert not standard.training
    hooks = [m._forward_pre_hooks for m in dropout_modules(standard).values()]
    assert not any(hooks)


@pytest.mark.parametrize(
    ("slot", "factory"),
    [
        ("attention_heads", partial(HeadDropout, p=0.5)),
        ("mlp_hidden", partial(ChannelDropout, p=0.5)),
    ],
)
def test_masks_of_whole_heads_or_channels_are_seen_unit_by_unit(slot, factory, machine, windows):
    model = GPT(
        GPTConfig(vocab_size=40, block_size=16, n_layer=1, n_head=2, n_embd=12), {slot: factory}
    )
    one = observe(model, windows, machine, training=True)[f"block0/{slot}"]
    units = one.hidden[0, 0].numel()
    assert one.mask.shape == (12, 16, units)
    assert 0 < one.mask.mean() < 1


def test_only_masks_made_from_the_input_are_learned(learned, standard, machine, windows):
    assert len(learned_only(observe(learned, windows, machine, training=False))) == 2
    assert learned_only(observe(standard, windows, machine, training=True)) == {}


def test_labels_name_the_slot_only_where_there_are_several():
    one_slot = {"block0/mlp_output": None, "block1/mlp_output": None}
    assert label("block1/mlp_output", one_slot) == "block 1"
    several = one_slot | {"block0/attention_output": None, "embedding/embedding": None}
    assert label("block0/attention_output", several) == "block 0 (attention output)"
    assert label("embedding/embedding", several) == "embedding"
