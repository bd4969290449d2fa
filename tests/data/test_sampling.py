"""Sampling by epochs: every window once an epoch, as a pure function of seed and step."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from data.batches import Batches
from data.sampling import Epochs, Replacement

END = 999
# Seven documents of 1 to 7 tokens and their ends: 35 tokens, all but the ends different.
DOCUMENTS = [[*range(10 * n, 11 * n), END] for n in range(1, 8)]
TOKENS = np.concatenate(DOCUMENTS).astype("<u2")
BLOCK = 3
N_WINDOWS = (len(TOKENS) - 1) // BLOCK


def epochs(tokens=TOKENS, end_of_text=END):
    return Epochs(Batches(tokens, BLOCK, end_of_text=end_of_text))


def stream_of(sampler, epoch, seed=1):
    """An epoch's windows put together again, in the order of its stream."""
    positions = np.concatenate(
        [sampler.windows(1, seed, epoch * N_WINDOWS + k + 1).numpy() for k in range(N_WINDOWS)]
    )
    by_first = {row[0]: row for row in positions}
    (first,) = set(by_first) - {row[-1] for row in positions}  # no window ends where it begins
    rows = [by_first[first]]
    while len(rows) < N_WINDOWS:
        rows.append(by_first[rows[-1][-1]])
    return [first, *np.concatenate([row[1:] for row in rows]).tolist()]


@pytest.mark.parametrize("epoch", [0, 1, 5])
@pytest.mark.parametrize("end_of_text", [END, None])
def test_an_epoch_has_every_token_once_but_the_last_incomplete_window(epoch, end_of_text):
    stream = stream_of(epochs(end_of_text=end_of_text), epoch)
    assert len(stream) == N_WINDOWS * BLOCK + 1
    assert len(set(stream)) == len(stream)
    assert set(stream) <= set(range(len(TOKENS)))


def test_documents_stay_whole_and_come_in_a_new_order_each_epoch():
    starts = set(np.cumsum([0, *map(len, DOCUMENTS)]).tolist())
    orders = []
    for epoch in range(4):
        stream = stream_of(epochs(), epoch)
        for before, after in pairwise(stream):
            assert after == before + 1 or (TOKENS[before] == END and after in starts)
        orders.append(tuple(place for place in stream if place in starts))
    assert len(set(orders)) == 4


def test_one_document_is_turned_round_at_a_place_of_each_epochs_own():
    firsts = set()
    for epoch in range(6):
        stream = stream_of(epochs(end_of_text=None), epoch)
        assert all(after == (before + 1) % len(TOKENS) for before, after in pairwise(stream))
        firsts.add(stream[0])
    assert len(firsts) > 3


def test_windows_of_an_epoch_are_in_no_order():
    positions = epochs().windows(N_WINDOWS, seed=1, step=1)
    follows = (positions[1:, 0] == positions[:-1, -1]).sum()
    assert follows < N_WINDOWS / 2


def test_the_stream_of_windows_does_not_depend_on_how_it_is_cut_into_steps():
    one_by_one = torch.cat([epochs().windows(1, 7, step) for step in range(1, 61)])
    for n_windows in (4, 5, 30, 60):  # across the borders of epochs, and several in one step
        sampler = epochs()
        steps = [sampler.windows(n_windows, 7, k + 1) for k in range(60 // n_windows)]
        assert torch.equal(torch.cat(steps), one_by_one)


def test_steps_may_be_asked_in_any_order():
    forwards, backwards = epochs(), epochs()
    a = [forwards.windows(5, 3, step) for step in range(1, 20)]
    b = [backwards.windows(5, 3, step) for step in reversed(range(1, 20))]
    assert all(torch.equal(x, y) for x, y in zip(a, reversed(b), strict=True))


def test_seeds_differ():
    assert not torch.equal(epochs().windows(8, 1, 1), epochs().windows(8, 2, 1))


def test_gathered_windows_are_those_of_the_stream():
    sampler = epochs()
    windows = sampler.windows(4, 1, 1)
    inputs, targets = sampler.batches.gather(windows)
    assert inputs.tolist() == TOKENS[windows[:, :-1]].tolist()
    assert targets.tolist() == TOKENS[windows[:, 1:]].tolist()


def test_with_replacement_the_windows_are_those_of_the_committed_results():
    batches = Batches(TOKENS, BLOCK)
    windows = Replacement(batches).windows(16, 1, 3)
    assert torch.equal(windows, batches.window_starts(16, 1, "train", 3))
    assert windows.tolist()[:5] == [8, 27, 31, 11, 5]
