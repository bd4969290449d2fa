"""Token dropout against torch.nn.Dropout1d with positions as channels."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from dropout.base import Site
from dropout.token import TokenDropout
from tests.dropout.laws import STREAM, Law

LAW = Law(STREAM, "BT")


@pytest.mark.parametrize("shape", [(3, 6, 8), (6, 8)])
def test_equals_torch_with_positions_as_channels(
    shape: tuple[int, ...], make_site: Callable[..., Site]
) -> None:
    hidden = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    ours = TokenDropout(make_site(), p=0.4)(hidden).hidden
    torch.manual_seed(1)
    assert torch.equal(ours, nn.Dropout1d(0.4)(hidden))


@pytest.mark.parametrize("shape", [(8,), (2, 3, 6, 8)])
def test_another_rank_is_an_error(shape: tuple[int, ...], make_site: Callable[..., Site]) -> None:
    with pytest.raises(ValueError, match=r"hidden\.shape=.*must be \(B, T, C\)"):
        TokenDropout(make_site(), p=0.4)(torch.zeros(shape))
