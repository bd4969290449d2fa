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


@pytest.mark.parametrize(
    ("n_tokens", "starts", "n_tail"),
    [
        (9, [0], 0),
        (10, [0], 1),
        (16, [0], 7),
        (17, [0, 8], 0),
        (20, [0, 8], 3),
        (25, [0, 8, 16], 0),
    ],
)
def test_disjoint_windows_stand_side_by_side(n_tokens, starts, n_tail):
    batches = Batches(TOKENS[:n_tokens], block_size=8)
    assert batches.disjoint_starts().tolist() == starts
    assert batches.disjoint_starts(limit=len(starts)).tolist() == starts
    assert batches.n_disjoint == len(starts) and batches.n_tail == n_tail
    _, targets = batches.gather(batches.disjoint_starts())
    assert targets.flatten().tolist() == TOKENS[1 : n_tokens - n_tail].tolist()


def test_a_limit_spreads_windows_evenly_and_takes_none_twice():
    batches = Batches(TOKENS, block_size=8)  # 32 windows
    assert batches.disjoint_starts(limit=1).tolist() == [0]
    assert batches.disjoint_starts(limit=3).tolist() == [0, 80, 168]
    assert batches.disjoint_starts(limit=5).tolist() == [0, 48, 96, 152, 200]
    assert batches.disjoint_starts(limit=33).tolist() == batches.disjoint_starts().tolist()
    for limit in range(1, 33):
        steps = batches.disjoint_starts(limit).diff()
        assert len(steps) == limit - 1
        assert limit == 1 or (steps.min() >= 8 and steps.max() - steps.min() <= 8)
    with pytest.raises(ValueError, match="windows=0 must be at least 1"):
        batches.disjoint_starts(limit=0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("dtype", "last"), [("<u2", 65_535), ("<u4", 65_536), ("<u4", 10**6)])
def test_the_largest_tokens_come_back(device, dtype, last):
    tokens = np.array([0, 32_767, 32_768, last], dtype=dtype)
    inputs, targets = Batches(tokens, 3, device).gather(torch.tensor([0], device=device))
    assert inputs.tolist() == [[0, 32_767, 32_768]]
    assert targets.tolist() == [[32_767, 32_768, last]]


def test_windows_may_be_made_of_pieces():
    batches = Batches(TOKENS, block_size=2)
    inputs, targets = batches.gather(torch.tensor([[7, 8, 3], [0, 1, 2]]))
    assert inputs.tolist() == TOKENS[[[7, 8], [0, 1]]].tolist()
    assert targets.tolist() == TOKENS[[[8, 3], [1, 2]]].tolist()


def test_documents_end_with_end_of_text():
    tokens = np.array([5, 9, 9, 1, 2, 9, 3], dtype="<u2")
    assert Batches(tokens, 2, end_of_text=9).document_starts().tolist() == [0, 2, 3, 6]
    assert Batches(tokens[:-1], 2, end_of_text=9).document_starts().tolist() == [0, 2, 3]
    assert Batches(tokens, 2).document_starts().tolist() == [0]
