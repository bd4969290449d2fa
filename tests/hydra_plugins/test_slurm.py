"""The launcher file for SLURM; a real SLURM is for tests/cluster."""

import importlib.util
import tomllib
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from cli.config import register_schema
from cli.spelling import choices_of, unknown_choice

ROOT = Path(__file__).parents[2]


def test_where_the_extra_is_not_installed_the_command_that_installs_it_is_named():
    assert choices_of("hydra/launcher") == ["process", "slurm"]
    said = unknown_choice("hydra/launcher", "submitit_slurm")
    extra = said.partition("'.[")[2].partition("]'")[0]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert any("submitit" in name for name in project["optional-dependencies"][extra])


@pytest.mark.skipif(importlib.util.find_spec("submitit") is None, reason="[slurm] not installed")
def test_our_settings_stand_on_the_stock_ones():
    register_schema()
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        overrides = ["hydra/launcher=slurm", "hydra.launcher.partition=gpu"]
        launcher = compose("train", overrides, return_hydra_config=True).hydra.launcher
    assert launcher._target_.endswith("SlurmLauncher")
    assert (launcher.gpus_per_node, launcher.partition) == (1, "gpu")
    assert launcher.max_num_timeout > 0 and launcher.additional_parameters.requeue
