import json

import pytest

from experiments.compare import AGREES, DIFFERS, OPEN, main, rows_beside
from experiments.runs import load_table
from experiments.spec import load_spec

SPREAD = {1: 0.00, 2: 0.02, 3: 0.01}


@pytest.fixture
def beside(small_case, small_runs, make_record, tmp_path):
    """The committed-like small case, and one's own vals by row and seed, in another folder."""

    def make(vals, **changes):
        for row, by_seed in vals.items():
            for seed, val in by_seed.items():
                path = tmp_path / "own" / row / f"seed{seed}.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(make_record(row, seed, val, 2.6, **changes)))
        spec = load_spec(small_case)
        return load_table(spec, small_runs), load_table(spec, tmp_path / "own")

    return make


def verdicts(tables):
    return {ours.row.name: verdict for _, ours, _, _, verdict in rows_beside(*tables)}


def test_equal_runs_agree_and_runs_far_away_differ(beside):
    tables = beside({
        "none": {seed: 4.0 + shift for seed, shift in SPREAD.items()},
        "standard_0.2": {seed: 3.5 + shift for seed, shift in SPREAD.items()},
        "unborn": {1: 4.0},
    })  # fmt: skip
    assert verdicts(tables) == {
        "none": AGREES,
        "standard_0.2": DIFFERS,
        "unborn": "committed: not run",
    }


def test_one_run_is_judged_by_the_spread_of_the_committed_ones(beside):
    assert verdicts(beside({"none": {1: 4.03}, "standard_0.2": {1: 4.9}})) == {
        "none": AGREES,
        "standard_0.2": DIFFERS,
    }


def test_one_run_beside_one_says_nothing(beside, small_runs):
    for seed in (2, 3):
        (small_runs / "none" / f"seed{seed}.json").unlink()
    assert verdicts(beside({"none": {1: 4.03}})) == {"none": OPEN}


def test_the_page_says_what_was_done_otherwise_and_which_orders_hold(
    beside, small_case, small_runs, tmp_path, capsys
):
    vals = {"none": 4.0, "standard_0.2": 4.2}
    beside({row: {s: val + d for s, d in SPREAD.items()} for row, val in vals.items()},
           config__steps=30)  # fmt: skip
    places = ["--runs", str(tmp_path / "own"), "--with", str(small_runs)]
    assert main([small_case, *places, "--out", str(tmp_path / "page.md")]) == 0
    page = (tmp_path / "page.md").read_text()
    assert page in capsys.readouterr().out
    assert page.startswith("# Yours beside the committed: A small case\n")
    assert "**Not as in the committed runs:** `steps` of none; `steps` of standard 0.2." in page
    assert "Of 2 rows **1** agree with the committed ones" in page
    orders = page.split("## Final val loss minus that of none, same seeds")[1]
    (order,) = [line for line in orders.splitlines() if line.startswith("| standard 0.2 ")]
    assert order.split("|")[2].strip() == "−0.121" and "| **the opposite** |" in order


def test_without_committed_records_ones_own_are_shown(beside, small_case, tmp_path, capsys):
    beside({"none": {1: 4.0}})
    places = ["--runs", str(tmp_path / "own"), "--with", str(tmp_path / "nowhere")]
    assert main([small_case, *places]) == 0
    said = capsys.readouterr().out
    assert "## Final loss" in said and "holds no record to set this beside" in said
