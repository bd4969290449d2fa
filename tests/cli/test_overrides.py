"""What Hydra would let pass is refused; what is right passes."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from cli.config import register_schema
from cli.overrides import check_overrides

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def check():
    """Check overrides as within a run that was started with them."""
    register_schema()

    def run(*overrides: str) -> None:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            cfg = compose("train", overrides=list(overrides), return_hydra_config=True)
            HydraConfig.instance().set_config(cfg)
            check_overrides(cfg)

    yield run
    HydraConfig.instance().cfg = None


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["dropout=standard", "dropout.p=high"], "dropout.p=high must be a number"),
        (["dropout=standard", "dropout.p=true"], "dropout.p=True must be a number"),
        (["data.end_of_text=5"], "data.end_of_text=5 must be true or false"),
        (["dropout.mlp_output.detach=1"], "detach=1 must be a name"),
        (["dropout.penalty_weight=1"], "of the same shape"),
        (["shape=publishd_learned"], "Did you mean published_learned?"),
        (["+dropout.pp=0.3"], "dropout.pp: no such key"),
        (["dropout=standard", "+dropout.shift_init=1"], "dropout.shift_init: no such key here"),
        (["+dropout.foo._target_=dropout.none.NoDropout"], "dropout.foo: no such key"),
    ],
)
def test_a_value_of_another_kind_or_a_choice_that_is_not_there_is_refused(check, overrides, told):
    with pytest.raises(ValueError) as error:  # noqa: PT011  the message is looked at below
        check(*overrides)
    assert told in str(error.value)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["dropout=standard", "dropout.p=1"],
        ["dropout.mlp_output.n_head=3"],  # null by default: any kind
        ["data.max_train_tokens=null"],
        ["+dropout.mask_from=embedding", "steps=7"],
        ["dropout/slot@dropout.attention_output=locked", "dropout.attention_output.p=0.3"],
        ["row=published/none", "shape=published_learned"],
        ["row=published/none", "seed=3", "steps=7", "scale=small", "model.n_layer=1"],
    ],
)
def test_what_is_right_passes(check, overrides):
    check(*overrides)
