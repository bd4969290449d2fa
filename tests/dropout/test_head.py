"""Head dropout against torch.nn.Dropout2d with heads as channels."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from dropout.base import Site
from dropout.head import HeadDropout
from tests.dropout.laws import HEADS, Law

LAW = Law(HEADS, "BH", needs="it needs (B, T, n_head, head_size)")


def test_equals_torch_with_heads_as_channels(make_site: Callable[..., Site]) -> None:
    hidden = torch.randn(3, 6, 4, 2, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    ours = HeadDropout(make_site("attention_heads"), p=0.4)(hidden).hidden
    torch.manual_seed(1)
    assert torch.equal(ours, nn.Dropout2d(0.4)(hidden.transpose(1, 2)).transpose(1, 2))


def test_one_window_is_a_batch_of_one(make_site: Callable[..., Site]) -> None:
    # torch's own Dropout2d reads three axes as (N, C, L), and warns.
    hidden = torch.randn(6, 4, 2, generator=torch.Generator().manual_seed(0))
    dropout = HeadDropout(make_site("attention_heads"), p=0.4)
    torch.manual_seed(1)
    alone = dropout(hidden, return_mask=True)
    torch.manual_seed(1)
    batched = dropout(hidden[None])
    assert torch.equal(alone.hidden, batched.hidden[0])
    assert alone.mask is not None
    assert alone.mask.shape == (1, 4, 1)


@pytest.mark.parametrize("shape", [(6, 8), (2, 2, 6, 4, 2)])
def test_another_rank_is_an_error(shape: tuple[int, ...], make_site: Callable[..., Site]) -> None:
    with pytest.raises(ValueError, match=r"hidden\.shape=.*\(B, T, n_head, head_size\)"):
        HeadDropout(make_site("attention_heads"), p=0.4)(torch.zeros(shape))
