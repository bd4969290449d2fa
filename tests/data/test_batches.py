import numpy as np
import pytest
import torch

from data.batches import Batches

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
TOKENS = np.arange(50_000, 50_257, dtype="<u2")


@pytest.mark.parametrize("device", DEVICES)
def test_targets_are_the_inputs_one_token_later(device):
    batches = Batches(TOKENS, block_size=8, device=device)
    starts = batches.window_starts(5, seed=1, purpose="batches", step=3)
    inputs, targets = batches.gather(starts)

    assert inputs.dtype == targets.dtype == torch.int64
    assert inputs.device.type == targets.device.type == device
    assert inputs.is_contiguous() and targets.is_contiguous()
    for start, row, target in zip(starts.tolist(), inputs.tolist(), targets.tolist(), strict=True):
        assert row == TOKENS[start : start + 8].tolist()
        assert target == TOKENS[start + 1 : start + 9].tolist()


def test_a_batch_is_a_function_of_seed_purpose_and_step():
    draws = [
        Batches(TOKENS, 8).window_starts(64, seed, purpose, step)
        for seed, purpose, step in [(1, "a", 0), (2, "a", 0), (1, "b", 0), (1, "a", 1)]
    ]
    again = Batches(TOKENS, 8).window_starts(64, 1, "a", 0)
    assert torch.equal(draws[0], again)
    assert not any(torch.equal(draws[0], other) for other in draws[1:])


def test_how_a_step_is_cut_into_micro_batches_changes_no_window():
    batches = Batches(TOKENS, 8)
    starts = batches.window_starts(12, 1, "batches", 5)
    whole, _ = batches.gather(starts)
    parts = torch.cat([batches.gather(part)[0] for part in starts.split(4)])
    assert torch.equal(whole, parts)


def test_windows_are_uniform_over_all_positions():
    batches = Batches(TOKENS[:20], block_size=8)
    n_windows = 12_000
    counts = torch.bincount(batches.window_starts(n_windows, 1, "batches"), minlength=12)
    assert len(counts) == batches.n_starts == 12
    sigma = (n_windows * (1 / 12) * (11 / 12)) ** 0.5
    assert (counts - n_windows / 12).abs().max() < 4 * sigma


def test_one_window_is_enough_and_less_is_refused():
    inputs, targets = Batches(TOKENS[:9], 8).gather(torch.tensor([0]))
    assert inputs[0, 0] == TOKENS[0] and targets[0, -1] == TOKENS[8]
    with pytest.raises(ValueError, match="block_size=8 needs 9 tokens and the split has 8"):
        Batches(TOKENS[:8], 8)
