"""A rounding through which nothing learns."""

from collections.abc import Callable

import torch

from dropout.base import Site
from dropout.detached import Detached
from dropout.learned import LearnedDropout
from dropout.penalties import MaskPenalty
from dropout.rounding import StochasticRounding

SOFT = torch.rand(2000, generator=torch.Generator().manual_seed(0))


def test_draws_as_the_rounding_that_it_cuts() -> None:
    outs = []
    for rounding in (StochasticRounding(), Detached(StochasticRounding())):
        torch.manual_seed(1)
        outs.append(rounding(SOFT))
    assert torch.equal(*outs)


def test_only_the_penalty_moves_a_mask_that_it_rounds(make_site: Callable[..., Site]) -> None:
    module = LearnedDropout(
        make_site(), rounding=Detached(StochasticRounding()), penalty=MaskPenalty(squared=1.0)
    )
    torch.nn.init.normal_(module.qkv.weight)
    hidden = torch.randn(3, 6, 8).requires_grad_()
    out = module(hidden, return_mask=True)
    weights = (module.qkv.weight, module.shift)
    (gradient,) = torch.autograd.grad(out.hidden.sum(), hidden, retain_graph=True)
    assert torch.equal(gradient, out.mask)
    assert torch.autograd.grad(out.hidden.sum(), weights, retain_graph=True, allow_unused=True) == (
        None, None,
    )  # fmt: skip
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(out.penalty, weights))


def test_names_what_it_cuts() -> None:
    assert repr(Detached(StochasticRounding())) == "Detached(StochasticRounding())"
