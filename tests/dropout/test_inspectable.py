"""Inspectable dropout against torch.nn.Dropout, and what its mask is for."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from dropout.base import Site
from dropout.inspectable import InspectableDropout


@pytest.mark.parametrize("shape", [(3, 6, 8), (8,), ()])
def test_equals_torch(shape: tuple[int, ...], make_site: Callable[..., Site]) -> None:
    hidden = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    ours = InspectableDropout(make_site(), p=0.4)(hidden).hidden
    torch.manual_seed(1)
    assert torch.equal(ours, nn.Dropout(0.4)(hidden))


def test_mean_over_draws_is_the_input(make_site: Callable[..., Site]) -> None:
    hidden, n, p = torch.linspace(-2, 2, 50), 4000, 0.4
    torch.manual_seed(1)
    mean = InspectableDropout(make_site(), p=p)(hidden.expand(n, 50)).hidden.mean(0)
    sigma = hidden.abs() * math.sqrt(p / (1 - p) / n)
    assert ((mean - hidden).abs() <= 4 * sigma).all()


def test_a_mask_knows_a_dropped_zero_from_a_kept_one(make_site: Callable[..., Site]) -> None:
    torch.manual_seed(1)
    out = InspectableDropout(make_site(), p=0.4)(torch.zeros(1000), return_mask=True)
    assert out.mask is not None
    assert 0 < out.mask.mean() < 1
