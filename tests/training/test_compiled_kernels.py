"""A hundred steps with the compiled kernels go where those with torch's operations go."""

from types import SimpleNamespace

import pytest
import torch

from ops import native
from tests.golden import composed
from training.state import TrainState
from training.step import train_step

SHAPE = (
    "batch_size=4", "micro_batch_size=2", "model.n_embd=24", "model.n_layer=2", "model.n_head=3",
    "model.block_size=24", "data.max_bytes=400000", "data.max_train_tokens=20000", "tracker=none",
    "device=cpu", "schedule.warmup_steps=10",
)  # fmt: skip


def losses(*overrides: str) -> torch.Tensor:
    state = TrainState.build(composed(*SHAPE, *overrides))
    return torch.tensor([float(train_step(state)["train/batch_loss_nats"]) for _ in range(100)])


@pytest.mark.parametrize(
    ("dropout", "dtype", "tolerance"),
    [
        ("none", "float32", 1e-4),
        ("none", "bfloat16", 0.03),
        ("learned", "float32", 0.02),  # a mask may turn where the noise is as near as a rounding
        ("learned", "bfloat16", 0.1),
    ],
)
def test_attention(dropout, dtype, tolerance, monkeypatch):
    """Both draw the same noise, by the compiled hash."""
    if not native.multiplies_in(getattr(torch, dtype)):
        pytest.skip("no compiler, or no AMX, here")
    ours = losses(f"dropout={dropout}", f"dtype={dtype}")
    monkeypatch.setattr("ops.attention.native", SimpleNamespace(usable=lambda _: False))
    plain = losses(f"dropout={dropout}", f"dtype={dtype}")
    assert not ours.equal(plain)  # the two are not one
    assert plain[:10].mean() - plain[-10:].mean() > 1
    assert (ours - plain).abs().max() < tolerance
