"""GELU and a linear layer, of which the compiled way keeps less."""

import pytest
import torch
import torch.nn.functional as F

from ops.gelu import _call, gelu, gelu_linear

pytestmark = pytest.mark.usefixtures("way")


def test_gelu_is_exact_from_tail_to_tail():
    x = torch.linspace(-30, 30, 100_001)[:, None].requires_grad_()
    out = gelu_linear(x, torch.ones(1, 1))
    (gradient,) = torch.autograd.grad(out.sum(), x)
    exact = x.detach().double().requires_grad_()
    want = F.gelu(exact)
    (want_gradient,) = torch.autograd.grad(want.sum(), exact)
    torch.testing.assert_close(out.double(), want, rtol=1e-6, atol=2e-6)
    torch.testing.assert_close(gradient.double(), want_gradient, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("shape", [(1, 1), (4, 7, 33), (2, 3, 5, 16), (0, 8)], ids=str)
def test_values_and_gradients(shape, dtype, tolerance, amx):
    torch.manual_seed(0)
    x = torch.randn(shape).to(dtype).requires_grad_()
    weight = torch.randn(5, shape[-1]).requires_grad_()
    gradient = torch.randn(*shape[:-1], 5)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        out = gelu_linear(x, weight)
    got = out, *torch.autograd.grad(out, (x, weight), gradient.to(out.dtype))
    exact = x.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    want = F.linear(F.gelu(exact[0]), exact[1])
    want = want, *torch.autograd.grad(want, exact, gradient.double())
    for a, b, like in zip(got, want, (x, x, weight), strict=True):
        assert a.dtype == like.dtype and a.shape == b.shape
        assert (a - b).norm() <= tolerance * b.norm() + 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_alone_it_is_the_same_to_the_last_bit(dtype):
    """So that an adapter around the linear layer starts as the layer was."""
    torch.manual_seed(0)
    x = torch.randn(3, 5, 33).to(dtype).requires_grad_()
    weight, gradient = torch.randn(7, 33).to(dtype), torch.randn(3, 5, 7).to(dtype)
    results = []
    for out in (gelu_linear(x, weight), F.linear(gelu(x), weight)):
        results.append((out, *torch.autograd.grad(out, x, gradient)))
    assert results[0][0].equal(results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1])


def test_the_weights_gradient_is_summed_in_float32(way, amx):
    torch.manual_seed(0)
    x, weight = torch.randn(500, 40).bfloat16(), torch.randn(20, 40, requires_grad=True)
    gradient = torch.randn(500, 20).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        out = gelu_linear(x, weight)
    (got,) = torch.autograd.grad(out, weight, gradient)
    exact = gradient.double().T @ gelu(x).double()
    tolerance = {"compiled": 1e-5, "torch": 0.01}[way]
    torch.testing.assert_close(got.double(), exact, rtol=tolerance, atol=10 * tolerance)


def test_a_frozen_weight_and_a_frozen_input():
    x, weight = torch.randn(3, 4, requires_grad=True), torch.randn(2, 4, requires_grad=True)
    (only_x,) = torch.autograd.grad(gelu_linear(x, weight.detach()).sum(), x)
    (only_weight,) = torch.autograd.grad(gelu_linear(x.detach(), weight).sum(), weight)
    both = torch.autograd.grad(gelu_linear(x, weight).sum(), (x, weight))
    assert only_x.equal(both[0]) and only_weight.equal(both[1])


def test_forward_outside_and_backward_inside_an_autocast(way):
    x, weight = torch.randn(30, 40, requires_grad=True), torch.randn(20, 40, requires_grad=True)
    out = gelu_linear(x, weight)
    with torch.autocast("cpu", torch.bfloat16):
        by_x, by_weight = torch.autograd.grad(out.sum(), (x, weight))
    want = torch.autograd.grad(F.linear(F.gelu(x), weight).sum(), (x, weight))
    torch.testing.assert_close((by_x, by_weight), want, rtol=0.02, atol=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_wide_tensor_is_kept(way, dtype):
    kept = []
    x = torch.randn(10, 100, dtype=dtype, requires_grad=True)
    weight = torch.randn(3, 100, requires_grad=True)
    with (
        torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16),
        torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape), lambda t: t),
    ):
        gelu_linear(x, weight)
    assert kept.count(x.shape) == {"compiled": 1, "torch": 2}[way]


def test_float32_under_an_autocast_to_bfloat16():
    """As a layer gives it that autocast does not know: the product is bfloat16, in both passes."""
    x, weight = torch.randn(30, 40, requires_grad=True), torch.randn(20, 40, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = gelu_linear(x, weight)
        by_x, by_weight = torch.autograd.grad(out.float().sum(), (x, weight))
        want = torch.autograd.grad(F.linear(F.gelu(x), weight).float().sum(), (x, weight))
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close((by_x, by_weight), want, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("other", [torch.zeros(6).bfloat16(), torch.zeros(5)], ids=["type", "size"])
def test_a_kernel_is_handed_no_tensors_that_differ(other):
    with pytest.raises(AssertionError):
        _call("gelu_forward", torch.zeros(6), other)
