"""Leaving dropped rows out gives what the model gives, and computes less."""

from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from common.errors import UserError
from dropout.learned_token import LearnedToken
from dropout.penalties import MaskPenalty
from dropout.rounding import StochasticRounding
from dropout.standard import StandardDropout
from model.gpt import GPT, GPTConfig
from model.leaving_out import check_can_leave_out, leave_out
from model.mlp import GatedMLP
from ops import native

TOKENS = torch.randint(0, 11, (5, 6), generator=torch.Generator().manual_seed(0))
MODERN = {"norm": "rms", "positions": "rotary", "qk_norm": True, "activation": "silu"}


def build(
    shape: dict | None = None, mask_from: str = "embedding", mlp=None, **slots: object
) -> GPT:
    token = partial(
        LearnedToken,
        rounding=StochasticRounding(),
        penalty=MaskPenalty(linear=1.0),
        shift_init=1.5,
        mask_from=mask_from,
    )
    dropouts = {"residual_attention": token, "residual_mlp": token} | slots
    cfg = GPTConfig(11, 6, n_layer=3, n_head=2, n_embd=8, **{"bias": True} | (shape or {}))
    torch.manual_seed(0)
    model = GPT(cfg, dropouts, **({} if mlp is None else {"mlp": mlp}))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    for module in model.modules():
        if isinstance(module, LearnedToken):
            torch.nn.init.constant_(module.shift, 1.5)
    return model.eval()


def shut(model: GPT, slot: str, layer: int, by: float) -> None:
    """All positions of a branch dropped (by pi), or kept (by 0)."""
    dropout = getattr(model.blocks[layer], slot).dropout
    torch.nn.init.zeros_(dropout.read.weight)
    torch.nn.init.constant_(dropout.shift, by)


def test_under_autocast_too() -> None:
    model = build()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        whole, part = model(TOKENS).hidden, leave_out(model, TOKENS)
    assert part.dtype == whole.dtype
    torch.testing.assert_close(part, whole)


def test_with_an_adapter_where_the_masks_are_read() -> None:
    model = build()
    for block in model.blocks:
        read = block.residual_mlp.dropout.read
        block.residual_mlp.dropout.read = torch.nn.Sequential(read, torch.nn.Identity())
    with torch.no_grad():
        torch.testing.assert_close(leave_out(model, TOKENS), model(TOKENS).hidden)


@pytest.mark.parametrize("mlp", [None, GatedMLP])
@pytest.mark.parametrize("shape", [{}, MODERN])
def test_gives_the_hidden_states_of_the_whole_model(shape, mlp) -> None:
    model = build(shape, mlp=mlp)
    shut(model, "residual_mlp", 0, by=0.0)
    shut(model, "residual_mlp", 2, by=torch.pi)
    shut(model, "residual_attention", 0, by=0.0)
    shut(model, "residual_attention", 2, by=torch.pi)
    check_can_leave_out(model)
    with torch.no_grad():
        whole = model(TOKENS, return_masks=True)
    shares = [
        whole.masks[f"block1/{s}"].mask.mean() for s in ("residual_attention", "residual_mlp")
    ]
    assert all(0 < share < 1 for share in shares)
    torch.testing.assert_close(leave_out(model, TOKENS), whole.hidden)


def test_a_model_without_masks_is_computed_whole() -> None:
    model = build(residual_attention=lambda site: torch.nn.Identity(), residual_mlp=None)
    with pytest.raises(UserError, match="dropout at block0/residual_attention is not known before"):
        check_can_leave_out(model)
    plain = GPT(GPTConfig(11, 6, n_layer=2, n_head=2, n_embd=8)).eval()
    check_can_leave_out(plain)
    with torch.no_grad():
        assert torch.equal(leave_out(plain, TOKENS), plain(TOKENS).hidden)


def flops(call) -> int:
    with native.without_kernels(), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def test_what_is_dropped_is_not_computed() -> None:
    model = build()
    for layer in range(3):
        for slot in ("residual_attention", "residual_mlp"):
            shut(model, slot, layer, by=0.0)
    everything = flops(lambda: leave_out(model, TOKENS))
    with torch.no_grad():
        assert everything == flops(lambda: model(TOKENS))
    shut(model, "residual_mlp", 1, by=torch.pi)
    without_mlp = flops(lambda: leave_out(model, TOKENS))
    n, width = TOKENS.numel(), 8
    assert everything - without_mlp == 2 * n * 8 * width**2
    shut(model, "residual_attention", 2, by=torch.pi)
    attention = 2 * n * (4 * width**2 + 2 * 6 * width)
    assert without_mlp - flops(lambda: leave_out(model, TOKENS)) == attention


def test_of_some_tokens_only_their_rows_are_computed() -> None:
    model, masks = build(), {}
    keys = [f"block{i}/{s}" for i in range(3) for s in ("residual_attention", "residual_mlp")]

    def masks_of(model: GPT, source: torch.Tensor) -> dict[str, torch.Tensor]:
        return {key: masks.get(key, torch.ones_like(TOKENS, dtype=torch.bool)) for key in keys}

    everything = flops(lambda: leave_out(model, TOKENS, masks_of))
    masks["block1/residual_mlp"] = TOKENS < 4
    dropped, width = int((TOKENS >= 4).sum()), 8
    some = flops(lambda: leave_out(model, TOKENS, masks_of))
    assert everything - some == 2 * dropped * 8 * width**2
    masks["block2/residual_attention"] = TOKENS < 4
    assert some - flops(lambda: leave_out(model, TOKENS, masks_of)) == 2 * dropped * width**2


def test_a_model_in_training_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"training mode: rows are left out in evaluation, model.eval"
    ):
        leave_out(build().train(), TOKENS)


@pytest.mark.parametrize(
    "options",
    [
        {"mask_from": "input"},
        {"mlp_output": partial(StandardDropout, p=0.1)},
    ],
)
def test_what_cannot_be_left_out_is_refused(options) -> None:
    with pytest.raises(UserError, match=r"rows can be left out of a model whose dropouts are none"):
        check_can_leave_out(build(**options))
