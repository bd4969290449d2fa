"""A kind of dropout with a rate of its own in each layer."""

from collections.abc import Callable

import pytest

from dropout.base import Site
from dropout.by_layer import by_layer
from dropout.classic import ClassicDropout
from inspection.observe import dropout_modules
from tests.dropout.test_standard import LAW as LAW
from tests.golden import composed
from training.state import build_model

RATES = [0.1, 0.25, 0.5, 1.0]
CHOSEN = ("dropout=none", "dropout/slot@dropout.mlp_output=by_layer", "model.n_layer=4")


def test_each_layer_has_its_rate() -> None:
    model = build_model(composed(*CHOSEN, f"dropout.mlp_output.rates={RATES}"))
    rates = {key: dropout.p for key, dropout in dropout_modules(model).items()}
    assert rates == {f"block{n}/mlp_output": rate for n, rate in enumerate(RATES)}


def test_the_kind_is_chosen(make_site: Callable[..., Site]) -> None:
    made = by_layer(make_site(layer=1), kind=ClassicDropout, p=0.3, rates=[0.1, 0.2])
    assert type(made) is ClassicDropout
    assert made.p == 0.2
    assert by_layer(make_site(layer=1), kind=ClassicDropout, p=0.4).p == 0.4


@pytest.mark.parametrize("rates", [[], [0.1], [0.1, 0.2, 0.3], 0.1])
def test_rates_are_as_many_as_layers(rates: object, make_site: Callable[..., Site]) -> None:
    with pytest.raises(ValueError, match=r"rates=.* at slot mlp_output must be 2: one for each"):
        by_layer(make_site(), kind=ClassicDropout, p=0.1, rates=rates)


def test_what_the_kind_refuses_is_refused(make_site: Callable[..., Site]) -> None:
    with pytest.raises(ValueError, match=r"p=2 must be in \[0, 1\]"):
        by_layer(make_site(), kind=ClassicDropout, p=0.1, rates=[2, 0.1])
