"""Laws that every kind of dropout keeps: each file in configs/dropout/slot, at every slot it fits.

What a kind promises stands as LAW in its own test file; `laws.py` says how.
"""

import importlib
import math
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import hydra
import pytest
import torch
from torch import Tensor, nn

from dropout.base import DropoutOutput, Site
from ops import native
from tests.dropout.laws import EVERY, HEADS, Law

CONFIGS = Path(__file__).parents[2] / "configs"
KINDS = sorted(path.stem for path in (CONFIGS / "dropout" / "slot").glob("*.yaml"))

P = 0.3
B, T = 16, 6


@cache
def factory(kind: str) -> Callable[..., nn.Module]:
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = hydra.compose(overrides=[f"+dropout/slot@slot={kind}", f"+dropout.p={P}"])
        return hydra.utils.instantiate(cfg)["slot"]


@cache
def law_of(kind: str) -> Law:
    """What the test file of the kind's class says of it: dropout/shared.py, test_shared.py."""
    name = factory(kind).func.__module__.rpartition(".")[2]  # type: ignore[attr-defined]
    try:
        return importlib.import_module(f"tests.dropout.test_{name}").LAW
    except (ImportError, AttributeError) as error:
        raise AssertionError(f"tests/dropout/test_{name}.py must state {kind}'s LAW") from error


LAWS = {kind: law_of(kind) for kind in KINDS}
RANDOM = [kind for kind, law in LAWS.items() if law.axes and law.evaluated]
LEARNED = [kind for kind, law in LAWS.items() if law.evaluated is None]


def hidden_at(slot: str, batch: int = B) -> Tensor:
    shape = {"attention_heads": (batch, T, 4, 2), "mlp_hidden": (batch, T, 32)}
    generator = torch.Generator().manual_seed(1)
    return torch.randn(shape.get(slot, (batch, T, 8)), generator=generator)


def places(kinds: list[str]) -> list[tuple[str, str]]:
    """(kind, slot) wherever the kind fits and the slot has a tensor for it to work on."""
    return [(k, slot) for k in kinds for slot in LAWS[k].slots if slot != "attention"]


def forms(kinds: list[str]) -> list[tuple[str, str]]:
    """Of these, one for each shape of tensor: for what cannot depend on the slot's name."""
    distinct = {(kind, hidden_at(slot).shape): (kind, slot) for kind, slot in places(kinds)}
    return list(distinct.values())


@pytest.fixture
def build(make_site: Callable[..., Site]) -> Callable[..., nn.Module]:
    """A module of a kind at a slot, training, with weights that make a soft mask worth testing."""

    def make(kind: str, slot: str, **options: object) -> nn.Module:
        torch.manual_seed(0)
        module = factory(kind)(make_site(slot, activation=LAWS[kind].activation), **options)
        for parameter in module.parameters():
            nn.init.normal_(parameter)
        return module.train()

    return make


def call(module: nn.Module, hidden: Tensor, seed: int = 2, mask: bool = True) -> DropoutOutput:
    torch.manual_seed(seed)
    return module(hidden, return_mask=True) if mask else module(hidden)


@pytest.mark.parametrize("kind", KINDS)
def test_fits_the_slots_it_says_and_no_other(kind: str, build: Callable[..., nn.Module]) -> None:
    for slot in EVERY:
        if slot in LAWS[kind].slots:
            module = build(kind, slot)
            assert hasattr(module, "attention_p") == ("attention" in LAWS[kind].slots)
        else:
            name, needs = "learned" if kind in LEARNED else kind, re.escape(LAWS[kind].needs)
            message = rf"\b{name}\b.* dropout does not fit slot {slot}: {needs}; use "
            with pytest.raises(ValueError, match=message):
                build(kind, slot)


@pytest.mark.parametrize(("kind", "slot"), places(KINDS))
def test_training_makes_what_the_law_says_of_input_and_mask(
    kind: str, slot: str, build: Callable[..., nn.Module]
) -> None:
    hidden, module = hidden_at(slot), build(kind, slot)
    out = call(module, hidden)
    mask = torch.ones_like(hidden) if out.mask is None else out.mask
    assert (out.mask is None) == (LAWS[kind].axes is None)
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    torch.testing.assert_close(out.hidden, LAWS[kind].output(hidden, mask, P))
    assert out.hidden.shape == hidden.shape
    assert out.hidden.dtype == hidden.dtype


