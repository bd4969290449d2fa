"""Feature alpha dropout against torch.nn.FeatureAlphaDropout."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from dropout.base import Site
from dropout.feature_alpha import FeatureAlphaDropout
from tests.dropout.laws import STREAM, Law, saturated

LAW = Law(STREAM, "BC", saturated, activation="selu", needs="it needs (B, T, channels)")


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_equals_torch_with_the_axes_its_way(p: float, make_site: Callable[..., Site]) -> None:
    hidden = torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    ours = FeatureAlphaDropout(make_site(activation="selu"), p=p)(hidden).hidden
    torch.manual_seed(1)
    theirs = nn.FeatureAlphaDropout(p)(hidden.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=2e-7)


def test_one_window_is_a_batch_of_one(make_site: Callable[..., Site]) -> None:
    hidden = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    dropout = FeatureAlphaDropout(make_site(activation="selu"), p=0.4)
    torch.manual_seed(1)
    alone = dropout(hidden, return_mask=True)
    torch.manual_seed(1)
    assert torch.equal(alone.hidden, dropout(hidden[None]).hidden[0])
    assert alone.mask is not None
    assert alone.mask.shape == (1, 8)


@pytest.mark.parametrize("shape", [(8,), (2, 3, 6, 8)])
def test_another_rank_is_an_error(shape: tuple[int, ...], make_site: Callable[..., Site]) -> None:
    with pytest.raises(ValueError, match=r" feature_alpha dropout: it must be \(B, T, C\)"):
        FeatureAlphaDropout(make_site(activation="selu"), p=0.4)(torch.zeros(shape))


def test_another_activation_is_an_error_that_says_why(make_site: Callable[..., Site]) -> None:
    with pytest.raises(ValueError, match=r"activation=gelu does not go with feature_alpha dropout"):
        FeatureAlphaDropout(make_site("mlp_hidden"), p=0.1)
