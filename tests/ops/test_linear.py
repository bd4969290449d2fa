"""Linear layers: the kernel's gradients against exact ones, and where torch takes over."""

import pytest
import torch
import torch.nn.functional as F

from ops import native
from ops.linear import Linear, _with_whole_rows, linear, weight_gradient


@pytest.mark.usefixtures("amx")
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


@pytest.mark.usefixtures("amx")
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


@pytest.mark.usefixtures("amx")
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


@pytest.mark.parametrize(
    ("x", "whole"),
    [
        (torch.randn(4, 3), True),
        (torch.randn(4, 6)[:, :3], True),
        (torch.randn(4, 6)[:, ::2], False),
        (torch.randn(3, 4).T, False),
        (torch.randn(1, 3).expand(4, 3), False),
    ],
    ids=["contiguous", "padded", "apart", "turned", "expanded"],
)
def test_rows_that_lie_whole_are_not_copied(x, whole):
    got = _with_whole_rows(x)
    assert got.equal(x) and (got is x) == whole


GRADIENT, X = torch.zeros(4, 2).bfloat16(), torch.zeros(4, 3).bfloat16()


@pytest.mark.parametrize(
    "change",
    [
        {"x": X[:3]},
        {"x": X.float()},
        {"gradient": GRADIENT.float()},
        {"total": torch.zeros(3, 2)},
        {"total": torch.zeros(2, 3).double()},
        {"total": torch.zeros(3, 2).T},
        {"shape": (3, 3)},
        {"shape": (2, 4)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_kernel_is_handed_nothing_that_does_not_fit(amx, change):
    with pytest.raises(AssertionError):
        weight_gradient(**({"gradient": GRADIENT, "x": X} | change))


def test_torchs_defaults_change_nothing(amx):
    gradient, x = torch.randn(4, 2).bfloat16(), torch.randn(4, 3).bfloat16()
    expected = weight_gradient(gradient, x)
    try:
        torch.set_default_dtype(torch.float64)
        with torch.device("meta"):
            got = weight_gradient(gradient, x)
    finally:
        torch.set_default_dtype(torch.float32)
    assert got.dtype == torch.float32 and got.equal(expected)


def test_where_memory_runs_out_the_error_says_for_what(monkeypatch):
    monkeypatch.setattr(native, "function", lambda *_: lambda *_: 1)
    with pytest.raises(MemoryError, match=r"to pack a layer's input, \(4, 3\)"):
        weight_gradient(GRADIENT, X)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_and_gradients_under_autocast(way, amx, dtype):
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
    tolerance = {"compiled": 1e-5, "torch": 0.01}[way]
    torch.testing.assert_close(
        by_weight.double(), exact_weight.grad, rtol=tolerance, atol=10 * tolerance
    )


def test_where_torch_takes_over(way, amx):
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
        half = linear(x, weight)
        assert half.dtype == torch.float16 and half.equal(F.linear(x, weight))


def test_a_bias_is_added_in_the_products_dtype(way, amx):
    x, layer = torch.randn(5, 8), Linear(8, 3, bias=True)
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
        assert out.equal(linear(x, layer.weight) + layer.bias.bfloat16())
    assert out.dtype == torch.bfloat16 and Linear(8, 3).bias is None


def test_one_vector(way, amx):
    x, layer = torch.randn(8, requires_grad=True), Linear(8, 3)
    with torch.autocast("cpu", torch.bfloat16):
        layer(x).float().sum().backward()
    torch.testing.assert_close(layer.weight.grad, x.detach().expand(3, 8), rtol=0.01, atol=0.01)
