"""What dropout gains by the gap: pairs of rows that differ in their dropout alone, and no others."""

import json
from pathlib import Path

import pytest

from experiments.answer import _span, main, page
from experiments.pairs import OUTCOMES, points, resolved
from experiments.predictions import as_published
from experiments.runs import load_table
from experiments.spec import RESULTS, load_spec

NAMES = ("published_nano", "controls_nano", "rivals_nano")


@pytest.fixture(scope="module")
def found():
    return points({name: load_table(load_spec(name)) for name in NAMES})


def test_a_point_is_the_paired_difference_at_the_gap_of_none(found) -> None:
    (point,) = (p for p in found if (p.table, p.kind) == ("published_nano", "standard 0.3"))
    rows = load_table(load_spec("published_nano")).rows
    val, train = (rows["none"].values(metric) for metric in ("val", "train"))
    theirs = rows["standard_0.3"].values("val")
    assert point.gap == pytest.approx(sum(val[s] - train[s] for s in theirs) / len(theirs))
    gain = sum(theirs[s] - val[s] for s in theirs) / len(theirs)
    assert point.gains["val"].interval.mean == pytest.approx(gain)
    averaged = {"val_ema", "equal_train_ema"}  # of which that table keeps none
    assert set(point.gains) == set(OUTCOMES) - averaged


def test_one_setting_is_one_point_and_the_table_with_averaged_weights_has_it(found) -> None:
    same = [p for p in found if p.kind == "learned" and p.gap == pytest.approx(2.14, abs=0.01)]
    assert [p.table for p in same] == ["controls_nano"]  # not published_nano, of the same runs
    assert set(same[0].gains) == set(OUTCOMES)


def test_what_differs_in_more_than_its_dropout_is_no_pair(found) -> None:
    names = {p.row.row.name for p in found}
    # More parameters, more steps; other masks, pruning, masked inputs: no kind that is asked for.
    assert not {n for n in names if n.startswith(("none", "pruned", "masked", "learned_static"))}
    assert "learned_no_penalty_wd1" not in names
    decays = {
        (p.row.finished[0].config["optimizer"]["weight_decay"], round(p.gap, 1)) for p in found
    }
    assert {(0.1, 2.1), (1, 1.0)} <= decays  # each beside none of its own decay


def test_a_pair_of_one_seed_is_shown_apart(found) -> None:
    few = [p for p in found if p not in resolved(found)]
    assert {p.n for p in few} == {1}
    sure, _, unsure = page(found, as_published()).partition("## Of fewer seeds")
    assert "standard 0.1, decay 3" in unsure
    assert "standard 0.1, decay 3" not in sure


CHANGES = {
    "same": {},
    "device": {"device__kind": "cuda"},
    "type": {"dtype": "float32"},
    "length": {"config__steps": 900},
}


def test_another_machine_type_or_length_is_another_setting(make_record, tmp_path) -> None:
    tables, spec = {}, load_spec("published_nano")
    for name, change in CHANGES.items():
        for seed in (1, 2, 3):
            for row, val in (("none", 4.0), ("standard_0.2", 3.8)):
                record = make_record(row, seed, val, 3.0, config__dropout={"name": row}, **change)
                path = tmp_path / name / row / f"seed{seed}.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(record))
        tables[name] = load_table(spec, tmp_path / name)
    found = points({"published_nano": tables["same"], **tables})  # the first one twice
    assert [p.gains["val"].interval.mean for p in found] == pytest.approx([-0.2] * len(CHANGES))


def test_a_page_says_what_is_unmeasured(found) -> None:
    text = page(found, as_published())
    line = next(line for line in text.splitlines() if line.startswith("| standard 0.4"))
    assert line.count("unmeasured") == 4
    assert "gap below 0.7 " in text
    assert "−0.174 (1)" in line
    assert _span([0.1, -0.2]) == "−0.200 to +0.100 (2)"
    assert all(f"\n| {point.kind} " in text for point in resolved(found))


def test_the_committed_page_is_made_again(tmp_path: Path) -> None:
    out, figure = tmp_path / "answer.md", tmp_path / "answer.svg"
    assert main(["--out", str(out), "--figure", str(figure)]) == 0
    assert out.read_bytes() == (RESULTS / "answer.md").read_bytes()
    assert figure.read_text().startswith("<?xml")


def test_no_runs_are_an_error_in_a_line(tmp_path: Path, capsys) -> None:
    assert main(["--runs", str(tmp_path), "--out", str(tmp_path / "page.md")]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path} has no two rows of a table")
