"""Layer-group dropout against torch.nn.Dropout3d on the heads stacked by group."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dropout.base import Site
from dropout.head import HeadDropout
from dropout.layer_group import LayerGroupDropout
from tests.dropout.laws import HEADS, Law

LAW = Law(HEADS, "BH", sharing=2, needs="it needs (B, T, n_head, head_size)")


def stack(hidden: Tensor, groups: int) -> Tensor:
    """(..., T, n_head, head_size) -> (..., groups, n_head / groups, T, head_size)."""
    return hidden.transpose(-3, -2).unflatten(-3, (groups, -1))


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("shape", [(3, 6, 4, 2), (6, 4, 2)])
def test_equals_torch_on_the_stack_of_groups(
    shape: tuple[int, ...], groups: int, make_site: Callable[..., Site]
) -> None:
    hidden = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    ours = LayerGroupDropout(make_site("attention_heads"), p=0.4, groups=groups)(hidden).hidden
    torch.manual_seed(1)
    assert torch.equal(stack(ours, groups), nn.Dropout3d(0.4)(stack(hidden, groups)))


def test_groups_of_one_are_head_dropout(make_site: Callable[..., Site]) -> None:
    site = make_site("attention_heads")
    hidden = torch.randn(3, 6, 4, 2, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    grouped = LayerGroupDropout(site, p=0.4, groups=4)(hidden).hidden
    torch.manual_seed(1)
    assert torch.equal(grouped, HeadDropout(site, p=0.4)(hidden).hidden)


@pytest.mark.parametrize("groups", [0, 3, 8])
def test_groups_must_divide_the_heads(groups: int, make_site: Callable[..., Site]) -> None:
    with pytest.raises(ValueError, match=rf"^groups={groups} must divide n_head=4, .*1, 2, 4$"):
        LayerGroupDropout(make_site("attention_heads"), p=0.4, groups=groups)


@pytest.mark.parametrize("shape", [(6, 8), (2, 2, 6, 4, 2)])
def test_another_rank_is_an_error(shape: tuple[int, ...], make_site: Callable[..., Site]) -> None:
    dropout = LayerGroupDropout(make_site("attention_heads"), p=0.4, groups=2)
    with pytest.raises(ValueError, match=r"hidden\.shape=.*\(B, T, n_head, head_size\)"):
        dropout(torch.zeros(shape))


def test_shows_its_groups(make_site: Callable[..., Site]) -> None:
    assert "groups=2" in repr(LayerGroupDropout(make_site("attention_heads"), p=0.4, groups=2))
