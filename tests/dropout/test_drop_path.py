"""DropPath against torch.nn.Dropout1d with samples as channels, and its rate by depth."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from dropout.base import Site
from dropout.drop_path import DropPath
from tests.dropout.laws import Law

LAW = Law(("residual_attention", "residual_mlp"), "B")


@pytest.mark.parametrize("shape", [(9, 6, 8), (9, 8), (9,)])
def test_equals_torch_with_samples_as_channels(
    shape: tuple[int, ...], make_site: Callable[..., Site]
) -> None:
    hidden = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    ours = DropPath(make_site("residual_mlp"), p=0.4)(hidden).hidden
    torch.manual_seed(1)
    assert torch.equal(ours, nn.Dropout1d(0.4)(hidden.view(1, 9, -1)).view_as(hidden))


def test_linear_in_depth_grows_to_p_at_the_last_layer(make_site: Callable[..., Site]) -> None:
    sites = [make_site("residual_attention", layer=layer, n_layer=4) for layer in range(4)]
    rates = [DropPath(site, p=0.2, linear_in_depth=True).p for site in sites]
    assert rates == pytest.approx([0.05, 0.1, 0.15, 0.2])
    assert [DropPath(site, p=0.2).p for site in sites] == [0.2] * 4


def test_a_scalar_has_no_samples(make_site: Callable[..., Site]) -> None:
    with pytest.raises(
        ValueError, match=r"^hidden\.shape=\(\).*must be \(B, \.\.\.\), because .*dropped$"
    ):
        DropPath(make_site("residual_mlp"), p=0.4)(torch.tensor(1.0))


def test_shows_the_rate_of_its_layer(make_site: Callable[..., Site]) -> None:
    dropout = DropPath(make_site("residual_mlp"), p=0.4, linear_in_depth=True)
    assert repr(dropout) == "DropPath(p=0.2, linear_in_depth=True)"
