"""For every test: one thread a process, and no word to the outside."""

import os
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from pathlib import Path

# Before anything imports torch. The tests run in several processes (make test), and shapes are tiny.
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
os.environ |= {"HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg"}

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from cli.config import check_config, register_schema
from ops import native
from training.state import TrainState

CONFIGS = str(Path(__file__).parents[1] / "configs")
TINY = (
    "steps=6", "batch_size=4", "micro_batch_size=2", "eval_every=3", "log_every=1", "save_every=2",
    "model.n_layer=2", "model.n_embd=16", "model.n_head=2", "model.block_size=16",
    "data.vocab_size=300", "data.max_bytes=400000", "data.max_train_tokens=20000",
    "schedule.warmup_steps=2", "evaluate.windows=8", "evaluate.final_windows=8",
    "evaluate.batch_size=4", "tracker=none",
)  # fmt: skip


@pytest.fixture(params=["compiled", "torch"])
def way(request):
    """By the compiled kernels, and as it is where none could be compiled."""
    if request.param == "compiled" and native.library() is None:
        pytest.skip("no compiler here")
    hidden = native.without_kernels() if request.param == "torch" else nullcontext()
    with hidden:
        yield request.param


@pytest.fixture(scope="session", autouse=True)
def no_power_cut():
    """Nothing here outlives one: what a test means to happen at an fsync is in `files.fault_hook`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@cache
def _composed(*overrides: str) -> DictConfig:
    register_schema()
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        cfg = compose("train", [*TINY, *overrides])
    check_config(cfg)
    OmegaConf.resolve(cfg)
    return cfg


@pytest.fixture
def tiny_cfg(tmp_path: Path) -> Callable[..., DictConfig]:
    """A function from overrides to a resolved config of a model that trains in milliseconds."""

    def make(*overrides: str) -> DictConfig:
        cfg = _composed(*overrides).copy()
        if not any(override.startswith("runs_dir=") for override in overrides):
            cfg.runs_dir = str(tmp_path / "runs")
        return cfg

    return make


@pytest.fixture
def tiny_state(tiny_cfg: Callable[..., DictConfig]) -> Callable[..., TrainState]:
    """A function from overrides to a state before its first step."""
    return lambda *overrides: TrainState.build(tiny_cfg(*overrides))
