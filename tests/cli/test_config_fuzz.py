"""Whatever a value is, it works or is refused with its key's name, before a device starts."""

import math
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cli.config import check_config
from common.errors import UserError

AT_LEAST = {
    "seed": 0, "steps": 1, "batch_size": 1, "micro_batch_size": 1, "eval_every": 1, "log_every": 1,
    "save_every": 1, "model.vocab_size": 2, "model.block_size": 1, "model.n_layer": 1,
    "model.n_head": 1, "model.n_embd": 1, "schedule.warmup_steps": 0, "schedule.decay_steps": 1,
    "evaluate.windows": 1, "evaluate.final_windows": 1, "evaluate.batch_size": 1,
}  # fmt: skip
ABOVE_ZERO = ("model.mlp_ratio", "optimizer.lr", "optimizer.grad_clip")
CHOICES = {
    "device": ("auto", "cpu", "cuda"),
    "dtype": ("auto", "float32", "bfloat16"),
    "model.activation": ("gelu", "selu"),
    "model.attention": ("auto", "plain", "fused"),
}

FUZZ = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def changed(tiny_cfg: Callable[..., DictConfig]) -> Callable[[str, object], DictConfig]:
    """A function to the tiny config with one value another."""
    plain = OmegaConf.to_container(tiny_cfg())

    def make(key: str, value: object) -> DictConfig:
        cfg = OmegaConf.create(plain)  # without the schema: its types are Hydra's to refuse
        OmegaConf.update(cfg, key, value)
        return cfg

    return make


@FUZZ
@given(key=st.sampled_from(sorted(AT_LEAST)), below=st.integers(1, 10**9))
def test_too_small_a_number_is_refused_by_name(changed, key: str, below: int) -> None:
    with pytest.raises(ValueError, match=rf"^{key}={AT_LEAST[key] - below} must be at least"):
        check_config(changed(key, AT_LEAST[key] - below))


@FUZZ
@given(
    key=st.sampled_from(sorted(ABOVE_ZERO)),
    value=st.floats(max_value=0) | st.just(math.nan) | st.just(math.inf),
)
def test_what_is_not_above_zero_and_finite_is_refused_by_name(changed, key: str, value) -> None:
    with pytest.raises(ValueError, match=rf"^{key}=.* must be above 0"):
        check_config(changed(key, value))


@FUZZ
@given(key=st.sampled_from(sorted(CHOICES)), value=st.text(max_size=12))
def test_another_choice_is_refused_by_name(changed, key: str, value: str) -> None:
    if value in CHOICES[key] or "${" in value or value == "???":
        return
    with pytest.raises(ValueError, match=rf"(?s)^{key}=.* must be one of"):
        check_config(changed(key, value))


@FUZZ
@given(betas=st.lists(st.floats(), max_size=4))
def test_betas_are_two_numbers_below_one_or_refused(changed, betas: list[float]) -> None:
    cfg = changed("optimizer.betas", betas)
    if len(betas) == 2 and all(0 <= beta < 1 for beta in betas):
        check_config(cfg)
    else:
        with pytest.raises(ValueError, match=r"^optimizer\.betas="):
            check_config(cfg)


@FUZZ
@given(n_embd=st.integers(1, 500), n_head=st.integers(1, 500))
def test_heads_divide_the_width_or_one_that_does_is_named(
    changed, n_embd: int, n_head: int
) -> None:
    cfg = changed("model.n_embd", n_embd)
    OmegaConf.update(cfg, "model.n_head", n_head)
    if n_embd % n_head == 0:
        check_config(cfg)
    else:
        with pytest.raises(ValueError, match=r"^model\.n_head=") as refusal:
            check_config(cfg)
        offered = int(str(refusal.value).rsplit("model.n_head=", 1)[1].split()[0])
        assert n_embd % offered == 0


@FUZZ
@given(
    key=st.sampled_from([*AT_LEAST, *ABOVE_ZERO, *CHOICES, "row_name", "adapter", "model"]),
    value=st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.none()),
)
def test_whatever_a_value_is_it_is_taken_or_refused_in_a_line(changed, key: str, value) -> None:
    try:
        cfg = changed(key, value)
    except OmegaConfBaseException:  # the command line refuses it while composing
        return
    with suppress(UserError, OmegaConfBaseException):
        check_config(cfg)
