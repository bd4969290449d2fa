import pytest

from experiments.runs import best_row, compare, compared_with, load_table
from experiments.spec import Comparison, load_spec


@pytest.fixture
def table(small_case, small_runs):
    return load_table(load_spec(small_case), small_runs)


def test_each_row_has_its_runs_and_its_state(table):
    assert {name: runs.seeds for name, runs in table.rows.items()} == {
        "none": (1, 2, 3),
        "standard_0.2": (1, 2, 3),
        "learned": (1, 2),
        "unborn": (),
    }
    assert table.rows["learned"].state == "finished"
    assert table.rows["unborn"].state == "not run"
    assert [record.status for record in table.rows["learned"].unfinished] == ["failed"]


def test_a_row_whose_runs_all_failed_says_so(small_case, small_runs, write, make_record):
    write(make_record("unborn", 1, 0, 0, status="failed", metrics=None))
    table = load_table(load_spec(small_case), small_runs)
    assert table.rows["unborn"].state == "failed"
    assert table.rows["unborn"].mean("val") is None


def test_records_of_other_rows_stay_outside(small_case, small_runs, write, make_record):
    write(make_record("stranger", 1, 1.0, 1.0, dtype="float32"))
    table = load_table(load_spec(small_case), small_runs)
    assert [record.name for record in table.strangers] == ["stranger/seed1.json"]
    assert len(table.finished) == 8


def test_no_records_at_all_says_how_to_make_them(small_case, tmp_path):
    with pytest.raises(
        ValueError, match=r"holds no record of table 'small_case'.*table=small_case"
    ):
        load_table(load_spec(small_case), tmp_path / "nowhere")


def test_differences_are_paired_and_corrected_over_the_list(table):
    wanted = [("standard_0.2", "none", "val"), ("none", "standard_0.2", "train")]
    alone, together = compare(table, wanted[:1])[0], compare(table, wanted)
    assert alone.difference.interval.mean == pytest.approx(-0.121)
    assert alone.p == alone.difference.p
    # The smaller of two p-values is doubled.
    smaller = min(together, key=lambda one: one.difference.p)
    assert smaller.p == pytest.approx(2 * smaller.difference.p)


def test_rows_with_too_few_or_no_common_seeds_claim_nothing(table):
    found = compare(table, [("learned", "none", "val"), ("unborn", "none", "val")])
    assert found[0].difference.seeds == (1, 2)
    assert [one.reading for one in found] == ["too few seeds", "unborn: not run"]


def test_the_best_row_is_chosen_over_common_seeds(small_case, small_runs, write, make_record):
    # By all its seeds standard_0.2 would look worse: its seed 4 has no counterpart.
    write(make_record("standard_0.2", 4, 99.0, 3.0))
    table = load_table(load_spec(small_case), small_runs)
    assert best_row(table, ["none", "standard_0.2", "unborn"], "val") == "standard_0.2"
    assert best_row(table, ["unborn"], "val") is None


def test_a_comparison_leaves_out_the_row_compared_with(table):
    other, found = compared_with(table, Comparison(best_of=("none", "standard_0.2")), "val", "val")
    assert other == "standard_0.2"
    assert [one.row.row.name for one in found] == ["none", "learned", "unborn"]
    assert compared_with(table, Comparison(best_of=("unborn",)), "val", "val") == (None, [])
