"""W&B's sweep: the command lines that its agent makes are the project's."""

from itertools import product

import pytest
import yaml
from omegaconf import OmegaConf
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from tests.golden import CONFIGS, composed

SWEEP = yaml.safe_load((CONFIGS / "sweep.yaml").read_text())


def choices(parameter: dict) -> list:
    """What an agent may be given: the constant, every value, or both ends of a distribution."""
    if "value" in parameter:
        return [parameter["value"]]
    return parameter.get("values") or [parameter["min"], parameter["max"]]


def corners() -> list[dict]:
    found = product(*map(choices, SWEEP["parameters"].values()))
    return [dict(zip(SWEEP["parameters"], values, strict=True)) for values in found]


# Floats as an agent draws them: one written with an exponent, and one with all its 17 digits.
ODD = {"dropout.shift_init": 1e-7, "optimizer.lr": 0.0012345678901234567}


@pytest.mark.parametrize("chosen", [corners()[0], corners()[-1], corners()[0] | ODD])
def test_a_line_of_the_sweep_is_the_config_that_it_says(chosen):
    given = {"args": {name: {"value": value} for name, value in chosen.items()}}
    command = create_sweep_command(SWEEP["command"])
    assert command[-2:] == ["${program}", "${args_no_hyphens}"]
    words = create_sweep_command_args(given)["args_no_hyphens"]
    cfg = composed(*words)
    assert cfg.dropout.name == chosen.pop("dropout")
    assert {name: OmegaConf.select(cfg, name) for name in chosen} == chosen


def test_what_the_sweep_minimises_is_a_number_of_the_summary():
    """Not `val/loss_nats`, whose summary is a minimum and a last value."""
    assert SWEEP["metric"] == {"name": "best/val/loss_nats", "goal": "minimize"}
    assert SWEEP["program"] == "train.py"
