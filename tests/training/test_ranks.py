"""The ranks of one run: the same numbers however many share it, and one fate."""

import signal
from collections.abc import Iterator

import pytest

from common.errors import UserError
from tests.soak.runs import Nursery, Process, ending, run_directory, wait_for_line
from tracking.directory import read_record
from training.ranks import Ranks, check_shares

slow = pytest.mark.slow


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    with Nursery(tmp_path_factory.mktemp("ranks")) as nursery:
        yield nursery


def codes(ranks: list[Process]) -> list[int]:
    return [rank.wait() for rank in ranks]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_every_item_has_one_rank_and_each_rank_a_contiguous_part(size):
    items = list("abcdefg")
    shares = [Ranks(rank, size).share(items) for rank in range(size)]
    assert [pair for share in shares for pair in share] == list(enumerate(items))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(
    ("ranks", "batch", "micro", "said"),
    [
        (2, 32, 32, "micro_batch_size=16 would do"),
        (4, 64, 32, "micro_batch_size=16 would do"),
        (3, 48, 12, "micro_batch_size=8 would do"),
        (3, 32, 16, "batch_size=32 cannot be shared out to 3 ranks"),
    ],
)
def test_micro_batches_that_cannot_be_shared_are_refused_with_what_would_do(
    ranks, batch, micro, said
):
    with pytest.raises(UserError, match=said):
        check_shares(ranks, batch, micro)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_micro_batches_that_can_be_shared(ranks):
    check_shares(ranks, 64, 16)


@pytest.mark.parametrize(
    "settings",
    [
        ("dropout/slot@dropout.attention_output=standard", "dtype=bfloat16", "ema_decay=0.9"),
        pytest.param((), marks=slow),
        pytest.param(("dropout=learned_precomputed",), marks=slow),
        pytest.param(
            ("dropout/slot@dropout.attention=standard", "evaluate.attention_dropout=true"),
            marks=slow,
        ),
    ],
)
def test_two_ranks_of_one_micro_batch_are_one_rank_of_two_to_the_last_bit(
    nursery, tmp_path, settings
):
    nursery.run(tmp_path / "one", *settings)
    ranks = nursery.start_ranks(2, tmp_path / "two", *settings)
    assert codes(ranks) == [0, 0], ranks[0].said
    assert ending(tmp_path / "two") == ending(tmp_path / "one")
    assert read_record(run_directory(tmp_path / "two"))["device"]["ranks"] == 2
    assert ranks[1].said.strip() == ""  # the first speaks for both


@slow
def test_more_ranks_differ_in_the_last_places_alone(nursery, tmp_path):
    four = ("micro_batch_size=2",)
    nursery.run(tmp_path / "one", *four)
    assert codes(nursery.start_ranks(2, tmp_path / "two", *four)) == [0, 0]
    one, two = (ending(tmp_path / name)["curve"] for name in ("one", "two"))
    for a, b in zip(one, two, strict=True):
        assert a == pytest.approx(b, abs=1e-4)


def test_a_signal_to_any_rank_saves_once_and_another_number_of_ranks_goes_on(nursery, tmp_path):
    nursery.run(tmp_path / "one")
    ranks = nursery.start_ranks(2, tmp_path / "two")
    wait_for_line(tmp_path / "two", ranks[0], 4)
    ranks[1].send(signal.SIGTERM)
    assert codes(ranks) == [75, 75]
    assert ranks[0].said.count("interrupted, a checkpoint is saved") == 1
    assert "torchrun --standalone --nproc-per-node=2 train.py" in ranks[0].said
    directory = run_directory(tmp_path / "two")
    assert read_record(directory)["status"] == "interrupted"
    nursery.run(tmp_path / "two")
    assert ending(tmp_path / "two") == ending(tmp_path / "one")
    starts = read_record(directory)["starts"]
    assert [start["device"]["ranks"] for start in starts] == [2, 1]


@slow
def test_a_rank_that_is_killed_ends_the_other_and_its_run_goes_on(nursery, tmp_path):
    nursery.run(tmp_path / "one")
    ranks = nursery.start_ranks(2, tmp_path / "two")
    wait_for_line(tmp_path / "two", ranks[0], 4)
    ranks[1].send(signal.SIGKILL)
    assert codes(ranks) == [1, -signal.SIGKILL]
    assert ranks[0].said.count("error: another rank of this run has ended") == 1
    assert "Traceback" not in ranks[0].said
    assert read_record(run_directory(tmp_path / "two"))["status"] == "interrupted"
    assert codes(nursery.start_ranks(2, tmp_path / "two")) == [0, 0]
    assert ending(tmp_path / "two") == ending(tmp_path / "one")


def test_a_mistake_is_told_once(nursery, tmp_path):
    ranks = nursery.start_ranks(2, tmp_path, "micro_batch_size=8")
    assert codes(ranks)[0] == 2
    assert "micro_batch_size=4 would do" in ranks[0].said
