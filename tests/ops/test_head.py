"""The chunked head against F.cross_entropy(F.linear(...))."""

import math
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ops import head as loss_module
from ops.head import head_loss, token_losses

pytestmark = pytest.mark.usefixtures("way", "amx")


SHAPES = [(7, 5, 11), (12, 8, 64), (30, 13, 129)]  # positions, width, vocabulary


def inputs(
    shape: tuple[int, int, int], dtype: torch.dtype = torch.float64, scale: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    count, width, vocab = shape
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(count, width, generator=generator, dtype=torch.float64) * scale
    weight = torch.randn(vocab, width, generator=generator, dtype=torch.float64)
    targets = torch.randint(vocab, (count,), generator=generator)
    return hidden.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), targets


def full(hidden: Tensor, weight: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    return F.cross_entropy(F.linear(hidden, weight), targets, reduction=reduction)


def gradients(loss: Tensor, *of: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, of)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("chunk_size", [1, 4, None])
def test_loss_and_gradients_are_those_of_the_full_logits(shape, chunk_size):
    hidden, weight, targets = inputs(shape)
    ours, reference = head_loss(hidden, weight, targets, chunk_size), full(hidden, weight, targets)
    torch.testing.assert_close(ours, reference, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        gradients(3 * ours, hidden, weight), gradients(3 * reference, hidden, weight)
    )


def test_targets_with_strides():
    hidden, weight, targets = inputs((12, 8, 64), torch.float32)
    strided = targets.repeat_interleave(3).view(12, 3)[:, 1]
    assert not strided.is_contiguous()
    assert head_loss(hidden, weight, strided).equal(head_loss(hidden, weight, targets))


def test_gradcheck():
    hidden, weight, targets = inputs((5, 3, 7))
    assert torch.autograd.gradcheck(lambda h, w: head_loss(h, w, targets, 2), (hidden, weight))


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=str
)
def test_low_precision_stays_near_float64(dtype, tolerance):
    hidden, weight, targets = inputs((40, 16, 200), dtype)
    exact = [t.detach().double().requires_grad_() for t in (hidden, weight)]
    ours, reference = head_loss(hidden, weight, targets, 16), full(*exact, targets)
    assert ours.dtype == torch.float32
    assert ours.item() == pytest.approx(reference.item(), rel=tolerance)
    for got, want in zip(
        gradients(ours, hidden, weight), gradients(reference, *exact), strict=True
    ):
        assert got.dtype == dtype
        assert (got.double() - want).norm() <= tolerance * want.norm()


