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
    assert MaskPenalty()(m) == MaskPenalty()(m + 1) == 0


def test_the_mean_square_is_all_that_the_squared_penalty_needs() -> None:
    m, penalty = torch.rand(50), MaskPenalty(squared=3.0)
    assert penalty.only_squared and not MaskPenalty(squared=1.0, entropy=1.0).only_squared
    torch.testing.assert_close(penalty.of_mean_square(m.square().mean()), penalty(m))


def test_a_penalty_that_weighs_nothing_is_not_computed() -> None:
    assert MaskPenalty(squared=1.0)(torch.tensor([-1.0])) == 0.5  # where the entropy is -inf


def test_shows_the_weights_that_there_are() -> None:
    assert repr(MaskPenalty(2.0, entropy=0.5)) == "MaskPenalty(squared=2.0, entropy=0.5)"


def test_the_gradient_of_the_squared_penalty_fades_with_the_mask() -> None:
    m = torch.tensor([0.1, 0.8], requires_grad=True)
    MaskPenalty(squared=1.0)(m).backward()
    torch.testing.assert_close(m.grad, torch.tensor([0.05, 0.4]))


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="linear=-1 must not be negative"):
        MaskPenalty(linear=-1)