@pytest.mark.parametrize(("kind", "slot"), forms(KINDS))
def test_asking_for_the_mask_changes_nothing(
    kind: str, slot: str, build: Callable[..., nn.Module]
) -> None:
    hidden, module = hidden_at(slot), build(kind, slot)
    for training in (True, False):
        without = call(module.train(training), hidden, mask=False)
        assert without.mask is None
        assert without.soft_mask is None
        assert torch.equal(call(module, hidden).hidden, without.hidden)


@pytest.mark.parametrize(("kind", "slot"), places(RANDOM + LEARNED))
def test_mask_varies_along_its_axes_and_no_other(
    kind: str, slot: str, build: Callable[..., nn.Module]
) -> None:
    hidden = hidden_at(slot)
    mask = call(build(kind, slot), hidden).mask
    assert mask is not None
    mask = mask.expand_as(hidden)
    for axis, name in enumerate("BTHC" if slot in HEADS else "BTC"):
        shared = bool((mask == mask.narrow(axis, 0, 1)).all())
        assert shared == (name not in LAWS[kind].axes), name  # type: ignore[operator]


@pytest.mark.parametrize(("kind", "slot"), forms(RANDOM))
def test_drops_at_its_rate(kind: str, slot: str, build: Callable[..., nn.Module]) -> None:
    hidden, module = hidden_at(slot, batch=128), build(kind, slot)
    mask = torch.stack([call(module, hidden, seed).mask for seed in range(8)])
    draws = mask.numel() / LAWS[kind].sharing
    sigma = math.sqrt(P * (1 - P) / draws)
    assert abs(1 - mask.mean().item() - P) < 4 * sigma


@pytest.mark.parametrize(("kind", "slot"), forms(LEARNED))
def test_learned_keeps_with_the_probability_of_its_soft_mask(
    kind: str, slot: str, build: Callable[..., nn.Module]
) -> None:
    out = call(build(kind, slot), hidden_at(slot, batch=128))
    soft, mask = out.soft_mask, out.mask
    assert soft is not None
    assert mask is not None
    assert ((soft >= 0) & (soft <= 1)).all()
    for low in (0.0, 0.25, 0.5, 0.75):  # a quarter at a time: two errors cannot cancel
        among = (soft >= low) & (soft < low + 0.25)
        variance = (soft * (1 - soft))[among].sum()
        assert (mask - soft)[among].sum().abs() <= 4 * variance.sqrt(), low


@pytest.mark.parametrize(("kind", "slot"), places(KINDS))
def test_is_causal(kind: str, slot: str, build: Callable[..., nn.Module]) -> None:
    hidden, module = hidden_at(slot).requires_grad_(), build(kind, slot)
    for training in (True, False):
        out = call(module.train(training), hidden).hidden
        for t in range(T):
            (gradient,) = torch.autograd.grad(out[:, t].sum(), hidden, retain_graph=True)
            assert not gradient[:, t + 1 :].any(), t


@pytest.mark.parametrize(("kind", "slot"), places(KINDS))
def test_gradient_flows_through_the_kept_alone(
    kind: str, slot: str, build: Callable[..., nn.Module]
) -> None:
    # A learned mask depends on the input too; cut that off, and it is a mask like the others.
    options = {"detach": "input"} if kind in ("learned", "learned_fourier") else {}
    hidden, module = hidden_at(slot).requires_grad_(), build(kind, slot, **options)
    if kind == "learned_token":  # there by not reading it
        nn.init.zeros_(module.read.weight)
        nn.init.constant_(module.shift, 1.5)
    out = call(module, hidden)
    (gradient,) = torch.autograd.grad(out.hidden.sum(), hidden)
    mask = torch.ones_like(hidden) if out.mask is None else out.mask
    law = LAWS[kind].output
    slope = law(torch.ones_like(hidden), mask, P) - law(torch.zeros_like(hidden), mask, P)
    torch.testing.assert_close(gradient, slope)
    assert torch.equal(gradient != 0, mask.expand_as(hidden) != 0)


