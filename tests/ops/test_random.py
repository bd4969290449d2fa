"""Zeros and ones by a compiled hash keep the law of those by torch's generator."""

import pytest
import torch

from ops.random import bernoulli

N = 400_000


pytestmark = pytest.mark.usefixtures("way")


@pytest.mark.parametrize("p", [0.0, 1e-3, 0.1, 0.5, 0.93, 1.0])
def test_ones_at_the_rate(p):
    torch.manual_seed(0)
    drawn = bernoulli(torch.full((N,), p))
    assert set(drawn.unique().tolist()) <= {0.0, 1.0}
    assert abs(drawn.double().mean().item() - p) <= 4 * (p * (1 - p) / N) ** 0.5


def test_the_noise_is_uniform():
    """P(N < p) = p for every p at once, by Kolmogorov and Smirnov."""
    torch.manual_seed(0)
    p = torch.linspace(0, 1, N)
    excess = (bernoulli(p) - p).double().cumsum(0)
    assert excess.abs().max() < 2.0 * (N / 6) ** 0.5  # sum of p (1 - p) is N / 6


@pytest.mark.parametrize("apart", [1, 2, 15, 16, 17, 256, 4096])
def test_elements_are_independent(apart):
    torch.manual_seed(0)
    sign = 2 * bernoulli(torch.full((N,), 0.5)).double() - 1
    assert abs((sign[apart:] * sign[:-apart]).mean()) < 4 / N**0.5


def test_calls_are_independent_and_the_seed_decides():
    p = torch.full((N,), 0.5)
    torch.manual_seed(1)
    first, second = bernoulli(p), bernoulli(p)
    torch.manual_seed(1)
    assert bernoulli(p).equal(first)
    assert abs(((2 * first - 1) * (2 * second - 1)).mean()) < 4 / N**0.5


def test_threads_change_nothing():
    threads, drawn = torch.get_num_threads(), []
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            torch.manual_seed(1)
            drawn.append(bernoulli(torch.full((50_000,), 0.5)))
    finally:
        torch.set_num_threads(threads)
    assert drawn[0].equal(drawn[1])


def test_the_noise_is_torchs_own_where_there_is_no_kernel_alone(way):
    p = torch.full((1000,), 0.5)
    torch.manual_seed(1)
    drawn = bernoulli(p)
    torch.manual_seed(1)
    assert drawn.equal((torch.rand_like(p) < p).float()) == (way == "torch")


def test_any_shape_stride_and_dtype_and_no_gradient():
    for shape in [(), (1,), (3, 0), (5, 3, 2), (4097,)]:
        assert bernoulli(torch.ones(shape)).equal(torch.ones(shape))
    p = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).T
    assert bernoulli(p).equal(p)
    for dtype in (torch.bfloat16, torch.float64):
        certain = torch.tensor([1, 0, 1], dtype=dtype)
        drawn = bernoulli(certain)
        assert drawn.dtype == dtype and drawn.equal(certain)
    assert not bernoulli(torch.ones(3, requires_grad=True)).requires_grad
