"""The compiled attention is plain attention: values, gradients, causality, dropout's law."""

import re

import pytest
import torch
import torch.nn.functional as F

from ops import attention, native
from ops.attention import _dropped, causal_attention

pytestmark = pytest.mark.skipif(native.library() is None, reason="no compiler here")

SHAPES = [  # batch, length, heads, head size: at, below and above whole tiles
    *[(1, 1, 1, 1), (2, 5, 3, 7), (2, 16, 2, 16), (1, 17, 1, 13), (1, 32, 2, 32)],
    *[(2, 200, 12, 13), (3, 64, 4, 24), (1, 100, 2, 64), (1, 33, 2, 100), (2, 31, 2, 33)],
]
DTYPES = [torch.float32, torch.bfloat16]


def random_qkv(batch, length, n_head, size, dtype=torch.float32, spread=1.5):
    torch.manual_seed(0)
    return (torch.randn(batch, length, 3 * n_head * size) * spread).to(dtype)


def value_and_gradient(qkv, n_head, out_gradient, p=0.0, fused=None):
    qkv = qkv.clone().requires_grad_()
    out = causal_attention(qkv, n_head, p, fused)
    out.backward(out_gradient.to(out.dtype))
    return out.detach(), qkv.grad


def distance(a, b):
    return ((a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-30)).item()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "spread"),
    [*((shape, 1.5) for shape in SHAPES), ((2, 50, 2, 8), 0.0), ((2, 50, 2, 8), 40.0)],
    ids=str,
)
def test_values_and_gradients_are_those_of_plain_products_in_float64(shape, spread, dtype):
    """Within a rounding or never much worse than plain products in `dtype`.

    Also where all scores are zero, and where they lie thousands apart.
    """
    batch, length, n_head, size = shape
    qkv = random_qkv(*shape, dtype, spread)
    out_gradient = torch.randn(batch, length, n_head, size).to(dtype)
    exact = value_and_gradient(qkv.double(), n_head, out_gradient, fused=False)
    plain = value_and_gradient(qkv, n_head, out_gradient, fused=False)
    ours = value_and_gradient(qkv, n_head, out_gradient)
    for got, rough, want in zip(ours, plain, exact, strict=True):
        assert got.dtype == dtype and got.shape == want.shape
        assert distance(got, want) <= 4 * distance(rough, want) + torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_future_has_exactly_no_influence(dtype):
    qkv = random_qkv(1, 40, 2, 12, dtype).requires_grad_()
    for position in (0, 15, 16, 38):
        (gradient,) = torch.autograd.grad(causal_attention(qkv, 2)[:, position].float().sum(), qkv)
        assert (gradient[:, position + 1 :] == 0).all()
        assert (gradient[:, position] != 0).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_value_that_is_not_finite_is_not_hidden(dtype):
    qkv = random_qkv(1, 20, 1, 8, dtype)
    qkv[0, 5, 3] = float("nan")
    out = causal_attention(qkv, 1)
    assert out[0, 5].isnan().all() and out[0, :5].isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_change_nothing(dtype):
    qkv, gradient = random_qkv(3, 70, 3, 10, dtype), torch.randn(3, 70, 3, 10)
    threads, results = torch.get_num_threads(), []
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            torch.manual_seed(1)
            results.append(value_and_gradient(qkv, 3, gradient, p=0.2))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(a.equal(b) for a, b in zip(results[0], other, strict=True))


def masked_probabilities(qkv, n_head, p):
    """What is left of the probabilities, (B, n_head, T, T), read off with unit vectors as values."""
    _, length, width = qkv.shape
    size = width // 3 // n_head
    assert size >= length
    qkv = qkv.clone()
    qkv[..., -n_head * size :] = torch.eye(length, size).repeat(1, n_head)
    return causal_attention(qkv, n_head, p).transpose(1, 2)[..., :length]


def test_dropout_drops_at_its_rate_and_scales_what_it_keeps():
    p, length = 0.3, 60
    qkv = random_qkv(20, length, 4, 64, spread=0.3)
    before, after = (masked_probabilities(qkv, 4, rate) for rate in (0.0, p))
    past = torch.ones(length, length).tril().bool().expand_as(before)
    kept = (after != 0)[past]
    assert (after[~past] == 0).all()
    torch.testing.assert_close(after[past][kept], before[past][kept] / (1 - p))
    assert abs(kept.double().mean() - (1 - p)) < 4 * (p * (1 - p) / kept.numel()) ** 0.5


