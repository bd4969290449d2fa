"""Modules of a block that are hooked or replaced are called, whatever shortcut the MLP takes."""

from functools import partial

import pytest
import torch
from torch import Tensor

from dropout.none import NoDropout
from dropout.standard import StandardDropout
from model.adapters import LoRADropAdapter, apply_adapters, merge_adapters
from model.gpt import GPT, GPTConfig
from model.init import init_weights
from model.slots import Slot, Tape

pytestmark = pytest.mark.usefixtures("way")
TINY = GPTConfig(vocab_size=50, block_size=8, n_layer=1, n_head=2, n_embd=12)


def tokens() -> Tensor:
    return torch.arange(24).view(3, 8)


def build() -> GPT:
    model = GPT(TINY)
    init_weights(model, 1, 1)
    return model


def test_a_slot_without_a_dropout_or_with_an_identity_is_empty() -> None:
    site, hidden = TINY.site("mlp_output"), torch.randn(2, 3, 12)
    for factory in (None, NoDropout):
        slot = Slot(site, factory)
        assert slot.is_empty and slot(hidden, Tape()) is hidden
    assert not Slot(site, partial(StandardDropout, p=0.5)).is_empty


@pytest.mark.parametrize(
    "name", ["attention.qkv", "attention.project", "mlp.expand", "mlp.project"]
)
def test_a_hook_may_replace_what_any_layer_gives(name: str) -> None:
    model = build()
    before = model(tokens()).hidden
    layer = model.blocks[0].get_submodule(name)
    layer.register_forward_hook(lambda module, args, out: torch.zeros_like(out))
    hooked = model(tokens()).hidden
    torch.nn.init.zeros_(layer.weight)
    layer._forward_hooks.clear()
    torch.testing.assert_close(hooked, model(tokens()).hidden)
    assert not torch.allclose(hooked, before, atol=1e-6)


def test_the_fused_mlp_is_the_plain_one() -> None:
    model = build()
    mlp = model.blocks[0].mlp
    results = []
    for mlp.fused in (True, False):
        model.zero_grad()
        out = model(tokens()).hidden
        out.square().sum().backward()
        results.append((out.detach(), *(p.grad.clone() for p in model.parameters())))
    torch.testing.assert_close(results[0], results[1])


def test_an_adapter_around_the_last_layer_gets_what_comes_out_of_the_gelu() -> None:
    model = build()
    factory = partial(LoRADropAdapter, rank=2, dropout_rate=0.0)
    apply_adapters(model, factory, ["mlp.project"])
    torch.nn.init.normal_(model.blocks[0].mlp.project.lora_b)
    adapted = model(tokens()).hidden
    torch.testing.assert_close(merge_adapters(model)(tokens()).hidden, adapted)
    assert not torch.allclose(adapted, build()(tokens()).hidden, atol=1e-3)
