"""The cosine series of LearnedDropout: bounded, and the single cosine at first."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from dropout.base import Site
from dropout.fourier import FourierMap, fourier_mask
from dropout.learned import LearnedDropout, cosine_mask
from dropout.penalties import MaskPenalty
from dropout.rounding import StochasticRounding
from ops import native

PHASES = torch.linspace(-7, 7, 1001)
NO_SHIFT = torch.zeros(1)


def learned(site: Site, **options: object) -> LearnedDropout:
    torch.manual_seed(0)
    penalty = MaskPenalty(squared=1.0)
    return LearnedDropout(site, rounding=StochasticRounding(), penalty=penalty, **options)


@given(st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=6))
@example([1.0] * 26)  # whose sum, rounded, is above 1
@example([-1.0] * 26)
def test_never_leaves_the_unit_interval(amplitudes: list[float]) -> None:
    soft_mask = fourier_mask(PHASES, NO_SHIFT, torch.tensor(amplitudes))
    assert ((soft_mask >= 0) & (soft_mask <= 1)).all()


def test_follows_its_formula() -> None:
    a, b, c = 2.0, -1.0, 0.5
    z = (PHASES + 0.3).double()
    series = (a * z.cos() + b * (2 * z).cos() + c * (3 * z).cos()) / (a - b + c)
    ours = fourier_mask(PHASES, torch.tensor([0.3]), torch.tensor([a, b, c]))
    torch.testing.assert_close(ours, (0.5 + series / 2).float(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("n_harmonics", [1, 2, 4])
def test_starts_as_the_single_cosine(n_harmonics: int) -> None:
    shift = torch.tensor([0.7])
    assert torch.equal(FourierMap(n_harmonics)(PHASES, shift), cosine_mask(PHASES, shift))


def test_every_higher_harmonic_learns_from_the_start() -> None:
    series = FourierMap(4)
    (series(PHASES, NO_SHIFT) * PHASES.square()).mean().backward()
    assert series.amplitudes.grad is not None
    assert (series.amplitudes.grad[1:] != 0).all()


def test_fits_a_mask_that_one_cosine_cannot() -> None:
    def target(z: Tensor) -> Tensor:
        return (0.5 + z.cos() / 4 + (2 * z).cos() / 4).clamp(0, 1)

    series = FourierMap(3)
    optimizer = torch.optim.Adam(series.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        loss = (series(PHASES, NO_SHIFT) - target(PHASES)).square().mean()
        loss.backward()
        optimizer.step()
    assert loss < 1e-4
    assert (cosine_mask(PHASES, NO_SHIFT) - target(PHASES)).square().mean() > 1e-2


def test_each_module_has_its_own_amplitudes(make_site: Callable[..., Site]) -> None:
    soft_map = partial(FourierMap, n_harmonics=3)
    first, second = (learned(make_site(), soft_map=soft_map) for _ in range(2))
    assert first.soft_map.amplitudes is not second.soft_map.amplitudes
    assert dict(first.named_parameters()).keys() == {"shift", "qkv.weight", "soft_map.amplitudes"}


def test_a_fresh_module_equals_learned_dropout(
    make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit of torch's operations; the compiled mask is their like, not their twin."""
    monkeypatch.setattr(native, "library", lambda: None)
    hidden = torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(1))
    outputs = []
    for options in ({}, {"soft_map": partial(FourierMap, n_harmonics=4)}):
        dropout = learned(make_site(), shift_init=math.pi / 2, **options)
        torch.manual_seed(2)
        outputs.append(dropout(hidden))
    assert torch.equal(outputs[0].hidden, outputs[1].hidden)
    assert torch.equal(outputs[0].penalty, outputs[1].penalty)


@pytest.mark.parametrize(
    ("attended", "shift"),
    [
        (PHASES.bfloat16(), NO_SHIFT.bfloat16()),
        (PHASES.bfloat16(), NO_SHIFT[0]),
        (PHASES, NO_SHIFT.double()),
    ],
)
def test_computes_in_float32(attended: Tensor, shift: Tensor) -> None:
    assert FourierMap(2).bfloat16()(attended, shift).dtype == torch.float32


def test_no_harmonics_is_an_error() -> None:
    with pytest.raises(
        ValueError, match=r"^n_harmonics=0 must be at least 1: 1 is the cosine alone$"
    ):
        FourierMap(0)


def test_shows_its_harmonics() -> None:
    assert repr(FourierMap(4)) == "FourierMap(n_harmonics=4)"
