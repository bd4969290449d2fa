"""Adapters around a model's layers, merged into them again, and in every config."""

from functools import partial

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from model.adapters import (
    LoRADropAdapter,
    OrthogonalAdapter,
    apply_adapters,
    base_tensors,
    merge_adapters,
)
from model.gpt import GPT, GPTConfig
from tests.model.adapters import every_adapter, trained


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def tiny_gpt() -> GPT:
    return GPT(GPTConfig(vocab_size=17, block_size=8, n_layer=2, n_head=2, n_embd=16)).eval()


TARGETS = ["attention.qkv", "mlp.project"]


def test_wrapping_a_model_changes_no_output_and_leaves_the_adapters_alone_to_train():
    model, tokens = tiny_gpt(), torch.randint(17, (2, 8))
    before = model(tokens).hidden
    apply_adapters(model, partial(OrthogonalAdapter, block_size=4), TARGETS)
    assert torch.equal(model(tokens).hidden, before)
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == {f"blocks.{i}.{t}.skew_entries" for i in range(2) for t in TARGETS}


@every_adapter
def test_merging_a_model_restores_its_layers_and_keeps_its_output(factory):
    if factory.keywords.get("block_size") == 3:
        factory = partial(factory, block_size=2)
    model, tokens = tiny_gpt(), torch.randint(17, (2, 8))
    names = list(model.state_dict())
    trained(apply_adapters(model, factory, TARGETS))
    expected = model(tokens).hidden
    merge_adapters(model)
    assert list(model.state_dict()) == names
    torch.testing.assert_close(model(tokens).hidden, expected, atol=1e-5, rtol=1e-5)


def test_one_seed_gives_one_model_and_touches_no_other_stream():
    factory = partial(LoRADropAdapter, rank=2, dropout_rate=0.1)
    before = torch.get_rng_state()
    first, again, other = (
        apply_adapters(tiny_gpt(), factory, TARGETS, seed).state_dict()
        for seed in (5, 5, 6)
        if torch.manual_seed(seed + 100)
    )
    name = "blocks.1.mlp.project.lora_a"
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])
    torch.set_rng_state(before)
    model = tiny_gpt()
    state = torch.get_rng_state()
    apply_adapters(model, factory, TARGETS)
    assert torch.equal(torch.get_rng_state(), state)


def test_seeded_adapters_of_one_model_draw_different_masks():
    factory = partial(LoRADropAdapter, rank=2, dropout_rate=0.5, seed=1)
    model = apply_adapters(tiny_gpt(), factory, ["mlp.expand"])
    first, second = (block.mlp.expand.draw_mask() for block in model.blocks)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["attention.key"], r"'attention.key' ends no linear layer's name.*'attention.qkv'"),
        (["kv"], "'kv' ends no linear"),
        ([], "targets is empty"),
    ],
)
def test_unknown_targets_are_named_with_the_valid_ones(targets, message):
    with pytest.raises(ValueError, match=message):
        apply_adapters(tiny_gpt(), partial(OrthogonalAdapter, block_size=4), targets)


@every_adapter
def test_base_tensors_are_the_models_own_under_their_old_names(factory):
    if factory.keywords.get("block_size") == 3:
        factory = partial(factory, block_size=2)
    model = tiny_gpt()
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    apply_adapters(model, factory, TARGETS)
    assert base_tensors(model).keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in base_tensors(model).items())
    base_tensors(model)["blocks.0.attention.qkv.weight"].zero_()
    assert torch.all(model.blocks[0].attention.qkv.base_layer.weight == 0)


def test_a_model_without_adapters_cannot_be_merged():
    with pytest.raises(ValueError, match="no adapter to merge"):
        merge_adapters(tiny_gpt())


@pytest.mark.parametrize("name", ["lora", "lora_drop", "oft", "boft"])
def test_every_config_fits_the_models_layers(name):
    config = OmegaConf.load(f"configs/adapter/{name}.yaml")
    assert config.name == name
    model = GPT(GPTConfig(vocab_size=17, block_size=8, n_layer=1, n_head=4, n_embd=96))
    apply_adapters(model, instantiate(config.layer), config.targets)
    names = [n for n, m in model.named_modules() if isinstance(m, nn.Linear)]
    assert len(names) == 4 and all(n.endswith("base_layer") for n in names)


@pytest.mark.parametrize("p", [0.1, 0.2, 0.3])
@pytest.mark.parametrize("name", ["oft", "boft"])
def test_every_rate_of_the_comparison_drops_blocks_at_nano(name, p):
    config = OmegaConf.load(f"configs/adapter/{name}.yaml")
    config.layer.module_dropout.p = p
    adapter = instantiate(config.layer)(nn.Linear(96, 96))
    n_block = adapter.skew_entries.size(1)
    assert n_block >= 10
    assert adapter.module_dropout.number_replaced(n_block) >= 1
