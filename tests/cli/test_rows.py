"""A row is its definition, and a run's default name says what it is."""

import shutil

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from cli.config import register_schema
from cli.naming import as_name, row_name
from cli.rows import as_swept, as_typed, check_row
from cli.spelling import CONFIGS


@pytest.fixture
def hydra():
    """As within `python train.py`, before the config is composed."""
    register_schema()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        yield
    HydraConfig.instance().cfg = None


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["row=published/learned", "dropout=none"], "published/learned has dropout=learned"),
        (["row=published/learned", "dropout.mlp_output.shift_init=1"], "shift_init=0.0"),
        (["row=published/learned", "+dropout.mask_from=embedding"], "has no dropout.mask_from"),
        (
            ["row=published/learned", "dropout/slot@dropout.attention_output=locked"],
            "has dropout.attention_output=",
        ),
        (["row=published/none_matched", "model.mlp_ratio=4"], "model.mlp_ratio=5.5"),
        (["row=published/none_matched", "shape=published_plain"], "shape=nano_learned"),
        (["row=adapters/oft_0.1", "adapter.layer.module_dropout.p=0.2"], "module_dropout.p=0.1"),
        (["row=adapters/oft_0.1", "steps=7"], "has steps=300"),
        (["row=adapters/oft_0.1", "data.topics=[Arts]"], "data.topics="),
        (["row=published/none", "row_name=none", "dropout=learned"], "has dropout=none"),
    ],
)
def test_what_a_row_sets_is_not_overridden_under_its_name(hydra, overrides, told):
    with pytest.raises(ValueError, match=r"a row is its definition\. .*row_name=\.\.\.") as error:
        check_row("train", overrides)
    assert told in str(error.value)
    assert str(error.value).startswith(f"{overrides[-1]}: ")
    check_row("train", [*overrides, "row_name=my_own", "table_name=mine"])


def test_what_a_row_sets_is_not_set_by_its_table(tmp_path, monkeypatch):
    """A table's file is read after the row's, and would make every row of it the same."""
    configs = tmp_path / "configs"
    shutil.copytree(CONFIGS, configs)
    monkeypatch.setattr("cli.rows.CONFIGS", configs)
    text = (configs / "table/family.yaml").read_text()
    choosing = "# @package _global_\ndefaults:\n  - override"
    for name, changed in (
        ("value", text.replace("table_name:", "model: {mlp_ratio: 2.0}\ntable_name:", 1)),
        ("open", text.replace("table_name:", "dropout: {p: 0.4}\ntable_name:", 1)),
        ("dropout", f"{choosing} /dropout: standard\n\n{text}"),
        ("shape", f"{choosing} /shape: published_learned\n\n{text}"),
    ):
        (configs / f"table/{name}.yaml").write_text(changed)
    register_schema()
    with initialize_config_dir(str(configs), version_base="1.3"):
        check_row("train", ["row=family/locked", "table=family", "dropout.p=0.2"])
        check_row("train", ["row=family/locked", "table=open"])  # its rate is no part of the row
        check_row("train", ["row=family/locked", "table=value", "seed=2"])
        for row, table, key in (
            ("published/none_matched", "value", "model.mlp_ratio"),
            ("published/none_matched", "shape", "shape"),
            ("family/locked", "dropout", "dropout"),
        ):
            given = [f"row={row}", f"table={table}"]
            with pytest.raises(ValueError, match=rf"changes {key}, which the row {row} sets"):
                check_row("train", given)
            check_row("train", [*given, "row_name=mine", "table_name=mine"])


@pytest.mark.parametrize(
    "overrides",
    [
        ["row=published/learned", "table=published", "scale=small", "seed=3", "steps=7"],
        ["row=published/learned", "dropout=learned", "dropout.shift_init=0"],
        ["row=published/learned", "model.n_layer=2", "optimizer.lr=1", "data.max_bytes=1000"],
        ["row=adapters/base", "data=files", "data.paths=x"],
        ["dropout=none", "dropout/slot@dropout.mlp_output=locked"],
    ],
)
def test_what_a_row_leaves_open_is_free(hydra, overrides):
    check_row("train", overrides)


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "learned"),
        (["dropout=standard", "model.n_layer=2", "seed=3"], "standard"),
        (["dropout.mlp_output.shift_init=1.57"], "learned,shift_init=1.57"),
        (["dropout.shift_init=0"], "learned"),
        (["dropout.penalty_weight.max=0"], "learned,penalty_weight.max=0"),
        (["dropout=standard", "dropout.p=0.3"], "standard,p=0.3"),
        (["dropout/slot@dropout.mlp_output=locked"], "mlp_output=locked"),
        (
            ["dropout/slot@dropout.mlp_output=locked", "dropout.mlp_output.p=0.2"],
            "mlp_output=locked,p=0.2",
        ),
        (
            ["dropout/slot@dropout.attention_output=locked"],
            "learned,attention_output=locked",
        ),
        (["dropout=none", "dropout/slot@dropout.embedding=token"], "embedding=token"),
        (["dropout/rounding@dropout.mlp_output.rounding=sigmoid"], "learned,rounding=sigmoid"),
        (["adapter=oft", "dropout=none"], "none,adapter=oft"),
        (["dropout.shift_init=1", "row_name=mine"], "mine"),
        (["row=published/learned_shift_pi"], "learned_shift_pi"),
    ],
)
def test_a_default_name_says_what_differs_from_the_preset(hydra, overrides, name):
    cfg = compose("train", overrides, return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    assert row_name(cfg) == name


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["table=family", "dropout.p=0.1"], ["table=family", "dropout.p=choice(0.1)"]),
        (["dropout.p=0.1", "table=family"], ["dropout.p=choice(0.1)", "table=family"]),
        (["table=family", "dropout.p=0.1,0.2"], None),
        (["table=family", "dropout.p=choice(0.1)"], None),
        (["table=family", "seed=2", "row=family/head", "steps=30"], None),
        (["table=published", "dropout.p=0.1"], None),
        (["table=nosuch", "dropout.p=0.1"], None),
        (["table=../table/family", "dropout.p=0.1"], None),
        (["dropout=standard", "dropout.p=0.1"], None),
        (["table=family", "dropout.p=0.1", "hydra.mode=RUN"], None),
        (["--help", "table=family", "optimizer.weight_decay=1"], None),
    ],
)
def test_one_value_of_what_a_table_sweeps_over_is_a_sweep_of_one(given, read):
    swept = as_swept(given)
    assert swept == (given if read is None else read)
    assert as_typed(swept) == [word.replace("choice(0.1)", "0.1") for word in given]


def test_any_text_becomes_a_name():
    assert as_name("p=[a b]/../é") == "p=_a_b_.._"
    assert as_name("../x") == "_x"
    names = {as_name("x" * 200 + end) for end in "ab"}
    assert len(names) == 2
    assert all(len(name) <= 100 for name in names)
