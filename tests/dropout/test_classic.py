"""Classic dropout: what it expects equals what inverted dropout expects, but for a factor 1 - p."""

import math
from collections.abc import Callable

import torch
from torch import nn

from dropout.base import Site
from dropout.classic import ClassicDropout
from ops import native
from tests.dropout.laws import HEADS, STREAM, Law, select

LAW = Law(
    STREAM + HEADS,
    output=select,
    evaluated=lambda x, p: x * (1 - p),
    needs="a fused kernel scales while training",
)

P = 0.4


def test_is_inverted_dropout_times_keep_draw_by_draw(make_site: Callable[..., Site]) -> None:
    hidden = torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(0))
    classic, inverted = ClassicDropout(make_site(), p=P), nn.Dropout(P)
    torch.manual_seed(1)
    with native.without_kernels():
        ours = classic(hidden).hidden
    torch.manual_seed(1)
    torch.testing.assert_close(ours, (1 - P) * inverted(hidden))
    torch.testing.assert_close(classic.eval()(hidden).hidden, (1 - P) * inverted.eval()(hidden))


def test_training_expects_what_evaluation_gives(way: str, make_site: Callable[..., Site]) -> None:
    hidden, n = torch.linspace(-2, 2, 50), 4000
    classic = ClassicDropout(make_site(), p=P)
    torch.manual_seed(1)
    mean = classic(hidden.expand(n, 50)).hidden.mean(0)
    sigma = hidden.abs() * math.sqrt(P * (1 - P) / n)
    assert ((mean - classic.eval()(hidden).hidden).abs() <= 4 * sigma).all()


def test_evaluation_equals_scaling_the_next_weights(make_site: Callable[..., Site]) -> None:
    hidden = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    weight = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))
    activations = ClassicDropout(make_site(), p=P).eval()(hidden).hidden
    torch.testing.assert_close(activations @ weight.T, hidden @ ((1 - P) * weight).T)
