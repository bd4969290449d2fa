"""The compiled learned mask is the one of its parts: cosine, rounding, product and penalty."""

import pytest
import torch

from dropout.learned import cosine_mask
from dropout.rounding import StochasticRounding
from ops import learned_mask, native

pytestmark = pytest.mark.skipif(native.library() is None, reason="no compiler here")

SHAPES = [(1, 1, 1), (3, 7, 13), (8, 200, 144), (2, 33, 16), (1, 65, 156)]


def tensors(shape, dtype, angle=3.0):
    torch.manual_seed(0)
    hidden, attended = (torch.randn(shape).mul(s).to(dtype) for s in (1, angle))
    inputs = hidden, attended, torch.rand(shape[-1])
    return tuple(x.requires_grad_() for x in inputs), torch.randn(shape).to(dtype)


def by_parts(hidden, attended, shift):
    soft_mask = cosine_mask(attended, shift)
    mask = StochasticRounding()(soft_mask)
    return hidden * mask.to(hidden.dtype), soft_mask.square().mean()


def results(function, inputs, gradient, weight=100.0):
    torch.manual_seed(5)
    out, mean_square = function(*inputs)
    loss = (out.float() * gradient.float()).sum() + weight * mean_square
    return out, mean_square, *torch.autograd.grad(loss, inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_parts_together_from_the_same_noise(shape, dtype):
    inputs, gradient = tensors(shape, dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    ours, parts = (results(f, inputs, gradient) for f in (learned_mask.drop_by_cosine, by_parts))
    torch.testing.assert_close(ours[0], parts[0], rtol=0, atol=0)  # every mask the same
    torch.testing.assert_close(ours[1], parts[1], rtol=1e-6, atol=0)
    for got, want in zip(ours[2:], parts[2:], strict=True):
        assert got.dtype == want.dtype
        assert (got - want).norm() <= tolerance * want.norm()


def test_large_angles_and_the_ends_of_the_mask():
    attended = torch.tensor([0.0, torch.pi, -torch.pi, 100.3, -1000.7, 5000.1]).repeat(400, 1)
    hidden, shift = torch.ones_like(attended), torch.zeros(6)
    torch.manual_seed(0)
    out, mean_square = learned_mask.drop_by_cosine(hidden, attended, shift)
    probability = (attended[0].double().cos() / 2 + 0.5).float()
    assert (out[:, 0] == 1).all() and (out[:, 1:3] == 0).all()
    share = out.mean(0)
    assert ((share - probability).abs() <= 4 * (probability * (1 - probability) / 400).sqrt()).all()
    assert mean_square.item() == pytest.approx(probability.square().mean().item(), abs=1e-4)


def test_threads_change_nothing():
    inputs, gradient = tensors((5, 100, 20), torch.bfloat16)
    threads, runs = torch.get_num_threads(), []
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            runs.append(results(learned_mask.drop_by_cosine, inputs, gradient))
    finally:
        torch.set_num_threads(threads)
    for other in runs[1:]:
        assert all(a.equal(b) for a, b in zip(runs[0], other, strict=True))


def test_what_does_not_fit():
    x = torch.zeros(2, 3)
    assert learned_mask.fits(x, x)
    for hidden, attended in [
        (x.double(), x.double()),
        (x, x.bfloat16()),
        (x, x[:1]),
        (x.to("meta"), x.to("meta")),
    ]:
        assert not learned_mask.fits(hidden, attended)


def test_torchs_default_dtype_changes_nothing():
    inputs, gradient = tensors((3, 7, 13), torch.float32)
    expected = results(learned_mask.drop_by_cosine, inputs, gradient)
    try:
        torch.set_default_dtype(torch.float64)
        got = results(learned_mask.drop_by_cosine, inputs, gradient)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(a.equal(b) for a, b in zip(got, expected, strict=True))


def test_an_empty_batch_and_what_is_not_finite():
    inputs, gradient = tensors((0, 7, 13), torch.float32)
    assert results(learned_mask.drop_by_cosine, inputs, gradient)[2].shape == (0, 7, 13)
    hidden = torch.full((4, 16), torch.inf)
    out, _ = learned_mask.drop_by_cosine(hidden, torch.full((4, 16), torch.pi), torch.zeros(16))
    assert out.isnan().all()  # dropped, and yet not hidden
