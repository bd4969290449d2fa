"""Values and gradients of every rounding."""

import pytest
import torch

from dropout.rounding import SigmoidRounding, StochasticRounding, threshold


def soft_masks(n: int = 20_000) -> torch.Tensor:
    return torch.rand(n, generator=torch.Generator().manual_seed(0)).requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_stochastic_rounding_is_exactly_binary_with_gradient_exactly_one(
    dtype: torch.dtype,
) -> None:
    soft = soft_masks().detach().to(dtype).requires_grad_()
    mask = StochasticRounding()(soft)
    mask.sum().backward()
    assert set(mask.tolist()) == {0.0, 1.0}
    assert (soft.grad == 1).all()


def test_stochastic_rounding_keeps_with_probability_m() -> None:
    n = 100_000
    for m in (0.0, 0.1, 0.5, 0.93, 1.0):
        share = StochasticRounding()(torch.full((n,), m)).mean().item()
        assert abs(share - m) <= 4 * (m * (1 - m) / n) ** 0.5


def test_sigmoid_rounding_is_the_steep_sigmoid() -> None:
    soft = soft_masks()
    mask = SigmoidRounding(slope=60.0)(soft)
    mask.sum().backward()
    expected = torch.sigmoid(60 * (soft.detach() - 0.5))
    torch.testing.assert_close(mask, expected)
    torch.testing.assert_close(soft.grad, 60 * expected * (1 - expected))


def test_corrected_sigmoid_rounding_is_binary_with_the_sigmoids_gradient() -> None:
    soft = soft_masks()
    mask = SigmoidRounding(slope=60.0, correct=True)(soft)
    mask.sum().backward()
    steep = torch.sigmoid(60 * (soft.detach() - 0.5))
    assert torch.equal(mask, threshold(soft))
    torch.testing.assert_close(soft.grad, 60 * steep * (1 - steep))


def test_threshold_keeps_at_one_half() -> None:
    assert threshold(torch.tensor([0.0, 0.49, 0.5, 1.0])).tolist() == [0, 0, 1, 1]


def test_a_slope_that_is_not_positive_is_refused() -> None:
    for slope in (-1.0, 0.0):
        with pytest.raises(ValueError, match=rf"slope={slope} must be positive"):
            SigmoidRounding(slope)
    assert SigmoidRounding(0.5)(torch.ones(1)) == torch.sigmoid(torch.tensor(0.25))


def test_each_kind_shows_its_options() -> None:
    assert repr(StochasticRounding()) == "StochasticRounding()"
    assert repr(SigmoidRounding()) == "SigmoidRounding(slope=60.0, correct=False)"
