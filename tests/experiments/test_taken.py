"""Seeds that another table has of the very same row: `python -m experiments.publish --also`."""

import json

import pytest

from common.errors import UserError
from experiments import taken as module
from experiments.publish import main
from experiments.records import read_records
from experiments.taken import taken

OWN, OTHER = "a" * 64, "b" * 64  # the hashes of two configurations


@pytest.fixture
def write(tmp_path, monkeypatch, make_record):
    """Write one record: of the table `mine`, or of one that is committed."""
    monkeypatch.setattr(module, "RECORDS", tmp_path)

    def one(table, row, seed, val=4.0, digest=OWN, rate=0.0, **changes):
        path = tmp_path / table / row / f"seed{seed}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        dropout = {"name": row, "p": rate}
        own = {"run_hash": digest[:-1] + str(seed), "table": table, "config__dropout": dropout}
        path.write_text(json.dumps(make_record(row, seed, val, 2.6, **own, **changes)))

    return one


@pytest.fixture
def found(tmp_path):
    """What `mine` takes from the rivals, by row and seed."""

    def of(other="rivals_nano"):
        there = {(r.row, r.seed): r for r in read_records(tmp_path / "mine")}
        return taken("mine", there, other)

    return of


def test_a_row_with_one_equal_seed_has_the_others_too(write, found):
    write("mine", "none", 1)
    write("mine", "learned", 1, val=4.2, rate=0.1, digest=OTHER)
    for seed in (1, 2, 3):
        write("rivals_nano", "none_wd0.1", seed, val=3 + 1 / seed)
    write("rivals_nano", "standard", 1, val=4.1, rate=0.2, digest="c" * 64)
    write("rivals_nano", "standard", 2, val=4.1, rate=0.2, digest="c" * 64)
    new = found()
    assert list(new) == [("none", 2), ("none", 3)]
    record = new["none", 2]
    assert (record.table, record.metric("val")) == ("mine", 3.5)
    assert (record.config["table_name"], record.config["row_name"]) == ("mine", "none")
    assert record.taken_from == "rivals_nano/none_wd0.1/seed2.json"


def test_equal_losses_with_another_setting_are_another_row(write, found):
    """As of averaged weights, which training never reads."""
    write("mine", "none", 1, config__ema_decay=None)
    write("mine", "standard", 1, rate=0.2)
    for seed in (1, 2):
        write(
            "rivals_nano",
            "none",
            seed,
            config__ema_decay=0.99,
            test={"final": {"test/loss_nats": 3}},
        )
        write("rivals_nano", "standard", seed, rate=0.2)
    assert list(found()) == [("standard", 2)]


def test_what_was_measured_later_of_the_same_run_is_taken_too(write, found):
    test = {"final": {"test/loss_nats": 3.9}}
    write("mine", "none", 1, test=None)
    write("rivals_nano", "none_wd0.1", 1, test=test)
    write("rivals_nano", "none_wd0.1", 2, test=test)
    new = found()
    assert [record.metric("test") for _, record in sorted(new.items())] == [3.9, 3.9]
    assert new["none", 1].taken_from is None


def test_it_is_taken_of_a_run_that_differs_in_a_name_alone(write, found):
    test = {"final": {"test/loss_nats": 3.9}}
    write("mine", "gpt2_0.1", 1, rate=0.1, digest=OTHER, test=None)
    write("rivals_nano", "standard_0.1", 1, rate=0.1, test=test)
    (record,) = found().values()
    assert (record.metric("test"), record.taken_from) == (3.9, None)
    assert record.run_hash.startswith(OTHER[:-1])


def test_a_row_that_differs_in_names_alone_is_the_same(write, found):
    """Standard dropout in every place of its preset, chosen place by place."""
    write("mine", "gpt2_0.1", 1, rate=0.1, digest=OTHER)
    for seed in (1, 2):
        write("rivals_nano", "standard_0.1", seed, rate=0.1)
    record = found()["gpt2_0.1", 2]
    assert record.config["dropout"] == {"name": "gpt2_0.1", "p": 0.1}


@pytest.mark.parametrize("digest", [OWN, OTHER], ids=["one hash", "another name"])
def test_a_shared_seed_that_ended_otherwise_lets_none_stand_in(write, found, digest):
    for seed in (1, 2):
        write("mine", "none", seed, digest=digest)
    for seed in (1, 2, 3):
        write("rivals_nano", "none_wd0.1", seed, val=4.0 if seed == 1 else 4.001)
    with pytest.raises(UserError, match=r"none/seed2.*rivals_nano's none_wd0.1/seed2.*otherwise"):
        found()


def test_two_rows_that_are_one_of_theirs_are_refused(write, found):
    for row in ("none", "none_again"):
        write("mine", row, 1)
    write("rivals_nano", "none", 1)
    with pytest.raises(UserError, match="are both rivals_nano's row 'none'"):
        found()


def test_a_record_that_was_taken_names_the_run_s_own_table(write, found):
    write("mine", "none", 1)
    write("rivals_nano", "none_wd0.1", 1)
    write("rivals_nano", "none_wd0.1", 2, taken_from="controls_nano/none/seed2.json")
    write("rivals_nano", "none_wd0.1", 3, taken_from="mine/none/seed3.json")
    new = found()
    assert new["none", 2].taken_from == "controls_nano/none/seed2.json"
    assert new["none", 3].taken_from is None  # it is home again


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ("rivals_nano", "no row of it is one of mine's"),
        ("modern_nano", "a table without records"),
        ("rivals", "table='rivals' must be one of"),
    ],
)
def test_a_table_that_has_nothing_to_take_is_told(write, found, other, said):
    write("mine", "none", 1)
    write("rivals_nano", "standard", 1, rate=0.2, val=4.1)
    with pytest.raises(UserError, match=said):
        found(other)


def test_the_table_itself_is_told(write, tmp_path):
    write("rivals_nano", "none", 1)
    there = {(r.row, r.seed): r for r in read_records(tmp_path / "rivals_nano")}
    with pytest.raises(UserError, match="the table itself"):
        taken("rivals_nano", there, "rivals_nano")


def test_published_they_are_on_the_page_and_nothing_that_was_there_is_lost(
    write, small_case, tmp_path, capsys
):
    masks = {"val": {"own": 4.0, "other": 4.1, "mean": 4.1, "random": 4.1}}
    write("small_case", "none", 1, masks=masks, test=None)
    for seed in (1, 2):
        write("rivals_nano", "none_wd0.1", seed)
    runs, out = str(tmp_path / "small_case"), str(tmp_path / "out")
    assert main([small_case, "--runs", runs, "--out", out]) == 0
    write("small_case", "none", 1, test=None)  # as the run's own record is
    also = [small_case, "--out", out, "--also", "rivals_nano", "--runs"]
    assert main([*also, runs]) == 0
    assert main([*also, str(tmp_path / "nowhere")]) == 0  # a clone has no runs
    first, second = read_records(tmp_path / "out")
    assert (first.masks is None, first.test is None, second.test is None) == (False, False, False)
    assert capsys.readouterr().out.splitlines()[1:3] == [str(first.path), str(second.path)]

    from experiments.table import main as table

    page = tmp_path / "page.md"
    assert table([small_case, "--runs", out, "--out", str(page)]) == 0
    assert "| runs of other tables, of the very same rows | 1 from rivals_nano" in page.read_text()
