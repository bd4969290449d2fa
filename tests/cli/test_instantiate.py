"""Configs become objects through one door, and only this project's own classes fit through."""

from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from cli.instantiate import instantiate, own_object, read_config
from dropout.base import Site
from dropout.penalties import MaskPenalty
from dropout.standard import StandardDropout

ROOT = Path(__file__).parents[2]
SITE = Site("mlp_output", 0, 1, 8, 8, 2, 4, "gelu")
STANDARD = {"_target_": "dropout.standard.StandardDropout", "_partial_": True, "p": 0.25}


def targets(node: object) -> list[str]:
    if isinstance(node, dict):
        own = [node["_target_"]] if "_target_" in node else []
        return own + [target for value in node.values() for target in targets(value)]
    return [target for value in node for target in targets(value)] if isinstance(node, list) else []


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda p: p.stem)
def test_every_target_that_the_configs_offer_is_ours(path: Path) -> None:
    # The launcher is Hydra's to make, not ours.
    if path.parent.name == "launcher":
        return
    for target in targets(yaml.safe_load(path.read_text())):
        own_object(target)


def test_a_partial_waits_for_its_site() -> None:
    dropout = instantiate(STANDARD)(SITE)
    assert isinstance(dropout, StandardDropout)
    assert isinstance(instantiate(STANDARD, SITE)(), StandardDropout)
    assert isinstance(instantiate(STANDARD, SITE), partial)


def test_arguments_reach_the_object_uncopied() -> None:
    rounding = torch.nn.Identity()
    penalty = MaskPenalty(squared=1.0)
    node = {"_target_": "dropout.learned.LearnedDropout", "n_head": 2}
    dropout = instantiate(node, SITE, rounding=rounding, penalty=penalty)
    assert dropout.rounding is rounding
    assert dropout.penalty is penalty


def test_objects_in_containers_are_made_and_see_no_omegaconf() -> None:
    node = OmegaConf.create({"p": 0.5, "slots": [{**STANDARD, "p": "${p}"}, {"name": "x"}]})
    made = instantiate(node)
    assert made["slots"][0](SITE).p == 0.5
    assert made["slots"][1] == {"name": "x"}
    assert type(made["slots"]) is list


def test_a_constructors_own_error_comes_through() -> None:
    with pytest.raises(ValueError, match=r"^p=1\.3 must be in \[0, 1\]"):
        instantiate({**STANDARD, "p": 1.3}, SITE)()


def test_a_misspelt_argument_is_named_with_what_is_valid() -> None:
    node = {"slots": {"mlp_output": {**STANDARD, "rate": 0.1}}}
    with pytest.raises(ValueError, match=r"slots\.mlp_output: .*'rate'; it has: site, p"):
        instantiate(node)


def test_a_missing_argument_is_named() -> None:
    with pytest.raises(ValueError, match="missing 1 required positional argument: 'site'"):
        instantiate({key: STANDARD[key] for key in ("_target_", "p")})


def test_a_value_that_nobody_can_compute_with_is_shown_with_its_key() -> None:
    penalty = {"_target_": "dropout.penalties.MaskPenalty", "linear": 0.0, "entropy": None}
    with pytest.raises(ValueError, match=r"^a\.b: .*MaskPenalty cannot be made of .*entropy=None"):
        instantiate({"a": {"b": penalty}})


def test_arguments_without_a_target_are_refused() -> None:
    with pytest.raises(ValueError, match="need a _target_"):
        instantiate({"p": 1}, SITE)


def test_a_stored_config_is_read_as_it_was_written(tmp_path: Path) -> None:
    config = {"seed": 1, "dropout": {"mlp_output": STANDARD, "p": None}, "tags": ["a", "é"]}
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    read = read_config(tmp_path / "config.yaml")
    assert read == config
    assert read.dropout.mlp_output.p == 0.25
