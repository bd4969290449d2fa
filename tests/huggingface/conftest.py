"""Small runs with weights that are far from their initial ones, as if they had been trained."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from tests.data.conftest import hub as hub
from tracking.checkpoint import save_checkpoint
from tracking.load import LoadedRun, load_run
from training.state import Progress, build_model


@pytest.fixture
def make_run(tiny_cfg: Callable[..., object], tmp_path: Path) -> Callable[..., LoadedRun]:
    """A function from overrides to a run of that config, loaded in float32."""

    def make(*overrides: str) -> LoadedRun:
        cfg = tiny_cfg(*overrides)
        model = build_model(cfg)
        noise = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.empty_like(parameter).normal_(0, 0.3, generator=noise))
        directory = tmp_path / "run"
        directory.mkdir()
        OmegaConf.save(cfg, directory / "config.yaml")
        tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        state = SimpleNamespace(tensors=lambda: tensors, progress=Progress())
        save_checkpoint(directory / "checkpoints", "best", state)
        return load_run(directory, "best", "cpu", "float32")

    return make


@torch.no_grad()
def logits_of(run: LoadedRun, tokens: Tensor) -> Tensor:
    return run.model.logits(run.model(tokens).hidden)
