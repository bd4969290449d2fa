"""Dropout with fast noise keeps the law of F.dropout."""

import pytest
import torch
import torch.nn.functional as F

from ops.masking import dropout

N = 400_000


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5, 0.93])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 4e-3)])
def test_zero_at_the_rate_and_scaled_elsewhere(p, dtype, tolerance):
    torch.manual_seed(0)
    out = dropout(torch.ones(N, dtype=dtype), p)
    assert out.unique().tolist() == pytest.approx([0.0, 1 / (1 - p)], rel=tolerance)
    dropped = (out == 0).float().mean().item()
    assert abs(dropped - p) < 4 * (p * (1 - p) / N) ** 0.5 + 1 / 2**17


def test_elements_that_share_a_draw_are_independent():
    """Four neighbours come of one 64-bit number: no pair of them may lean together."""
    torch.manual_seed(0)
    kept = (dropout(torch.ones(N), 0.5) > 0).view(-1, 4).double()
    correlation = torch.corrcoef(kept.T) - torch.eye(4)
    assert correlation.abs().max() < 4 / (N / 4) ** 0.5
    assert (kept.mean(0) - 0.5).abs().max() < 4 * 0.5 / (N / 4) ** 0.5


def test_gradient_is_the_mask():
    torch.manual_seed(0)
    x = torch.randn(7, 5, 3, requires_grad=True)
    out = dropout(x, 0.3)
    out.sum().backward()
    torch.testing.assert_close(x.grad * x, out)


def test_the_seed_decides():
    x = torch.ones(1001)
    masks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        masks.append(dropout(x, 0.5))
    assert masks[0].equal(masks[1]) and not masks[0].equal(masks[2])


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_the_ends_are_exact(p):
    x = torch.randn(50)
    assert dropout(x, p).equal(F.dropout(x, p))


def test_fits_any_shape():
    for shape in [(), (1,), (3, 0), (5, 3, 2)]:
        assert dropout(torch.ones(shape), 0.5).shape == shape
