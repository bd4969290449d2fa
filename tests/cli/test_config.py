"""The schema fits the configs, and refuses what cannot work."""

from dataclasses import fields
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from omegaconf.errors import ValidationError

from cli.config import Config, check_config, register_schema
from cli.spelling import choices_of, groups, unknown_choice, unknown_key

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def config():
    """The default config; a copy for each who alters it."""
    register_schema()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train")
    return lambda: cfg.copy()


def test_the_default_config_is_complete_and_fits(config):
    cfg = config()
    check_config(cfg)
    assert set(cfg) == {entry.name for entry in fields(Config)}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", -1),
        ("steps", 0),
        ("batch_size", 0),
        ("log_every", 0),
        ("device", "tpu"),
        ("dtype", "float16"),
        ("model.vocab_size", 1),
        ("model.n_layer", 0),
        ("model.mlp_ratio", 0.0),
        ("model.activation", "relu"),
        ("model.attention", "flash"),
        ("model.n_head", 7),
        ("micro_batch_size", 63),
        ("optimizer.lr", 0.0),
        ("optimizer.lr", float("inf")),
        ("optimizer.weight_decay", -0.1),
        ("optimizer.weight_decay", float("nan")),
        ("optimizer.grad_clip", 0.0),
        ("optimizer.betas", [0.9]),
        ("optimizer.betas", [0.9, 1.0]),
        ("schedule.warmup_steps", -1),
        ("schedule.decay_steps", 0),
        ("schedule.min_lr", -1e-5),
        ("evaluate.windows", 0),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_name(config, key, value):
    cfg = config()
    OmegaConf.update(cfg, key, value)
    with pytest.raises(ValueError, match=key) as error:
        check_config(cfg)
    assert "must be" in str(error.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [("steps", "many"), ("compile", "perhaps"), ("optimizer.lr", "slow"), ("model.n_layer", 1.5)],
)
def test_a_value_of_the_wrong_type_is_refused_as_it_is_set(config, key, value):
    cfg = config()
    with pytest.raises(ValidationError):
        OmegaConf.update(cfg, key, value)


def test_a_divisor_is_suggested(config):
    cfg = config()
    cfg.batch_size, cfg.micro_batch_size = 100, 30
    with pytest.raises(ValueError, match="micro_batch_size=25 is one"):
        check_config(cfg)


def test_a_null_that_means_something_passes(config):
    cfg = config()
    cfg.optimizer.grad_clip = cfg.schedule.decay_steps = cfg.table_name = None
    check_config(cfg)


def test_nearest_spelling_comes_first():
    assert unknown_key("model.n_hed", ["n_embd", "n_head", "_target_"]) == (
        "model.n_hed: no such key or group. Did you mean n_head?\nValid: n_head, n_embd"
    )
    assert "Did you mean" not in unknown_key("x", ["n_embd"])
    assert unknown_choice("dropout", "nonne").startswith(
        "dropout=nonne: no such choice. Did you mean none?"
    )


def test_groups_and_their_choices_are_read_from_the_folders():
    assert {"dropout", "dropout/slot", "row", "scale"} <= set(groups())
    assert "none" in choices_of("dropout")
    assert "published/none" in choices_of("row")
