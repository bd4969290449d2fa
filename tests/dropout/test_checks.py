import re
from collections.abc import Callable

import pytest
import torch

from dropout.base import Site
from dropout.checks import check_p, check_rank, check_slot


def test_p_is_handed_back_as_a_float() -> None:
    assert [check_p(p) for p in (0, 0.25, 1)] == [0.0, 0.25, 1.0]
    assert all(type(check_p(p)) is float for p in (0, 1))


@pytest.mark.parametrize("p", [-1e-9, 1.0000001, float("nan"), float("inf"), None, "0.5", False])
def test_p_that_is_no_probability_is_named(p: object) -> None:
    message = f"p={p} must be in [0, 1]: it is the probability of dropping"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_p(p)  # type: ignore[arg-type]


def test_a_wrong_slot_is_named_with_those_that_fit(make_site: Callable[..., Site]) -> None:
    slots = ("attention_output", "mlp_output")
    check_slot("token", make_site("mlp_output"), slots, "it needs positions")
    message = (
        "token dropout does not fit slot embedding: it needs positions; "
        "use attention_output or mlp_output"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_slot("token", make_site("embedding"), slots, "it needs positions")


def test_a_wrong_rank_is_named_with_the_shape_that_fits() -> None:
    layout = ("B", "T", "n_head", "head_size")
    check_rank("head", torch.zeros(2, 3, 4, 5), layout)
    check_rank("head", torch.zeros(3, 4, 5), layout)
    message = (
        "hidden.shape=(3, 4) does not fit head dropout: "
        "it must be (B, T, n_head, head_size), or the same without B"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_rank("head", torch.zeros(3, 4), layout)
