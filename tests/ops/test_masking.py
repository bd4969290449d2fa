"""Dropout of elements, compiled and by torch: one law, and masks that are as random as they must be."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from ops import native
from ops.masking import drop_to, dropout

N = 400_000
DTYPES = [(torch.float32, 1e-6), (torch.bfloat16, 4e-3)]

pytestmark = pytest.mark.usefixtures("way")


def kept(p, seed=0, n=N):
    torch.manual_seed(seed)
    return (dropout(torch.ones(n), p)[0] > 0).double()


@pytest.mark.parametrize("p", [1e-3, 0.1, 0.2, 0.5, 0.93])
@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_zero_at_the_rate_and_scaled_elsewhere(p, dtype, tolerance):
    torch.manual_seed(0)
    out, _ = dropout(torch.ones(N, dtype=dtype), p)
    assert out.unique().tolist() == pytest.approx([0.0, 1 / (1 - p)], rel=tolerance)
    dropped = (out == 0).double().mean().item()
    assert abs(dropped - p) < 4 * (p * (1 - p) / N) ** 0.5 + 1 / 2**17


@pytest.mark.parametrize("apart", [1, 2, 15, 16, 17, 32, 156, 4096])
def test_elements_are_independent(apart):
    sign = 2 * kept(0.5) - 1
    assert abs((sign[apart:] * sign[:-apart]).mean()) < 4 / N**0.5


def test_seeds_are_independent_and_the_seed_decides():
    first, second = kept(0.5, 1), kept(0.5, 2)
    assert kept(0.5, 1).equal(first)
    for apart in (0, 1, 16):
        signs = (2 * first[apart:] - 1) * (2 * second[: N - apart] - 1)
        assert abs(signs.mean()) < 4 / N**0.5


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (31,), (33,), (3, 0), (7, 5, 3), (5, 4097)])
def test_output_and_gradient_take_the_mask_that_is_handed_out(shape, dtype, tolerance):
    x = torch.randn(shape).to(dtype).requires_grad_()
    upstream = torch.randn(shape).to(dtype)
    torch.manual_seed(1)
    out, mask = dropout(x, 0.3, return_mask=True)
    out.backward(upstream)
    assert out.dtype == mask.dtype == dtype and set(mask.unique().tolist()) <= {0, 1}
    torch.testing.assert_close(out, x * mask / 0.7, rtol=2 * tolerance, atol=1e-6)
    torch.testing.assert_close(x.grad, upstream * mask / 0.7, rtol=2 * tolerance, atol=1e-6)
    torch.manual_seed(1)
    assert dropout(x, 0.3)[0].equal(out)


def test_strides_of_input_and_gradient_change_nothing():
    x, upstream = torch.randn(40, 6), torch.randn(40, 6)
    results = []
    for turned in (False, True):
        a = (x.T.contiguous().T if turned else x.clone()).requires_grad_()
        torch.manual_seed(1)
        out, _ = dropout(a, 0.5)
        out.backward(upstream.T.contiguous().T if turned else upstream)
        results.append((out, a.grad))
    (out, gradient), (turned_out, turned_gradient) = results
    if native.usable(x):  # torch's noise lies in memory as its input does
        assert out.equal(turned_out) and gradient.equal(turned_gradient)
    assert (turned_gradient * x).allclose(turned_out * upstream)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_the_ends_are_exact(p):
    x = torch.randn(50, requires_grad=True)
    out, mask = dropout(x, p, return_mask=True)
    assert out.equal(F.dropout(x, p)) and mask.equal(torch.full_like(x, 1 - p))
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert gradient.equal(mask)


@pytest.mark.parametrize("drop", [dropout, lambda x, p: drop_to(x, p, scale=1, shift=0, dropped=0)])
def test_a_value_that_is_not_finite_is_not_hidden(drop):
    out, _ = drop(torch.full((100,), torch.inf), 0.5)
    assert out.isnan().any() and not out.isfinite().any()


def test_what_is_dropped_can_become_anything():
    x = torch.randn(1000, requires_grad=True)
    out, mask = drop_to(x, 0.4, scale=3.0, shift=0.5, dropped=-2.0, return_mask=True)
    torch.testing.assert_close(out, torch.where(mask > 0, 3 * x + 0.5, -2.0))
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert gradient.equal(3 * mask) and 0 < mask.mean() < 1


@pytest.mark.parametrize("p", [0.0, 1e-9, 0.4])
def test_both_draw_one_mask_and_hand_it_out_where_asked(p):
    x, masks = torch.randn(1000), []
    for drop in (dropout, partial(drop_to, scale=1.0, shift=0.0, dropped=0.0)):
        torch.manual_seed(1)
        masks.append(drop(x, p, return_mask=True)[1])
        assert drop(x, p)[1] is None
    assert masks[0].equal(masks[1]) and (masks[0].all() or p == 0.4)


def test_what_no_kernel_takes_is_torchs_own(way):
    x = torch.randn(100, dtype={"compiled": torch.float64, "torch": torch.float32}[way])
    torch.manual_seed(1)
    out, _ = dropout(x, 0.3)
    torch.manual_seed(1)
    assert out.equal(F.dropout(x, 0.3))


def test_threads_change_nothing():
    threads, drawn = torch.get_num_threads(), []
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            drawn.append(kept(0.5, n=50_001))
    finally:
        torch.set_num_threads(threads)
    assert drawn[0].equal(drawn[1])


def test_nothing_is_kept_for_the_backward_pass():
    x = torch.randn(100, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        dropout(x, 0.5)
    assert not native.usable(x) or not saved


def test_it_traces_as_torchs_own():
    x = torch.randn(100)
    torch.manual_seed(1)
    traced = torch.compile(lambda x: dropout(x, 0.3)[0], fullgraph=True, backend="aot_eager")(x)
    torch.manual_seed(1)
    assert traced.equal(F.dropout(x, 0.3))
