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

    def one(table, row, seed, val=4.0, digest=OWN, **changes):
        path = tmp_path / table / row / f"seed{seed}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        changes = {"run_hash": digest[:-1] + str(seed), "table": table, **changes}
        path.write_text(json.dumps(make_record(row, seed, val, 2.6, **changes)))

    return one


@pytest.fixture
def found(tmp_path):
    """What `mine` takes from the rivals, by row and seed."""

    def of(others=("rivals_nano",)):
        there = {(r.row, r.seed): r for r in read_records(tmp_path / "mine")}
        return {(r.row, r.seed): r for r in taken("mine", there, others)}

    return of


def test_a_row_with_one_equal_seed_has_the_others_too(write, found):
    write("mine", "none", 1)
    write("mine", "learned", 1, val=4.2, digest=OTHER)
    for seed in (1, 2, 3):
        write("rivals_nano", "none_wd0.1", seed, val=3 + 1 / seed)
    write("mine", "none", 1, val=4.0)
    write("rivals_nano", "standard", 1, val=4.1, digest="c" * 64)
    new = found()
    assert list(new) == [("none", 2), ("none", 3)]
    record = new["none", 2]
    assert (record.table, record.metric("val")) == ("mine", 3.5)
    assert (record.config["table_name"], record.config["row_name"]) == ("mine", "none")
    assert record.taken_from == "rivals_nano/none_wd0.1/seed2.json"


def test_what_was_measured_later_of_the_same_run_is_taken_too(write, found):
    test = {"final": {"test/loss_nats": 3.9}}
    write("mine", "none", 1, test=None)
    write("rivals_nano", "none_wd0.1", 1, test=test)
    write("rivals_nano", "none_wd0.1", 2, test=test)
    new = found()
    assert [record.metric("test") for record in new.values()] == [3.9, 3.9]
    assert new["none", 1].taken_from is None


def test_a_row_that_differs_in_names_alone_is_the_same(write, found):
    """Standard dropout in every place of its preset, chosen place by place."""
    write("mine", "gpt2_0.1", 1, digest=OTHER)
    for seed in (1, 2):
        write("rivals_nano", "standard_0.1", seed)
    record = found()["gpt2_0.1", 2]
    assert record.config["dropout"]["name"] == "gpt2_0.1"


def test_what_is_there_stays_and_the_first_table_comes_first(write, found):
    for seed in (1, 2):
        write("mine", "none", seed)
    for table, seeds in (("rivals_nano", (1, 2, 3)), ("controls_nano", (1, 3, 4))):
        for seed in seeds:
            write(table, "none_wd0.1", seed)
    new = found(("rivals_nano", "controls_nano"))
    assert {key: r.taken_from.split("/")[0] for key, r in new.items()} == {
        ("none", 3): "rivals_nano", ("none", 4): "controls_nano"
    }  # fmt: skip


def test_an_equal_configuration_that_ended_otherwise_is_no_stand_in(write, found):
    write("mine", "none", 1)
    write("rivals_nano", "none_wd0.1", 1, val=4.001)
    with pytest.raises(UserError, match=r"none/seed1.*rivals_nano's none_wd0.1/seed1.*otherwise"):
        found()


def test_a_record_that_was_taken_names_the_run_s_own_table(write, found):
    write("mine", "none", 1)
    write("rivals_nano", "none_wd0.1", 1)
    write("rivals_nano", "none_wd0.1", 2, taken_from="controls_nano/none/seed2.json")
    assert found()["none", 2].taken_from == "controls_nano/none/seed2.json"


def test_published_they_are_on_the_page(write, small_case, tmp_path, capsys):
    write("small_case", "none", 1)
    for seed in (1, 2):
        write("rivals_nano", "none_wd0.1", seed)
    runs, out = str(tmp_path / "small_case"), str(tmp_path / "out")
    options = [small_case, "--runs", runs, "--out", out, "--also", "rivals_nano"]
    assert main(options) == 0
    assert main(options) == 0  # again, when they are there
    assert {r.name for r in read_records(tmp_path / "out")} == {
        "none/seed1.json",
        "none/seed2.json",
    }

    from experiments.table import main as table

    page = tmp_path / "page.md"
    assert table([small_case, "--runs", out, "--out", str(page)]) == 0
    assert "| runs of other tables, of the very same rows | 1 from rivals_nano" in page.read_text()


def test_a_table_that_there_is_not_is_told(small_case, write, tmp_path, capsys):
    write("small_case", "none", 1)
    runs = str(tmp_path / "small_case")
    assert main([small_case, "--runs", runs, "--out", runs, "--also", "rivals"]) == 2
    assert "table='rivals' must be one of" in capsys.readouterr().err
