"""Every preset in configs/dropout fills a model, and any of its slots can be filled otherwise."""

from functools import cache
from pathlib import Path

import hydra
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from cli.config import register_schema
from model.gpt import GPT, GPTConfig
from model.slots import SLOTS

CONFIGS = Path(__file__).parents[2] / "configs"
PRESETS = sorted(path.stem for path in (CONFIGS / "dropout").glob("*.yaml"))


@cache
def compose(*overrides: str) -> DictConfig:
    register_schema()
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return hydra.compose("train", list(overrides)).dropout


def build(cfg: DictConfig) -> GPT:
    activation = "selu" if "alpha" in cfg.name else "gelu"
    dropouts = hydra.utils.instantiate(OmegaConf.masked_copy(cfg, list(SLOTS)))
    shape = GPTConfig(11, 6, n_layer=2, n_head=4, n_embd=8, activation=activation)
    return GPT(shape, dropouts)


@pytest.mark.parametrize("preset", PRESETS)
def test_names_itself_and_all_slots(preset: str) -> None:
    cfg = compose(f"dropout={preset}")
    assert cfg.name == preset
    assert set(SLOTS) <= set(cfg)


@pytest.mark.parametrize("preset", PRESETS)
def test_trains_a_model(preset: str) -> None:
    torch.manual_seed(0)
    model = build(compose(f"dropout={preset}"))
    tokens = torch.arange(12).remainder(11).view(2, 6)
    out = model(tokens, return_masks=True)
    loss = model.logits(out.hidden).square().mean()
    (loss if out.penalty is None else loss + out.penalty).backward()
    assert loss.isfinite()
    assert model.token_embedding.weight.grad is not None
    assert (preset == "none") == (not out.masks)


@pytest.mark.parametrize("preset", PRESETS)
def test_any_slot_can_be_filled_otherwise(preset: str) -> None:
    cfg = compose(f"dropout={preset}", *(f"dropout/slot@dropout.{s}=locked" for s in SLOTS))
    for slot in SLOTS:
        assert cfg[slot].keys() == {"_target_", "_partial_", "p"}, slot
        assert cfg[slot]._target_ == "dropout.channel.ChannelDropout"
