"""The compiled step beside the eager one, on the CPU's backend: loss, gradients and a hundred steps."""

import pytest
import torch

from tests.golden import composed
from training.state import TrainState
from training.step import accumulate_gradients, train_step

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SHAPE = (
    "batch_size=4", "micro_batch_size=2", "model.n_embd=24", "model.n_layer=2", "model.n_head=3",
    "model.block_size=24", "data.max_bytes=400000", "data.max_train_tokens=20000", "tracker=none",
    "device=cpu", "schedule.warmup_steps=10", "dtype=float32",
)  # fmt: skip


def both(*overrides: str) -> tuple[TrainState, TrainState]:
    eager, compiled = (
        TrainState.build(composed(*SHAPE, *overrides, f"compile={c}")) for c in (False, True)
    )
    return eager, compiled


def losses(state: TrainState) -> torch.Tensor:
    return torch.tensor([float(train_step(state)["train/batch_loss_nats"]) for _ in range(100)])


def test_without_noise_the_compiled_step_is_the_eager_one():
    eager, compiled = both("dropout=none")
    first = [float(accumulate_gradients(state, 1, weight=0.0)[0]) for state in (eager, compiled)]
    assert first[0] == pytest.approx(first[1], abs=1e-5)
    pairs = zip(eager.model.named_parameters(), compiled.model.parameters(), strict=True)
    for (name, ours), theirs in pairs:
        assert torch.allclose(ours.grad, theirs.grad, atol=1e-5, rtol=1e-3), name
    for state in (eager, compiled):
        state.optimizer.zero_grad(set_to_none=True)
    assert torch.allclose(losses(eager), losses(compiled), atol=1e-4)


@pytest.mark.parametrize("dropout", ["standard", "learned"])
def test_with_noise_of_its_own_the_compiled_step_learns_as_well(dropout):
    """The compiler draws other numbers from the same seed: equal in law, so after a hundred steps."""
    ends = [losses(state)[-20:].mean().item() for state in both(f"dropout={dropout}")]
    assert ends[0] < 6.5  # from 6.93
    assert ends[0] == pytest.approx(ends[1], abs=0.1)
