"""Ensembles in tables: of just the row's runs, paired by seed, chosen on val."""

from pathlib import Path

import pytest

from experiments.ensembles import ensembles, row_ensemble
from experiments.page import render
from experiments.publish import publish
from experiments.runs import load_table
from experiments.spec import load_spec

ROWS = {"none": (3.80, (3.84, 3.85, 3.83)), "standard_0.2": (3.75, (3.78, 3.79, 3.77))}


def joint(loss, without):
    one = {"loss_nats": loss, "without_nats": without}
    return {"final": one, "best": one, "ema": one}


@pytest.fixture
def with_ensembles(tmp_path, write, make_record):
    """Writes three seeds of two rows, whose records hold an ensemble of `members` of them."""

    def write_all(members=(1, 2, 3)):
        for row, (loss, without) in ROWS.items():
            for seed in (1, 2, 3):
                record = make_record(row, seed, 4.0 + seed / 100, 2.6)
                record["ensemble"] = {
                    "members": {str(seed): f"{row}{seed}" for seed in members},
                    "val": joint(loss, without[seed - 1]),
                    "test": joint(loss + 0.1, without[seed - 1] + 0.1),
                }
                write(record)
        return tmp_path / "runs"

    return write_all


def test_a_page_sets_ensembles_beside_one_run_and_beside_each_other(with_ensembles, small_case):
    text = ensembles(load_table(load_spec(small_case), with_ensembles()))
    # standard error sqrt(2/3 * 2 * 0.01^2) = 0.01155, times t = 4.303
    assert "| none         |   3 |     4.020 |      3.800 | [3.750, 3.850] |" in text
    assert "−0.050 [−0.050, −0.050]" in text  # every seed moves both alike
    assert "### Test loss of the ensemble, averaged weights" in text


def test_without_ensembles_a_page_has_no_such_part(small_runs, small_case):
    table = load_table(load_spec(small_case), small_runs)
    assert ensembles(table) == "" and "Ensembles" not in render(table, "c")


def test_an_ensemble_of_fewer_runs_is_left_out_and_this_is_said(with_ensembles, small_case):
    table = load_table(load_spec(small_case), with_ensembles(members=(1, 2)))
    assert row_ensemble(table.rows["none"], "val", "final") is None
    assert ensembles(table) == ""


def test_one_stale_row_is_named(with_ensembles, write, make_record, small_case):
    folder = with_ensembles()
    write(make_record("none", 4, 4.0, 2.6))
    text = ensembles(load_table(load_spec(small_case), folder))
    assert text.endswith("Made of fewer or other runs than the row has now, and left out: none.")


def test_publishing_again_keeps_the_ensemble(
    with_ensembles, make_record, write, small_case, tmp_path
):
    spec, target = load_spec(small_case), tmp_path / "target"
    publish(spec, with_ensembles(), target)
    path = write(make_record("none", 1, 4.01, 2.6))  # the same run, as it was before it had one
    assert "ensemble" not in path.read_text()
    publish(spec, tmp_path / "runs", target)
    table = load_table(spec, target)
    assert row_ensemble(table.rows["none"], "val", "final") is not None


def test_the_best_row_is_chosen_on_val(with_ensembles, write, make_record, small_case, tmp_path):
    path = Path(small_case)
    two = "best_of: [none, standard_0.2]"
    path.write_text(path.read_text().replace("best_of: [standard_0.2]", two))
    folder = with_ensembles()
    for seed in (1, 2, 3):  # on test alone none is the better one
        record = make_record("none", seed, 4.0 + seed / 100, 2.6)
        record["ensemble"] = {
            "members": {str(s): f"none{s}" for s in (1, 2, 3)},
            "val": joint(3.80, 3.84),
            "test": joint(3.0, 3.1),
        }
        write(record)
    text = ensembles(load_table(load_spec(small_case), folder))
    for part in text.split("###")[1:]:
        assert part.count("minus standard 0.2") == 1
