"""Each penalty against its formula, and at the mask's ends."""

import pytest
import torch

from dropout.penalties import MaskPenalty


def test_each_kind_is_its_formula() -> None:
    m = torch.rand(50, 3, dtype=torch.float64)
    torch.testing.assert_close(MaskPenalty(squared=1.0)(m), (m**2 / 2).mean())
    torch.testing.assert_close(MaskPenalty(linear=1.0)(m), m.abs().mean())
    torch.testing.assert_close(MaskPenalty(entropy=1.0)(m), (-m * m.log2()).mean())
    weighed = MaskPenalty(squared=2.0, linear=0.5, entropy=0.25)(m)
    torch.testing.assert_close(
        weighed, (m**2).mean() + 0.5 * m.mean() - 0.25 * (m * m.log2()).mean()
    )


def test_a_mask_of_zeros_costs_nothing_and_has_no_nan() -> None:
    m = torch.zeros(4)
    assert MaskPenalty(squared=1.0, linear=1.0, entropy=1.0)(m) == 0
    assert MaskPenalty()(m) == 0


def test_the_gradient_of_the_squared_penalty_fades_with_the_mask() -> None:
    m = torch.tensor([0.1, 0.8], requires_grad=True)
    MaskPenalty(squared=1.0)(m).backward()
    torch.testing.assert_close(m.grad, torch.tensor([0.05, 0.4]))


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="linear=-1 must not be negative"):
        MaskPenalty(linear=-1)
