"""LearnedDropout against a float64 reference written from the equations."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dropout.base import Site
from dropout.learned import LearnedDropout, cosine_mask, mask_stats
from dropout.penalties import MaskPenalty
from dropout.rounding import SigmoidRounding, StochasticRounding
from tests.dropout.laws import STREAM, Law, select

LAW = Law(STREAM, output=select, evaluated=None, needs="it needs (B, T, channels)")

B, T, C, H = 3, 6, 8, 4


def build(site: Site, **options: object) -> LearnedDropout:
    torch.manual_seed(0)
    usual = {
        "rounding": StochasticRounding(),
        "penalty": MaskPenalty(squared=1.0),
        "shift_init": 1.2,
    }
    module = LearnedDropout(site, **(usual | options)).double()  # type: ignore[arg-type]
    torch.nn.init.normal_(module.qkv.weight, std=0.7)
    with torch.no_grad():
        module.shift += torch.randn(C, dtype=torch.float64)
    return module


def reference(
    x: Tensor, weight: Tensor, shift: Tensor, noise: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Y and M, position by position and head by head."""
    soft = torch.empty_like(x)
    query, key, value = ((x @ w.T).view(B, T, H, C // H) for w in weight.chunk(3))
    for t in range(T):
        for h in range(H):
            scores = torch.einsum("bd,bsd->bs", query[:, t, h], key[:, : t + 1, h])
            attended = torch.einsum(
                "bs,bsd->bd", (scores / math.sqrt(C // H)).softmax(1), value[:, : t + 1, h]
            )
            channels = slice(h * C // H, (h + 1) * C // H)
            soft[:, t, channels] = 0.5 * torch.cos(attended + shift[channels]) + 0.5
    if noise is None:
        return x * (soft >= 0.5), soft
    kept, dropped = soft + (1 - soft).detach(), soft - soft.detach()
    return x * torch.where(noise < soft, kept, dropped), soft


@pytest.mark.parametrize("training", [True, False])
def test_forward_and_gradients_are_those_of_the_equations(
    make_site: Callable[..., Site], training: bool
) -> None:
    module = build(make_site()).train(training)
    x = torch.randn(B, T, C, dtype=torch.float64)
    weights = torch.randn(B, T, C, dtype=torch.float64)
    torch.manual_seed(7)
    noise = torch.rand(B, T, C, dtype=torch.float64) if training else None

    def gradients(output: Tensor, soft: Tensor, inputs: list[Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad((output * weights).sum() + (soft**2 / 2).mean(), inputs)

    x.requires_grad_()
    inputs = [x, module.qkv.weight, module.shift]
    torch.manual_seed(7)
    out = module(x, return_mask=True)
    expected, soft = reference(x, module.qkv.weight, module.shift, noise)
    assert out.penalty is not None and out.soft_mask is not None and out.mask is not None
    torch.testing.assert_close(out.hidden, expected)
    torch.testing.assert_close(out.penalty, (soft**2 / 2).mean())
    torch.testing.assert_close(
        gradients(out.hidden, out.soft_mask, inputs), gradients(expected, soft, inputs)
    )
    assert set(out.mask.unique().tolist()) == {0.0, 1.0}


def test_ones_come_with_probability_m_under_bfloat16_too(make_site: Callable[..., Site]) -> None:
    module = build(make_site()).float()
    x = torch.randn(1, T, C)
    n = 4000
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        out = module(x.expand(n, T, C), return_mask=True)
    assert out.soft_mask.dtype == torch.float32
    m = out.soft_mask[0]
    sigma = (m * (1 - m) / n).sqrt()
    assert ((out.mask.mean(0) - m).abs() <= 4.5 * sigma + 1e-6).all()


def test_a_mask_cannot_see_the_future(make_site: Callable[..., Site]) -> None:
    module = build(make_site())
    x = torch.randn(B, T, C, dtype=torch.float64, requires_grad=True)
    for t in range(T):
        (gradient,) = torch.autograd.grad(
            module.soft_map(module.attend(x), module.shift)[:, t].sum(), x
        )
        assert gradient[:, : t + 1].abs().sum() > 0
        assert gradient[:, t + 1 :].abs().sum() == 0


@pytest.mark.parametrize(
    ("mask_from", "detach", "reaches_source"),
    [
        ("input", "none", True),
        ("input", "input", False),
        ("embedding", "none", True),
        ("embedding", "embedding", True),  # the model detaches, before its own attention
        ("embedding", "output", False),
    ],
)
def test_where_the_mask_is_detached(
    make_site: Callable[..., Site], mask_from: str, detach: str, reaches_source: bool
) -> None:
    module = build(make_site(), mask_from=mask_from, detach=detach)
    hidden, source = (torch.randn(B, T, C, dtype=torch.float64, requires_grad=True) for _ in "12")
    soft = module(hidden, source, return_mask=True).soft_mask
    asked = hidden if mask_from == "input" else source
    gradient = torch.autograd.grad(soft.sum(), asked, allow_unused=True)[0]
    assert (gradient is not None) == reaches_source


def test_shift_init_is_the_first_soft_mask(make_site: Callable[..., Site]) -> None:
    for shift_init, ones in ((0.0, 1.0), (math.pi / 2, 0.5), (math.pi, 0.0)):
        module = LearnedDropout(
            make_site(), rounding=StochasticRounding(), penalty=MaskPenalty(), shift_init=shift_init
        )
        torch.nn.init.zeros_(module.qkv.weight)
        attended = module.attend(torch.randn(B, T, C))
        mean = module.soft_map(attended, module.shift).mean().item()
        assert mean == pytest.approx(ones, abs=1e-6)


def test_sigmoid_rounding_gives_way_to_the_threshold_in_evaluation(
    make_site: Callable[..., Site],
) -> None:
    module = build(make_site(), rounding=SigmoidRounding(slope=3.0))
    x = torch.randn(B, T, C, dtype=torch.float64)
    trained = module(x, return_mask=True).mask
    assert ((trained > 0.01) & (trained < 0.99)).any()
    out = module.eval()(x, return_mask=True)
    assert torch.equal(out.mask, (out.soft_mask >= 0.5).double())


def test_statistics_come_without_gradients_only(make_site: Callable[..., Site]) -> None:
    module = build(make_site())
    x = torch.randn(B, T, C, dtype=torch.float64)
    assert module(x).stats is module(x).mask is module(x).soft_mask is None
    with torch.no_grad():
        out = module(x, return_mask=True)
    assert out.stats["ones"] == out.mask.mean()
    assert out.stats["above_0.9"] == (out.soft_mask > 0.9).float().mean()
    assert out.stats["below_0.1"] == (out.soft_mask < 0.1).float().mean()


@pytest.mark.parametrize(
    ("slot", "options", "message"),
    [
        (
            "attention_heads",
            {},
            "does not fit slot attention_heads.* use attention_output instead$",
        ),
        ("attention", {}, "learned dropout does not fit slot attention: "),
        ("mlp_output", {"n_head": 3}, "n_head=3 must divide the 8 channels at slot mlp_output: "),
        ("mlp_output", {"n_head": 3}, "each head attends with an equal share of them$"),
        ("mlp_output", {"n_head": 0}, "n_head=0 must divide the 8 channels"),
        ("mlp_output", {"shift_init": 4.0}, r"shift_init=4.0 must be in \[0, pi\]"),
        ("mlp_output", {"shift_init": 3.142}, r"shift_init=3.142 must be in \[0, pi\]"),
        ("mlp_output", {"shift_init": -0.1}, r"shift_init=-0.1 must be in \[0, pi\]"),
        ("mlp_output", {"detach": "output"}, "must be one of none, input with mask_from=input$"),
        (
            "mlp_output",
            {"mask_from": "embedding", "detach": "input"},
            "detach='input' must be one of none, embedding, output with mask_from=embedding$",
        ),
        ("mlp_output", {"mask_from": "output"}, "'output' must be one of input, embedding$"),
        ("mlp_hidden", {"mask_from": "embedding"}, "slot mlp_hidden has 32"),
    ],
)
def test_what_does_not_fit_is_refused(
    make_site: Callable[..., Site], slot: str, options: dict[str, object], message: str
) -> None:
    usual = {"rounding": StochasticRounding(), "penalty": MaskPenalty()}
    with pytest.raises(ValueError, match=message):
        LearnedDropout(make_site(slot), **(usual | options))  # type: ignore[arg-type]


def test_what_fits_is_taken_and_shown(make_site: Callable[..., Site]) -> None:
    usual = {"rounding": StochasticRounding(), "penalty": MaskPenalty(squared=1.0)}
    parts = "rounding=StochasticRounding(), penalty=MaskPenalty(squared=1.0)"
    for options, said in (
        ({}, "n_head=4, shift_init=0, mask_from=input, detach=none"),
        (
            {
                "n_head": 1,
                "shift_init": math.pi + 1e-4,
                "mask_from": "embedding",
                "detach": "output",
            },
            "n_head=1, shift_init=3.14169, mask_from=embedding, detach=output",
        ),
    ):
        module = LearnedDropout(make_site(), **(usual | options))  # type: ignore[arg-type]
        assert module.extra_repr() == f"{said}, {parts}"
        assert torch.equal(module.shift, torch.full((C,), options.get("shift_init", 0.0)))
        assert module.qkv.weight.shape == (3 * C, C)


def test_statistics_of_a_mask_on_its_borders_and_beyond() -> None:
    soft, mask = torch.tensor([0.0, 0.1, 0.9, 1.0]), torch.tensor([0.0, 0.0, 1.0, 0.0])
    stats = {name: value.item() for name, value in mask_stats(soft, mask).items()}
    assert stats == {"ones": 0.25, "above_0.9": 0.25, "below_0.1": 0.25}


@pytest.mark.parametrize(
    ("attended", "shift"),
    [
        (torch.zeros(5, C).bfloat16(), torch.tensor(0.0)),
        (torch.zeros(5, C), torch.zeros(C).double()),
    ],
)
def test_neither_source_decides_the_type_of_a_mask(attended: Tensor, shift: Tensor) -> None:
    assert cosine_mask(attended, shift).dtype == torch.float32


def test_the_gradient_of_a_mask_from_bfloat16_is_that_of_float32() -> None:
    attended, shift = torch.randn(5, C).bfloat16(), torch.randn(C)
    inputs = attended.requires_grad_(), shift.requires_grad_()
    found = torch.autograd.grad(cosine_mask(*inputs).sum(), inputs)
    exact = torch.cos(attended.float() + shift) / 2 + 0.5
    expected = torch.autograd.grad(exact.sum(), inputs)
    assert [g.dtype for g in found] == [torch.bfloat16, torch.float32]
    torch.testing.assert_close(found, expected)


def test_a_mask_is_computed_in_float32_whatever_its_sources_are() -> None:
    attended, shift = torch.randn(5, C).bfloat16(), torch.randn(C).bfloat16()
    found = cosine_mask(attended, shift)
    assert found.dtype == torch.float32
    assert torch.equal(found, cosine_mask(attended.float(), shift.float()))


@pytest.mark.parametrize("training", [True, False])
def test_one_pass_gives_what_the_parts_give(make_site: Callable[..., Site], training: bool) -> None:
    module, x = build(make_site()).float().train(training), torch.randn(B, T, C)
    results = []
    for return_mask in (False, True):
        torch.manual_seed(3)
        out = module(x, return_mask=return_mask)
        loss = out.hidden.sum() + 100 * out.penalty
        results.append((out.hidden, out.penalty, *torch.autograd.grad(loss, module.parameters())))
    torch.testing.assert_close(*results)
