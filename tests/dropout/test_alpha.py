"""Alpha dropout against torch.nn.AlphaDropout, and the two moments that it keeps."""

import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dropout.alpha import AlphaDropout, affine
from dropout.base import Site
from ops import native
from tests.dropout.laws import HEADS, STREAM, Law, saturated

LAW = Law(
    STREAM + HEADS,
    output=saturated,
    activation="selu",
    needs="it needs more than the rate of a fused kernel",
)


@pytest.mark.parametrize("shape", [(3, 6, 8), (8,), ()])
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_equals_torch_without_kernels(
    shape: tuple[int, ...], p: float, make_site: Callable[..., Site]
) -> None:
    hidden = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    with native.without_kernels():
        ours = AlphaDropout(make_site(activation="selu"), p=p)(hidden).hidden
    torch.manual_seed(1)
    torch.testing.assert_close(ours, nn.AlphaDropout(p)(hidden), rtol=1e-6, atol=2e-7)


def test_at_rate_one_scale_and_shift_are_0_too() -> None:
    assert affine(1.0) == {"scale": 0, "shift": 0, "dropped": 0}


@pytest.mark.parametrize("p", [0.05, 0.1, 0.5])
def test_keeps_mean_zero_and_variance_one(
    way: str, p: float, make_site: Callable[..., Site]
) -> None:
    torch.manual_seed(1)
    selu = F.selu(torch.randn(400_000))  # of a standard normal: itself of mean 0 and variance 1
    out = AlphaDropout(make_site(activation="selu"), p=p)(selu).hidden
    assert out.mean().abs() < 0.01
    assert (out.var() - 1).abs() < 0.02


def test_the_mask_knows_a_saturated_value_from_a_dropped_one(
    make_site: Callable[..., Site],
) -> None:
    hidden, p = F.selu(torch.full((1000,), -50.0)), 0.4
    torch.manual_seed(1)
    out = AlphaDropout(make_site(activation="selu"), p=p)(hidden, return_mask=True)
    assert out.mask is not None
    assert out.hidden.std() < 1e-6  # dropped or kept, here the values are one
    assert abs(out.mask.mean() - 0.6) < 4 * (p * (1 - p) / 1000) ** 0.5


def test_another_activation_is_an_error_that_says_why(make_site: Callable[..., Site]) -> None:
    message = (
        "activation=gelu does not go with alpha dropout: what it drops becomes the value where SELU "
        "saturates, and only among SELU's outputs does that keep mean 0 and variance 1; "
        "use model.activation=selu"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        AlphaDropout(make_site("mlp_hidden"), p=0.1)
