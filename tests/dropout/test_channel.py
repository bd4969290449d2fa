"""Channel dropout against torch.nn.Dropout1d, and against locked dropout: the same thing."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dropout.base import Site
from dropout.channel import ChannelDropout
from tests.dropout.laws import STREAM, Law

LAW = Law(STREAM, "BC")


def locked_dropout(x: Tensor, p: float) -> Tensor:
    """Variational dropout as recurrent networks write it: one mask (B, 1, C) a sequence."""
    mask = x.new_empty(x.shape[0], 1, x.shape[2]).bernoulli_(1 - p) / (1 - p)
    return x * mask


@pytest.mark.parametrize("shape", [(3, 6, 8), (6, 8)])
def test_equals_torch_with_the_axes_its_way(
    shape: tuple[int, ...], make_site: Callable[..., Site]
) -> None:
    hidden = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    ours = ChannelDropout(make_site(), p=0.4)(hidden).hidden
    torch.manual_seed(1)
    theirs = nn.Dropout1d(0.4)(hidden.transpose(-2, -1)).transpose(-2, -1)
    assert torch.equal(ours, theirs)


def test_equals_locked_dropout(make_site: Callable[..., Site]) -> None:
    hidden = torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    ours = ChannelDropout(make_site(), p=0.4)(hidden).hidden
    torch.manual_seed(1)
    assert torch.equal(ours, locked_dropout(hidden, 0.4))


@pytest.mark.parametrize("shape", [(8,), (2, 3, 6, 8)])
def test_another_rank_is_an_error(shape: tuple[int, ...], make_site: Callable[..., Site]) -> None:
    with pytest.raises(ValueError, match=r"channel \(locked\) .*must be \(B, T, C\)"):
        ChannelDropout(make_site(), p=0.4)(torch.zeros(shape))