def test_dropout_of_neighbours_in_every_direction_is_independent():
    length, p = 60, 0.5
    kept = masked_probabilities(random_qkv(40, length, 4, 64, spread=0.1), 4, p) != 0
    sign = (2.0 * kept - 1).double()
    for dim in range(4):
        for shift in (1, 2, 16):
            if shift >= sign.shape[dim]:
                continue
            n = sign.shape[dim] - shift
            pairs = sign.narrow(dim, 0, n) * sign.narrow(dim, shift, n)
            both_past = torch.ones(length, length).tril(-16).bool()
            both_past = both_past[-pairs.shape[2] :, : pairs.shape[3]]
            chosen = pairs[..., both_past]
            assert abs(chosen.mean()) < 4.5 / chosen.numel() ** 0.5, (dim, shift)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gradient_sees_the_mask_of_the_forward_pass(dtype):
    """Against autograd through plain products and the mask that the kernel drew."""
    batch, length, n_head, size, p = 2, 40, 2, 48, 0.4
    qkv, gradient = (
        random_qkv(batch, length, n_head, size),
        torch.randn(batch, length, n_head, size),
    )
    torch.manual_seed(3)
    factor = (masked_probabilities(qkv, n_head, p) != 0) / (1 - p)
    torch.manual_seed(3)
    got = value_and_gradient(qkv.to(dtype), n_head, gradient, p)
    exact = qkv.to(dtype).double().requires_grad_()
    query, key, value = exact.view(batch, length, 3, n_head, size).permute(2, 0, 3, 1, 4)
    future = torch.full((length, length), -torch.inf, dtype=torch.double).triu(1)
    probabilities = (query @ key.mT / size**0.5 + future).softmax(-1) * factor
    out = (probabilities @ value).transpose(1, 2)
    out.backward(gradient.double())
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    assert distance(got[0], out) < tolerance
    assert distance(got[1], exact.grad) < tolerance


def test_the_seed_decides_and_no_dropout_draws_nothing():
    qkv, outs = random_qkv(1, 30, 2, 8), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outs.append(causal_attention(qkv, 2, p=0.5))
    assert outs[0].equal(outs[1]) and not outs[0].equal(outs[2])
    state = torch.get_rng_state()
    causal_attention(qkv, 2)
    assert torch.get_rng_state().equal(state)


def test_a_strided_input_and_a_strided_gradient():
    qkv = random_qkv(2, 20, 2, 8)
    strided = qkv.mT.contiguous().mT
    assert not strided.is_contiguous()
    gradient = torch.randn(2, 2, 20, 8).transpose(1, 2)
    for a, b in zip(
        value_and_gradient(strided, 2, gradient),
        value_and_gradient(qkv, 2, gradient.contiguous()),
        strict=True,
    ):
        assert a.equal(b)


def test_other_dtypes_devices_and_the_last_rate_take_torch():
    qkv = random_qkv(1, 8, 2, 4)
    assert causal_attention(qkv.double(), 2).dtype == torch.float64
    assert causal_attention(qkv.to("meta"), 2).shape == (1, 8, 2, 4)
    assert (causal_attention(qkv, 2, p=1.0) == 0).all()


