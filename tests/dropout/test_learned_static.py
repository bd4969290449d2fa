"""LearnedDropout without its attention: a channel's rate is learned, and its input is not read."""

import math
from collections.abc import Callable

import pytest
import torch

from dropout.base import Site
from dropout.learned import LearnedDropout
from dropout.learned_static import LearnedStatic
from dropout.penalties import MaskPenalty
from dropout.rounding import StochasticRounding
from tests.dropout.laws import STREAM, Law, select

LAW = Law(STREAM, "BTC", output=select, evaluated=None)
PARTS = {"rounding": StochasticRounding(), "penalty": MaskPenalty(squared=1.0)}


def test_is_learned_dropout_whose_attention_says_nothing(make_site: Callable[..., Site]) -> None:
    static = LearnedStatic(make_site(), shift_init=1.0, **PARTS)
    learned = LearnedDropout(make_site(), shift_init=1.0, **PARTS)
    torch.nn.init.zeros_(learned.qkv.weight)
    hidden = torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(0))
    for module in (static, learned):
        torch.nn.init.uniform_(module.shift, 0, 3, generator=torch.Generator().manual_seed(1))
    outs = []
    for module in (static, learned):
        torch.manual_seed(2)
        out = module(hidden, return_mask=True)
        (out.hidden.square().mean() + out.penalty).backward()
        assert out.stats is None
        with torch.no_grad():
            torch.manual_seed(2)
            outs.append(out._replace(stats=module(hidden).stats))
    ours, theirs = outs
    assert torch.equal(ours.hidden, theirs.hidden)
    torch.testing.assert_close(ours.penalty, theirs.penalty)
    torch.testing.assert_close(static.shift.grad, learned.shift.grad)
    assert torch.equal(ours.soft_mask, theirs.soft_mask)
    torch.testing.assert_close(ours.stats, theirs.stats)


@pytest.mark.parametrize("shift_init", [0.0, math.pi, -1.0, 4.0, math.nan])
def test_a_start_where_it_could_not_move_is_refused(
    shift_init: float, make_site: Callable[..., Site]
) -> None:
    with pytest.raises(ValueError, match="shift_init") as caught:
        LearnedStatic(make_site(), shift_init=shift_init, **PARTS)
    assert str(caught.value) == (
        f"shift_init={shift_init} must be between 0 and pi, and neither: there the cosine is level, "
        "and a mask without attention would never move"
    )


def test_shows_its_start_and_its_parts(make_site: Callable[..., Site]) -> None:
    said = repr(LearnedStatic(make_site(), shift_init=0.5, **PARTS))
    assert "shift_init=0.5, rounding=StochasticRounding(), penalty=MaskPenalty(" in said
