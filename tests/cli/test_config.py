"""The schema fits the configs, and refuses what cannot work."""

import time
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
        ("model.vocab_size", 512),
        ("model.mlp_ratio", 0.001),
        ("model.n_layer", 10**8),
        ("steps", 10**30),
        ("steps", "7"),
        ("compile", "false"),
        ("row_name", ".."),
        ("row_name", "a/b"),
        ("row_name", ""),
        ("row_name", "x" * 101),
        ("table_name", "/etc/x"),
        ("table_name", "tables.é"),
        ("runs_dir", "/dev/null/x"),
        ("optimizer.lr", "slow"),
        ("dropout.penalty_weight.max", -1),
        ("dropout.penalty_weight.rate", 0.0),
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
    cfg = OmegaConf.create(OmegaConf.to_container(config(), resolve=False))  # of any types
    OmegaConf.update(cfg, key, value)
    with pytest.raises(ValueError, match=key) as error:
        check_config(cfg)
    assert "must be" in str(error.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [("steps", "many"), ("compile", "perhaps"), ("model.n_layer", 1.5)],
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
        "model.n_hed: no such key or group. Did you mean n_head?\nValid: n_embd, n_head"
    )
    assert "Did you mean" not in unknown_key("x", ["n_embd"])
    assert unknown_choice("dropout", "nonne").startswith(
        "dropout=nonne: no such choice. Did you mean none?"
    )


@pytest.mark.parametrize("key", ["evil", "model.n_mlp", "evaluate.often",
                                 "adapter.foo", "dropout.penalty_weight.foo"])  # fmt: skip
def test_a_key_that_nobody_reads_is_refused_with_those_that_are(config, key):
    cfg = OmegaConf.create(OmegaConf.to_container(config(), resolve=False))
    OmegaConf.update(cfg, key, 1)
    with pytest.raises(ValueError, match=rf"^{key}: no such key") as error:
        check_config(cfg)
    assert "Valid: " in str(error.value)


@pytest.mark.parametrize("key", ["optimizer.lr", "evaluate.windows", "model.n_head"])
def test_a_value_that_is_not_there_is_asked_for(config, key):
    plain = OmegaConf.to_container(config(), resolve=False)
    group, name = key.split(".")
    del plain[group][name]
    with pytest.raises(ValueError, match=f"^{key} has no value"):
        check_config(OmegaConf.create(plain))


def test_a_group_that_is_an_object_has_the_keys_of_its_constructor(config):
    plain = OmegaConf.to_container(config(), resolve=False)
    plain["optimizer"] = {"_target_": "a.B", "lr": 0.1, "momentum": 0.9}
    check_config(OmegaConf.create(plain))
    plain["optimizer"]["lr"] = 0
    with pytest.raises(ValueError, match=r"^optimizer\.lr=0 must be above 0"):
        check_config(OmegaConf.create(plain))


@pytest.mark.parametrize(("batch_size", "given"), [(10**12, 7), (10**18 + 9, 10**17)])
def test_a_divisor_of_a_huge_number_is_found_at_once(config, batch_size, given):
    cfg = config()
    cfg.batch_size, cfg.micro_batch_size = batch_size, given
    began = time.monotonic()
    with pytest.raises(ValueError, match=r"micro_batch_size=\d+ is one"):
        check_config(cfg)
    assert time.monotonic() - began < 5


def test_words_from_elsewhere_and_nested_keys_are_recognized():
    assert "Did you mean optimizer.lr?" in unknown_key("learning_rate", ["seed"])
    root = {"model": {"n_embd": 8, "mlp": {"deep": 1}}}
    assert "Did you mean model.mlp.deep?" in unknown_key("deep", ["seed"], root)


def test_a_key_of_another_choice_is_said_to_be_its():
    told = unknown_key("dropout.p", ["name"])
    assert told.startswith("dropout.p: no such key here. p belongs to dropout=alpha,")
    assert "standard" in told
    assert "learned" not in told


def test_groups_and_their_choices_are_read_from_the_folders():
    assert {"dropout", "dropout/slot", "row", "scale"} <= set(groups())
    assert "none" in choices_of("dropout")
    assert "published/none" in choices_of("row")
