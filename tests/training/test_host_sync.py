"""No training step waits for the device: on tensors without values, asking for one is an error.

A GPU's step is taken here on the meta device, whose `.item()`, `.cpu()`, `bool()` and `nonzero()`
raise. What torch does not offer there is left to torch: autocast, foreach norms, the fused update.
"""

from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.contender import Spec, compose_config
from training import state as state_module
from training import step as step_module
from training.device import Machine
from training.state import TrainState
from training.step import train_step

TINY = (
    "model.n_layer=2", "model.n_embd=16", "model.n_head=2", "model.block_size=8",
    "model.vocab_size=96", "batch_size=4", "micro_batch_size=2", "optimizer.grad_clip=1",
)  # fmt: skip


class Tokens:
    """Token data in memory."""

    splits, end_of_text = ("train", "val"), None

    def tokens(self, split: str) -> np.ndarray:
        return np.arange(4000, dtype=np.uint16) % 90


@pytest.fixture
def on_meta(monkeypatch):
    """A function from a dropout to a state on the meta device that steps as on a GPU."""
    machine = Machine(torch.device("meta"), torch.float32)
    as_on_gpu = Machine(torch.device("cuda"), torch.float32)
    check_finite = step_module.check_finite
    monkeypatch.setattr(state_module, "choose_machine", lambda *_: machine)
    monkeypatch.setattr(
        step_module,
        "check_finite",
        lambda state, *rest: check_finite(
            SimpleNamespace(machine=as_on_gpu, optimizer=state.optimizer), *rest
        ),
    )
    monkeypatch.setattr("ops.head.compiles_on", lambda _: False)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _: False)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    for name in ("get_total_norm", "clip_grads_with_norm_"):
        function = getattr(torch.nn.utils, name)
        monkeypatch.setattr(torch.nn.utils, name, partial(without_foreach, function))

    def build(dropout: str) -> TrainState:
        spec = Spec("ours", ("scale=nano", *TINY, f"dropout={dropout}"), "float32")
        state = TrainState.build(compose_config(spec), data=Tokens())
        monkeypatch.setattr(state.optimizer, "step", lambda: None)
        return state

    return build


def without_foreach(function, *args, foreach, **options):
    return function(*args, **options)


PRESETS = ["none", "standard", "classic", "learned", "learned_precomputed", "learned_everywhere"]
PRESETS += ["channel", "drop_path", "head", "layer_group", "locked", "token"]


@pytest.mark.parametrize("dropout", PRESETS)
def test_no_step_asks_for_a_value(on_meta, dropout):
    state = on_meta(dropout)
    for _ in range(2):
        metrics = train_step(state)
    assert metrics["train/batch_loss_nats"].is_meta and metrics["train/grad_norm"].is_meta
    assert state.optimizer.found_inf.is_meta


def test_asking_would_be_noticed(on_meta, monkeypatch):
    state = on_meta("none")
    clip = step_module.clip_gradients

    def asking(*args):
        norm = clip(*args)
        assert norm.item() > 0
        return norm

    monkeypatch.setattr(step_module, "clip_gradients", asking)
    with pytest.raises(RuntimeError, match="meta tensors"):
        train_step(state)
