"""Linear layers: the kernel's gradients against exact ones, and where torch takes over."""

import pytest
import torch
import torch.nn.functional as F

from ops import native
from ops.gelu import gelu, gelu_linear
from ops.linear import Linear, linear, weight_gradient

needs_kernel = pytest.mark.skipif(
    not native.multiplies_in(torch.bfloat16), reason="no compiler, or no AMX, here"
)


@needs_kernel
@pytest.mark.parametrize(
    ("rows", "outputs", "inputs"),
    [(1, 1, 1), (33, 17, 5), (64, 32, 32), (31, 16, 48), (700, 50, 47), (1100, 300, 40)],
)
def test_the_product_is_exact_to_float32(rows, outputs, inputs):
    torch.manual_seed(0)
    gradient, x = torch.randn(rows, outputs).bfloat16(), torch.randn(rows, inputs).bfloat16()
    exact = gradient.double().T @ x.double()
    got = weight_gradient(gradient, x)
    torch.testing.assert_close(got.double(), exact, rtol=1e-5, atol=1e-4)
    assert weight_gradient(gradient, x, total=got) is got
    torch.testing.assert_close(got.double(), 2 * exact, rtol=1e-5, atol=2e-4)


@needs_kernel
def test_padding_strides_and_no_rows():
    torch.manual_seed(0)
    wide, x = torch.randn(70, 64).bfloat16(), torch.randn(70, 40).bfloat16()
    want = (wide.double().T @ x.double())[:50, :33]
    got = weight_gradient(wide, x, shape=(50, 33))
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-4)
    assert weight_gradient(wide[:, :50], x[:, :33]).equal(got)
    assert weight_gradient(wide.T.contiguous().T, x, shape=(50, 33)).equal(got)
    expanded = weight_gradient(torch.ones(1, 1).bfloat16().expand(70, 50), x[:, :33])
    torch.testing.assert_close(expanded[7], x[:, :33].float().sum(0), rtol=1e-5, atol=1e-4)
    assert weight_gradient(wide[:0], x[:0]).equal(torch.zeros(64, 40))
    assert weight_gradient(wide[:, :0], x).shape == (0, 40)


@needs_kernel
def test_threads_change_nothing():
    gradient, x = torch.randn(300, 200).bfloat16(), torch.randn(300, 60).bfloat16()
    threads, results = torch.get_num_threads(), []
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            results.append(weight_gradient(gradient, x))
    finally:
        torch.set_num_threads(threads)
    assert results[0].equal(results[1]) and results[0].equal(results[2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_and_gradients_under_autocast(way, dtype):
    """`dtype` is that of the input: a norm's float32 or a layer's bfloat16."""
    torch.manual_seed(0)
    x = torch.randn(3, 20, 40).to(dtype).requires_grad_()
    layer, gradient = Linear(40, 24), torch.randn(3, 20, 24).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
        by_x, by_weight = torch.autograd.grad(out, (x, layer.weight), gradient)
    exact_x = x.detach().bfloat16().double().requires_grad_()
    exact_weight = layer.weight.detach().bfloat16().double().requires_grad_()
    exact = F.linear(exact_x, exact_weight)
    exact.backward(gradient.double())
    assert (out.dtype, by_x.dtype, by_weight.dtype) == (torch.bfloat16, dtype, torch.float32)
    torch.testing.assert_close(out.double(), exact, rtol=0.01, atol=0.01)
    torch.testing.assert_close(by_x.double(), exact_x.grad, rtol=0.01, atol=0.01)
    summed = way == "compiled" and native.multiplies_in(torch.bfloat16)
    tolerance = 1e-5 if summed else 0.01
    torch.testing.assert_close(
        by_weight.double(), exact_weight.grad, rtol=tolerance, atol=10 * tolerance
    )


@needs_kernel
def test_behind_gelu_it_is_summed_in_float32_too():
    torch.manual_seed(0)
    x, weight = torch.randn(500, 40).bfloat16(), torch.randn(20, 40, requires_grad=True)
    gradient = torch.randn(500, 20).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        (got,) = torch.autograd.grad(gelu_linear(x, weight), weight, gradient)
        exact = gradient.double().T @ gelu(x).double()
    torch.testing.assert_close(got.double(), exact, rtol=1e-5, atol=1e-4)


def test_where_torch_takes_over(way):
    x, weight = torch.randn(5, 8), torch.randn(3, 8, requires_grad=True)
    assert linear(x, weight).equal(F.linear(x, weight))
    assert linear(x.double(), weight.double()).dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x.to("meta"), weight.to("meta")).shape == (5, 3)
        with torch.no_grad():
            assert linear(x, weight).equal(F.linear(x, weight))
        frozen = linear(x.requires_grad_(), weight.detach())
        assert frozen.requires_grad and frozen.dtype == torch.bfloat16
    with torch.autocast("cpu", torch.float16):
        assert linear(x, weight).dtype == torch.float16


def test_one_vector(way):
    x, layer = torch.randn(8, requires_grad=True), Linear(8, 3)
    with torch.autocast("cpu", torch.bfloat16):
        layer(x).float().sum().backward()
    torch.testing.assert_close(layer.weight.grad, x.detach().expand(3, 8), rtol=0.01, atol=0.01)