@pytest.mark.parametrize(("kind", "slot"), places(KINDS))
def test_evaluation_is_deterministic(kind: str, slot: str, build: Callable[..., nn.Module]) -> None:
    hidden, module = hidden_at(slot), build(kind, slot).eval()
    out = call(module, hidden, seed=3)
    assert torch.equal(out.hidden, call(module, hidden, seed=4).hidden)
    evaluated = LAWS[kind].evaluated
    if evaluated is not None:
        torch.testing.assert_close(out.hidden, evaluated(hidden, P), rtol=0, atol=0)
        assert (out.mask is None) == (LAWS[kind].axes is None)
        assert out.mask is None or bool((out.mask == 1).all())
    else:
        assert torch.equal(out.mask, (out.soft_mask >= 0.5).float())
        assert torch.equal(out.hidden, hidden * out.mask)


@pytest.mark.parametrize(("kind", "slot"), forms(KINDS))
def test_the_seed_decides_the_mask(kind: str, slot: str, build: Callable[..., nn.Module]) -> None:
    hidden, module = hidden_at(slot), build(kind, slot)
    first = call(module, hidden, seed=5).hidden
    assert torch.equal(first, call(module, hidden, seed=5).hidden)
    assert torch.equal(first, call(module, hidden, seed=6).hidden) == (kind == "none")


@pytest.mark.parametrize(("kind", "slot"), forms(RANDOM))
def test_ends_of_the_range(kind: str, slot: str, build: Callable[..., nn.Module]) -> None:
    hidden = hidden_at(slot).requires_grad_()
    everything = call(build(kind, slot, p=0.0), hidden)
    assert torch.equal(everything.hidden, hidden)
    assert torch.equal(everything.mask, torch.ones_like(everything.mask))
    nothing = call(build(kind, slot, p=1.0), hidden)
    nothing.hidden.sum().backward()
    for tensor in (nothing.hidden, nothing.mask, hidden.grad):
        assert torch.equal(tensor, torch.zeros_like(tensor))


@pytest.mark.parametrize("kind", RANDOM)
@pytest.mark.parametrize("p", [1.3, -0.1, math.nan, "a", True])
def test_p_outside_the_range_is_named(
    kind: str, p: object, build: Callable[..., nn.Module]
) -> None:
    with pytest.raises(ValueError, match=rf"p={p} must be in \[0, 1\]: it is the probability"):
        build(kind, LAWS[kind].slots[0], p=p)


@pytest.mark.parametrize("kind", RANDOM)
def test_shows_its_rate(kind: str, build: Callable[..., nn.Module]) -> None:
    assert re.search(rf"\(p={P}[,)]", repr(build(kind, LAWS[kind].slots[0])))


@pytest.mark.parametrize(("kind", "slot"), forms(KINDS))
@pytest.mark.parametrize("training", [True, False])
def test_forward_writes_nothing_to_the_module(
    kind: str, slot: str, training: bool, build: Callable[..., nn.Module]
) -> None:
    module = build(kind, slot).train(training)
    attributes = {name: dict(vars(m)) for name, m in module.named_modules()}
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    call(module, hidden_at(slot))
    assert attributes == {name: dict(vars(m)) for name, m in module.named_modules()}
    assert weights.keys() == module.state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in module.state_dict().items())


@pytest.mark.parametrize(("kind", "slot"), forms(KINDS))
def test_stays_in_bfloat16(kind: str, slot: str, build: Callable[..., nn.Module]) -> None:
    hidden = hidden_at(slot).bfloat16()
    for training in (True, False):
        out = call(build(kind, slot).bfloat16().train(training), hidden)
        assert out.hidden.dtype == torch.bfloat16
        if kind in RANDOM:
            assert out.mask.dtype == torch.bfloat16
        assert out.hidden.shape == hidden.shape


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_traces_to_one_graph(kind: str, build: Callable[..., nn.Module]) -> None:
    """A traced module draws torch's noise, so the eager one does here too."""
    slot = LAWS[kind].slots[-1] if LAWS[kind].slots[-1] != "attention" else "mlp_output"
    hidden, module = hidden_at(slot), build(kind, slot)
    traced = torch.compile(module, fullgraph=True, backend="aot_eager")
    with native.without_kernels():
        assert torch.equal(call(traced, hidden).hidden, call(module, hidden).hidden)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["channel", "alpha", "learned_fourier"])
def test_compiles(kind: str, build: Callable[..., nn.Module]) -> None:
    hidden, module = hidden_at("mlp_output"), build(kind, "mlp_output")
    out = call(torch.compile(module, fullgraph=True), hidden)
    assert out.mask is not None
    torch.testing.assert_close(out.hidden, LAWS[kind].output(hidden, out.mask, P))