def test_autocast_multiplies_in_bfloat16_and_sums_in_float32():
    hidden, weight, targets = inputs((40, 16, 200), torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = head_loss(hidden, weight, targets, 16)
    rounded = [t.detach().bfloat16().requires_grad_() for t in (hidden, weight)]
    assert ours.item() == pytest.approx(head_loss(*rounded, targets, 16).item(), abs=1e-6)
    assert all(g.dtype == torch.float32 for g in gradients(ours, hidden, weight))


def test_gradients_of_several_chunks_under_autocast():
    """Sizes off the multiples that products are padded to; three chunks, the last one short."""
    hidden, weight, targets = inputs((70, 21, 201), torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = head_loss(hidden, weight, targets, 32)
    exact = [t.detach().bfloat16().double().requires_grad_() for t in (hidden, weight)]
    wanted = gradients(full(*exact, targets), *exact)
    for got, want in zip(gradients(ours, hidden, weight), wanted, strict=True):
        assert (got - want).norm() <= 0.01 * want.norm()


def test_the_weights_gradient_is_summed_in_its_own_dtype(way):
    """Of probabilities that bfloat16 holds exactly; the sum of so many chunks it would not hold."""
    hidden, weight = torch.randn(1, 8).bfloat16().float(), torch.zeros(64, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        loss = head_loss(hidden.expand(600, 8), weight, torch.full((600,), 3), chunk_size=1)
    by_logits = 1 / 64 - torch.eye(64, dtype=torch.float64)[3]
    (gradient,) = gradients(loss, weight)
    tolerance = {"compiled": 1e-4, "torch": 0.01}[way]
    torch.testing.assert_close(
        gradient.double(), torch.outer(by_logits, hidden[0].double()), rtol=tolerance, atol=1e-6
    )


def test_gradient_of_a_confident_token_survives_bfloat16():
    """1 - p is formed before rounding: p = 0.999 rounds to 1, its gradient would vanish."""
    hidden = torch.tensor([[math.log(999.0)]], dtype=torch.bfloat16, requires_grad=True)
    weight = torch.tensor([[1.0], [0.0]], dtype=torch.bfloat16, requires_grad=True)
    (gradient,) = gradients(head_loss(hidden, weight, torch.tensor([0])), hidden)
    assert gradient.item() == pytest.approx(-0.001, rel=0.05)


def test_a_loss_beyond_float32_exponents_is_finite_and_exact():
    hidden, weight, targets = inputs((6, 8, 32), torch.float32, scale=100.0)
    ours, reference = head_loss(hidden, weight, targets), full(hidden, weight, targets)
    assert reference > 104  # -log of the smallest float32
    torch.testing.assert_close(ours, reference)


def test_nothing_is_formed_for_gradients_that_nobody_wants(monkeypatch):
    hidden, weight, targets = inputs((6, 8, 32))
    loud = head_loss(hidden, weight, targets)
    monkeypatch.setattr(loss_module, "_plus_product", None)
    with torch.no_grad():
        quiet = head_loss(hidden, weight, targets)
    assert not quiet.requires_grad
    torch.testing.assert_close(quiet, loud.detach())


@pytest.mark.parametrize("frozen", [0, 1])
def test_a_frozen_side_gets_no_gradient(frozen):
    tensors = list(inputs((6, 8, 32))[:2])
    targets = inputs((6, 8, 32))[2]
    tensors[frozen] = tensors[frozen].detach()
    loss = head_loss(*tensors, targets)
    assert loss.grad_fn.saved_tensors[frozen] is None
    loss.backward()
    assert tensors[frozen].grad is None
    assert tensors[1 - frozen].grad is not None


@pytest.mark.parametrize("shape", SHAPES)
def test_token_losses(shape):
    hidden, weight, targets = inputs(shape)
    ours = token_losses(hidden, weight, targets, chunk_size=4)
    assert not ours.requires_grad
    torch.testing.assert_close(ours, full(hidden, weight, targets, reduction="none").detach())


@pytest.mark.parametrize(
    ("count", "limit", "chunks"),
    [
        (24, 10, [10, 10, 4]),
        (240, 100, [96, 96, 48]),
        (130, 100, [96, 34]),
        (90, 100, [90]),
        (3, 1, [1, 1, 1]),
    ],
)
def test_default_chunks_bound_the_logits(monkeypatch, count, limit, chunks):
    """At most CHUNK_ELEMENTS logits at a time, in whole tiles where that allows them."""
    hidden, weight, targets = inputs((count, 8, 64))
    monkeypatch.setitem(loss_module.CHUNK_ELEMENTS, "cpu", limit * 64)
    seen = chunk_sizes(monkeypatch)
    head_loss(hidden, weight, targets)
    assert seen == chunks


@pytest.mark.parametrize("function", [head_loss, torch.no_grad()(head_loss), token_losses])
def test_chunks_are_as_large_as_one_says(monkeypatch, function):
    seen = chunk_sizes(monkeypatch)
    function(*inputs((10, 8, 64)), chunk_size=4)
    assert seen == [4, 4, 2]


def chunk_sizes(monkeypatch) -> list[int]:
    """A list that will have the positions of every chunk."""
    seen, original = [], loss_module._logits
    monkeypatch.setattr(
        loss_module, "_logits", lambda x, *a, **k: seen.append(len(x)) or original(x, *a, **k)
    )
    return seen


@pytest.mark.parametrize(("shape", "tiles"), [((7, 5, 11), (8, 64)), ((12, 16, 129), (16, 192))])
def test_products_are_of_whole_tiles(shape, tiles):
    hidden, table = loss_module._product_operands(*inputs(shape)[:2])
    assert hidden.shape == (shape[0], tiles[0]) and table.shape == tiles[::-1]


@pytest.mark.parametrize(("device", "copied"), [("cpu", True), ("meta", False)])
def test_the_turned_table_is_copied_on_a_cpu_alone(device, copied):
    columns = loss_module._columns(torch.empty(64, 8, device=device))
    assert columns.shape == (8, 64) and columns.is_contiguous() == copied


# Bytes of the cast logits and their log-softmax for each of the logits.
BESIDE = {torch.bfloat16: 4 + 4, torch.float32: 4, torch.float64: 8}


@pytest.mark.parametrize("dtype", BESIDE, ids=str)
def test_evaluation_holds_no_more_than_a_training_step(monkeypatch, way, dtype):
    """Counting, where no kernel does it in place, what lies beside the logits."""
    hidden, weight, targets = (t.detach() for t in inputs((2976, 8, 64), dtype))
    monkeypatch.setitem(loss_module.CHUNK_ELEMENTS, "cpu", 1000 * 64)
    seen = chunk_sizes(monkeypatch)
    head_loss(hidden.requires_grad_(), weight, targets)
    training = max(seen) * dtype.itemsize
    assert max(seen) == 992 and sum(seen) == 2976
    seen.clear()
    token_losses(hidden, weight, targets)
    assert sum(seen) == 2976
    in_place = way == "compiled" and dtype != torch.float64
    held = max(seen) * (dtype.itemsize + (0 if in_place else BESIDE[dtype]))
    assert 0.8 * training < held <= 1000 * dtype.itemsize


@pytest.mark.parametrize("dtype", BESIDE, ids=str)
def test_a_device_without_a_compiler_takes_torch_in_float32(monkeypatch, dtype):
    """As a GPU does; the values and gradients of F.cross_entropy, to the rounding of its own.

    In chunks that hold no more than others, with what lies beside them.
    """
    seen = chunk_sizes(monkeypatch)
    monkeypatch.setitem(loss_module.CHUNK_ELEMENTS, "cpu", 160 * 256)
    monkeypatch.setattr(loss_module, "_kernel", lambda inputs: None)
    monkeypatch.setattr(loss_module, "_in_torch", lambda _: loss_module._wide_softmax_minus_target_)
    hidden, weight, targets = inputs((70, 16, 200), dtype)
    exact = [t.detach().double().requires_grad_() for t in (hidden, weight)]
    ours, reference = head_loss(hidden, weight, targets), full(*exact, targets)
    assert 160 / 2 < max(seen) * (1 + BESIDE[dtype] / dtype.itemsize) <= 160
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float64: 1e-12}[dtype]
    assert ours.item() == pytest.approx(reference.item(), rel=tolerance)
    wanted = gradients(reference, *exact)
    for got, want in zip(gradients(ours, hidden, weight), wanted, strict=True):
        assert (got.double() - want).norm() <= tolerance * want.norm()
    losses = token_losses(hidden, weight, targets)
    torch.testing.assert_close(losses.mean(), ours.detach())


@pytest.mark.parametrize("compiles", [True, False])
def test_a_device_is_asked_for_no_value(monkeypatch, compiles):
    """One without values stands for it, of which autocast does not know."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _: False)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    monkeypatch.setitem(loss_module.CHUNK_ELEMENTS, "cuda", 4 * 64)
    asked, wide = [], loss_module._wide_softmax_minus_target_
    monkeypatch.setattr(loss_module, "compiles_on", lambda device: asked.append(device) or compiles)
    monkeypatch.setattr(
        loss_module,
        "_compiled_softmax_minus_target_",
        lambda: lambda *tensors: asked.append("kernel") or wide(*tensors),
    )
    hidden, weight, targets = (t.detach().to("meta") for t in inputs((7, 5, 11)))
    loss = head_loss(hidden.requires_grad_(), weight.requires_grad_(), targets)
    loss.backward()
    assert asked == (["meta", "kernel", "kernel"] if compiles else ["meta"])
    assert hidden.grad.shape == (7, 5) and weight.grad.shape == (11, 5)


def test_torch_in_bfloat16_takes_the_loss_from_what_it_stores():
    logits = torch.tensor([[3.0, 0.0, 1.0]], dtype=torch.bfloat16)
    (loss,) = loss_module._narrow_softmax_minus_target_(logits, torch.tensor([0]))
    assert loss.item() == pytest.approx(-math.log1p(logits[0, 0].item()), rel=1e-6)


def test_torchs_defaults_change_nothing(way):
    hidden, weight, targets = inputs((7, 5, 11), torch.float32)
    expected = head_loss(hidden, weight, targets)
    try:
        torch.set_default_dtype(torch.float64)
        with torch.device("meta" if way == "compiled" else "cpu"):
            got = head_loss(hidden, weight, targets)
    finally:
        torch.set_default_dtype(torch.float32)
    assert got.dtype == torch.float32 and got.equal(expected)


def test_where_memory_runs_out_the_error_says_for_what(monkeypatch):
    monkeypatch.setattr(loss_module.native, "function", lambda *_: lambda *_: 1)
    with pytest.raises(MemoryError, match=r"the softmax of \(4, 3\) logits"):
        loss_module._native_softmax_minus_target_(torch.zeros(4, 3), torch.zeros(4).long())


def test_torch_in_float32_is_exact_where_a_probability_is_near_0_or_1():
    logits = torch.tensor([[30.0, 0.0, 0.0], [0.0, 200.0, 0.0]])
    losses = loss_module._wide_softmax_minus_target_(logits, torch.tensor([0, 0]))
    assert losses.tolist() == pytest.approx([2 * math.exp(-30), 200], rel=1e-6)
    assert logits[0].tolist() == pytest.approx(
        [-2 * math.exp(-30), math.exp(-30), math.exp(-30)], rel=1e-6
    )
    assert logits[1].tolist() == pytest.approx([-1, 1, 0], abs=1e-12)


@pytest.mark.parametrize("works", [True, False])
def test_whether_a_compiler_works_is_tried_once(monkeypatch, caplog, works):
    tried = []

    def compile_(function, **_):
        tried.append(function)
        return function if works else broken

    def broken(_):
        raise RuntimeError("Failed to find C compiler.\nPlease specify one")

    monkeypatch.setattr(torch, "compile", compile_)
    loss_module.compiles_on.cache_clear()
    assert [loss_module.compiles_on("cpu") for _ in range(2)] == [works] * 2
    loss_module.compiles_on.cache_clear()
    assert len(tried) == 1
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == (not works)
    assert all("nothing compiles here (Failed to find C compiler.)" in line for line in said)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": torch.zeros(2, 4, 4)}, r"must be \(N, C\) and \(V, C\): flatten the batch"),
        ({"weight": torch.zeros(9, 4, 4)}, r"and weight \(9, 4, 4\) must be \(N, C\) and"),
        ({"weight": torch.zeros(9, 5)}, r"hidden \(2, 4\) and weight \(9, 5\) must be"),
        ({"weight": torch.zeros(9, 4, device="meta")}, "weight is on meta and must be on cpu"),
        ({"targets": torch.zeros(3, dtype=torch.int64)}, "one token id for each of the 2 rows"),
        ({"chunk_size": 0}, "chunk_size=0 must be at least 1"),
        ({"targets": torch.zeros(2, dtype=torch.int32)}, "must be torch.int64"),
        ({"targets": torch.tensor([0, 9])}, r"between 0 and 9 and must lie in \[0, 9\)"),
        ({"targets": torch.tensor([-1, 0])}, r"between -1 and 0 and must lie in \[0, 9\)"),
    ],
)
def test_errors(change, message):
    arguments = {
        "hidden": torch.zeros(2, 4, requires_grad=True),
        "weight": torch.zeros(9, 4),
        "targets": torch.zeros(2, dtype=torch.int64),
    }
    with pytest.raises(ValueError, match=message):
        head_loss(**(arguments | change))
