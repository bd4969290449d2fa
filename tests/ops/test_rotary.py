"""Rotary positions against complex numbers."""

import pytest
import torch

from ops.rotary import rotate


@pytest.mark.parametrize("size", [2, 6, 7])
def test_is_a_product_with_complex_numbers(size: int) -> None:
    x = torch.randn(3, 5, 2, size, dtype=torch.float64)
    half = size // 2
    pairs = torch.complex(x[..., :half], x[..., half : 2 * half])
    speeds = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    turns = torch.exp(1j * torch.arange(5)[:, None, None] * speeds)
    turned = pairs * turns
    expected = torch.cat((turned.real, turned.imag, x[..., 2 * half :]), -1)
    torch.testing.assert_close(rotate(x), expected, rtol=0, atol=1e-13)


def test_a_query_and_a_key_see_only_their_distance() -> None:
    query, key = torch.randn(2, 8, dtype=torch.float64)
    queries, keys = (rotate(x.expand(20, 1, 8))[:, 0] for x in (query, key))
    products = queries @ keys.T
    for distance in range(20):
        along = products.diagonal(-distance)
        torch.testing.assert_close(along, along[:1].expand_as(along))
    assert not torch.allclose(products[0, 0], products[5, 0])


def test_angles_are_precise_whatever_the_type() -> None:
    x = torch.randn(1, 300, 1, 4).bfloat16()
    exact = rotate(x.double())
    assert rotate(x).dtype == torch.bfloat16
    torch.testing.assert_close(rotate(x).double(), exact, rtol=2**-8, atol=2**-7)


def test_torchs_default_device_changes_nothing() -> None:
    x = torch.randn(2, 5, 1, 6)
    with torch.device("meta"):
        turned = rotate(x)
    assert turned.equal(rotate(x))
