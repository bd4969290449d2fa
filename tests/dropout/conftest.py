"""A site for each slot, on which the tests of the kinds agree."""

from collections.abc import Callable

import pytest

from dropout.base import Site


@pytest.fixture
def make_site() -> Callable[..., Site]:
    """A function from a slot, and facts that differ, to a site 8 wide with 4 heads."""

    def make(slot: str = "mlp_output", **facts: object) -> Site:
        width = {"mlp_hidden": 32, "attention_heads": 2}.get(slot, 8)
        usual = {
            "layer": 0,
            "n_layer": 2,
            "n_embd": 8,
            "width": width,
            "n_head": 4,
            "block_size": 6,
            "activation": "gelu",
        }
        return Site(slot=slot, **(usual | facts))  # type: ignore[arg-type]

    return make
