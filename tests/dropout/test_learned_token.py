"""Learned token dropout: one number a token, from the input or from the embedding sum."""

import math
from collections.abc import Callable

import pytest
import torch

from dropout.base import Site
from dropout.learned_token import LearnedToken
from dropout.penalties import MaskPenalty
from dropout.rounding import StochasticRounding
from tests.dropout.laws import STREAM, Law, select

LAW = Law(STREAM, "BT", output=select, evaluated=None)
PARTS = {"rounding": StochasticRounding(), "penalty": MaskPenalty(linear=1.0), "shift_init": 0.5}
MakeSite = Callable[..., Site]


def test_its_equation(make_site: MakeSite) -> None:
    module = LearnedToken(make_site("residual_mlp"), **PARTS).eval()
    torch.nn.init.normal_(module.read.weight, generator=torch.Generator().manual_seed(0))
    hidden = torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(1))
    out = module(hidden, return_mask=True)
    scaled = hidden / (hidden.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    soft_mask = torch.cos(scaled @ module.read.weight[0] + 0.5).unsqueeze(-1) / 2 + 0.5
    torch.testing.assert_close(out.soft_mask, soft_mask)
    assert out.soft_mask.shape == out.mask.shape == (3, 6, 1)
    assert torch.equal(out.hidden, hidden * (soft_mask >= 0.5))
    torch.testing.assert_close(out.penalty, soft_mask.mean())
    assert 0 < out.mask.mean() < 1


def test_several_are_known_at_once(make_site: MakeSite) -> None:
    modules = [LearnedToken(make_site("residual_mlp"), **PARTS).eval() for _ in range(3)]
    for seed, module in enumerate(modules):
        torch.nn.init.normal_(module.read.weight, generator=torch.Generator().manual_seed(seed))
        torch.nn.init.constant_(module.shift, 0.5 * seed)
    source = torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(9))
    each = torch.stack([m(source, return_mask=True).mask.squeeze(-1) for m in modules])
    keeps = LearnedToken.keeps_of(modules, source)
    assert keeps.dtype == torch.bool
    assert torch.equal(keeps, each.bool())


@pytest.mark.parametrize(
    ("slot", "work"),
    [("residual_attention", 0.5), ("attention_output", 0.5), ("residual_mlp", 1.0)],
)
def test_an_attention_costs_half_of_an_mlp(slot: str, work: float, make_site: MakeSite) -> None:
    out = LearnedToken(make_site(slot), **PARTS)(torch.randn(2, 6, 8), return_mask=True)
    torch.testing.assert_close(out.penalty, work * out.soft_mask.mean())


def test_from_the_embedding_it_does_not_read_its_input(make_site: MakeSite) -> None:
    module = LearnedToken(make_site("mlp_hidden"), mask_from="embedding", **PARTS)
    assert module.wants_mask_source
    assert not LearnedToken(make_site("mlp_hidden"), **PARTS).wants_mask_source
    source, hidden = torch.randn(2, 6, 8), torch.randn(2, 6, 32)  # mlp_hidden is wider than both
    one, other = (module(x, source, return_mask=True).soft_mask for x in (hidden, 2 * hidden))
    assert torch.equal(one, other)


def test_the_mask_is_made_in_float32_whatever_the_model_computes_in(make_site: MakeSite) -> None:
    module = LearnedToken(make_site(), **PARTS)
    torch.nn.init.normal_(module.read.weight)
    source = torch.randn(2, 6, 8).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = module.soft_mask(source)
    assert under_autocast.dtype == torch.float32
    assert torch.equal(under_autocast, module.soft_mask(source.float()))


@pytest.mark.parametrize("shift_init", [0.0, math.pi, -1.0, math.nan])
def test_a_start_where_it_could_not_move_is_refused(shift_init: float, make_site: MakeSite) -> None:
    with pytest.raises(ValueError, match="shift_init") as caught:
        LearnedToken(make_site(), **PARTS | {"shift_init": shift_init})
    assert str(caught.value) == (
        f"shift_init={shift_init} must be between 0 and pi, and neither: there the cosine is level, "
        "and a mask would hardly move"
    )


def test_another_source_is_refused(make_site: MakeSite) -> None:
    with pytest.raises(ValueError, match="mask_from='block' must be one of input, embedding"):
        LearnedToken(make_site(), mask_from="block", **PARTS)  # type: ignore[arg-type]


def test_shows_its_settings(make_site: MakeSite) -> None:
    assert (
        "mask_from=input, shift_init=0.5, rounding=StochasticRounding(), penalty=MaskPenalty("
        in repr(LearnedToken(make_site(), **PARTS))
    )
