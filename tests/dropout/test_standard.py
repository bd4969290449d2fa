"""Standard dropout against torch.nn.Dropout, and what its mask is for."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from dropout.base import Site
from dropout.standard import StandardDropout
from ops import native
from tests.dropout.laws import EVERY, Law

LAW = Law(EVERY)


@pytest.mark.parametrize("shape", [(3, 6, 8), (8,), ()])
@pytest.mark.parametrize("return_mask", [False, True])
def test_equals_torch_without_kernels(
    shape: tuple[int, ...], return_mask: bool, make_site: Callable[..., Site]
) -> None:
    hidden = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    with native.without_kernels():
        ours = StandardDropout(make_site(), p=0.4)(hidden, return_mask=return_mask).hidden
    torch.manual_seed(1)
    assert torch.equal(ours, nn.Dropout(0.4)(hidden))


def test_mean_over_draws_is_the_input(way: str, make_site: Callable[..., Site]) -> None:
    hidden, n, p = torch.linspace(-2, 2, 50), 4000, 0.4
    torch.manual_seed(1)
    mean = StandardDropout(make_site(), p=p)(hidden.expand(n, 50)).hidden.mean(0)
    sigma = hidden.abs() * math.sqrt(p / (1 - p) / n)
    assert ((mean - hidden).abs() <= 4 * sigma).all()


def test_a_mask_knows_a_dropped_zero_from_a_kept_one(
    way: str, make_site: Callable[..., Site]
) -> None:
    torch.manual_seed(1)
    out = StandardDropout(make_site(), p=0.4)(torch.zeros(1000), return_mask=True)
    assert out.mask is not None
    assert 0 < out.mask.mean() < 1
