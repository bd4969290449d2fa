"""Golden numbers of presets' first steps: `python -m tests.golden` writes them anew, for all presets.

A change that moves them moves every result: regenerate the records in the same change. They are
those without compiled kernels, which not every machine has; `tests/ops` holds the kernels to them.
"""

import json
from functools import cache
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from cli.config import check_config, register_schema
from ops import native
from training.state import TrainState
from training.step import train_step

CONFIGS = Path(__file__).parents[1] / "configs"
FILE = Path(__file__).with_name("golden.json")
PRESETS = [p.stem for p in sorted((CONFIGS / "dropout").glob("*.yaml"))]
TINY = (
    "batch_size=4", "micro_batch_size=4", "model.n_embd=96", "model.n_layer=2",
    "data.max_bytes=400000", "data.max_train_tokens=20000", "dtype=float32", "tracker=none",
)  # fmt: skip


def composed(*overrides: str) -> DictConfig:
    """The checked and resolved config of these overrides, as train.py has it."""
    return _composed(*overrides).copy()


@cache
def _composed(*overrides: str) -> DictConfig:
    GlobalHydra.instance().clear()
    register_schema()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", list(overrides))
    check_config(cfg)
    OmegaConf.resolve(cfg)
    return cfg


def first_step(preset: str) -> dict[str, float]:
    """Loss and gradient norm of a preset's first step, learned masks starting between 0 and 1."""
    options = [f"dropout={preset}"]
    if "alpha" in preset:
        options.append("model.activation=selu")
    if "learned" in preset:
        options.append("dropout.shift_init=1.2")
    with native.without_kernels():
        metrics = train_step(TrainState.build(composed(*options, *TINY)))
    return {key: float(metrics[f"train/{key}"]) for key in ("batch_loss_nats", "grad_norm")}


if __name__ == "__main__":
    FILE.write_text(json.dumps({p: first_step(p) for p in PRESETS}, indent=1) + "\n")