def test_without_queries_or_batch_there_is_nothing_to_do():
    assert causal_attention(torch.zeros(0, 4, 12), 2).shape == (0, 4, 2, 2)
    assert causal_attention(torch.zeros(2, 0, 12), 2).shape == (2, 0, 2, 2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_maximum_and_the_sum_of_each_query_are_kept_in_float32(monkeypatch, dtype):
    handed = []
    monkeypatch.setattr(native, "multiplies_in", lambda _: True)
    monkeypatch.setattr(attention, "_call", lambda name, tensors, _: handed.extend(tensors))
    causal_attention(random_qkv(2, 20, 3, 8, dtype), 3)
    qkv, out, statistics = handed
    assert (qkv.dtype, out.dtype, statistics.dtype) == (dtype, dtype, torch.float32)
    assert statistics.shape == (2 * 3, 2, 2, 16)  # for two blocks of 16 queries


def test_where_memory_runs_out_the_error_says_for_what(monkeypatch):
    monkeypatch.setattr(native, "function", lambda *_: lambda *_: 1)
    with pytest.raises(MemoryError, match=r"attention over \(1, 4, 24\): no memory"):
        causal_attention(torch.zeros(1, 4, 24), 2)


@pytest.mark.parametrize(("shape", "n_head"), [((1, 4, 26), 2), ((1, 4, 12), 8), ((4, 24), 2)])
def test_what_is_not_whole_heads_is_refused(shape, n_head):
    said = f"qkv {shape} must be (B, T, 3 C) with C a multiple of n_head={n_head}"
    with pytest.raises(ValueError, match=re.escape(said)):
        causal_attention(torch.zeros(shape), n_head)


class OnGPU(torch.Tensor):
    is_cuda = True


@pytest.mark.parametrize(
    ("kind", "fused", "taken"),
    [
        (torch.Tensor, None, 0),
        (torch.Tensor, False, 0),
        (torch.Tensor, True, 1),
        (OnGPU, None, 1),
        (OnGPU, False, 0),
    ],
)
def test_torchs_fused_kernel_is_taken_on_a_gpu_or_where_asked_for(monkeypatch, kind, fused, taken):
    calls, kernel = [], F.scaled_dot_product_attention
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda *a, **k: calls.append(k) or kernel(*a, **k)
    )
    qkv = random_qkv(2, 20, 2, 8)
    out = causal_attention(qkv.as_subclass(kind), 2, fused=fused).as_subclass(torch.Tensor)
    torch.testing.assert_close(out, causal_attention(qkv, 2))
    assert len(calls) == taken
    dropped = causal_attention(qkv.as_subclass(kind), 2, p=0.5, fused=fused)
    assert not dropped.as_subclass(torch.Tensor).allclose(out)


@pytest.mark.parametrize("fused", [None, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_torchs_defaults_change_nothing(dtype, fused):
    qkv, gradient = random_qkv(2, 50, 2, 8), torch.randn(2, 50, 2, 8)
    expected = value_and_gradient(qkv, 2, gradient, fused=fused)
    try:
        torch.set_default_dtype(dtype)
        with torch.device("meta"):
            got = value_and_gradient(qkv, 2, gradient, fused=fused)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(a.equal(b) for a, b in zip(got, expected, strict=True))


def test_plain_attention_drops_at_the_rate_and_independently():
    """Four neighbours come of one 64-bit number: no pair of them may lean together."""
    torch.manual_seed(0)
    n, p = 400_000, 0.5
    out = _dropped(torch.ones(n // 4, 4), p)
    assert out.unique().tolist() == [0, 2] and _dropped(out, 0.0) is out
    kept = (out > 0).double()
    correlation = torch.corrcoef(kept.T) - torch.eye(4)
    assert correlation.abs().max() < 4 / (n / 4) ** 0.5
    assert (kept.mean(0) - p).abs().max() < 4 * 0.5 / (n / 4) ** 0.5
    rare = _dropped(torch.ones(n), 0.93) > 0
    assert abs(rare.double().mean() - 0.07) < 4 * (0.93 * 0.07 / n) ** 0.5 + 1 / 2**17


def after_seed_0(draw):
    torch.manual_seed(0)
    return draw(), torch.get_rng_state()


def test_four_elements_take_one_number():
    _, state = after_seed_0(lambda: _dropped(torch.ones(10), 0.5))
    _, wanted = after_seed_0(lambda: torch.empty(3, dtype=torch.int64).random_(-(2**63), None))
    assert state.equal(wanted)


def test_what_is_traced_or_elsewhere_is_dropped_by_torch(monkeypatch):
    assert _dropped(torch.ones(10, device="meta"), 0.5).is_meta
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    ours, theirs = (after_seed_0(lambda f=f: f(torch.ones(10), 0.5)) for f in (_dropped, F.dropout))
    assert ours[0].equal(theirs[0])
