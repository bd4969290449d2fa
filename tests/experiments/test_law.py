"""The law of what dropout gains: it is found where it holds, and fails where it does not."""

from pathlib import Path

import pytest

from experiments.law import (
    FORMS,
    Form,
    Law,
    Unseen,
    fit,
    left_out_errors,
    main,
    overall,
    page,
    reach,
    unseen,
)
from experiments.runs import load_table
from experiments.spec import load_spec
from experiments.surface import BASELINE, Point, cells, points_of

LINE, BENT, EXCESS = FORMS
TRUE = Law(
    LINE, k=0.7, p=1.0,
    saved={"standard_0.2_wd0.1": 0.3, "learned_wd0.1": 0.1},
    cost={"standard_0.2_wd0.1": 0.2, "learned_wd0.1": 0.02},
)  # fmt: skip
SIZES = {"a": 0.2, "b": 0.9, "c": 2.9}


def points(law: Law = TRUE, wrong: float = 0.0) -> list[Point]:
    """Three sizes by two amounts of text, some epochs each; `wrong` is added to one cell's gains.

    The excess grows from zero when the gap is past 0.7, so that neither of the two is the other.
    """
    found = []
    for cell, n in SIZES.items():
        for text, most in (("1", 2.5), ("2", 1.0)):
            for step in range(1, 11, 1 if text == "1" else 2):
                gap = most * step / 10
                excess = max(0.0, gap - 0.7) * (0.5 + n / 10)
                x = {"gap": gap, "excess": excess}[law.form.of]
                found += [
                    Point(
                        f"{cell}{text}", row, n, step, gap, excess,
                        law.gain(row, n, x) + wrong * (cell + text == "a2"),
                    )
                    for row in law.cost
                ]  # fmt: skip
    return found


@pytest.mark.parametrize(("form", "p"), [(LINE, 1.0), (BENT, 2.2), (EXCESS, 1.0)])
def test_the_law_that_made_the_points_is_found(form: Form, p: float) -> None:
    true = Law(form, 0.7, p, TRUE.saved, TRUE.cost)
    found = fit(form, points(true))
    assert (found.k, found.p) == pytest.approx((0.7, p), abs=2e-3)
    for row in TRUE.cost:
        assert found.saved[row] == pytest.approx(TRUE.saved[row], abs=2e-3)
        assert found.cost[row] == pytest.approx(TRUE.cost[row], abs=2e-3)
    errors = left_out_errors(form, points(true))
    assert set(errors) == set(TRUE.cost)
    assert all(abs(error) < 2e-3 for off in errors.values() for error in off.values())
    others = [overall(left_out_errors(other, points(true))) for other in FORMS if other != form]
    assert form == LINE or min(others) > 0.02  # a line is a bent one with p = 1


def test_a_cell_that_breaks_the_law_shows_where_it_is_left_out() -> None:
    off = left_out_errors(LINE, points(wrong=0.2))["learned_wd0.1"]
    assert max(off, key=lambda cell: abs(off[cell])) == "a2"
    assert off["a2"] > 0.15


def test_every_cell_weighs_as_much_as_another() -> None:
    def flat(cell: str, gain: float, n: int) -> list[Point]:
        return [Point(cell, "x", 1.0, epoch, 1e-9, 1e-9, gain) for epoch in range(n)]

    law = fit(LINE, [*flat("many", 1.0, 9), *flat("one", 0.0, 1)])
    assert law.cost["x"] == pytest.approx(0.5, abs=1e-3)


def test_an_interval_reaches_as_far_as_the_errors_at_cells_left_out() -> None:
    assert reach({"a": 0.1, "b": -0.1, "c": 0.1}) == pytest.approx(4.303 * 0.1, rel=1e-3)
    assert reach({"a": 0.1, "b": 0.1}) is None


def test_a_page_says_which_form_is_taken_and_which_predictions_failed() -> None:
    gap, n = 2.0, 3.0
    held = TRUE.gain("standard_0.2_wd0.1", n, gap)
    missed = TRUE.gain("learned_wd0.1", n, gap) + 0.5
    table = Unseen("elsewhere", n, gap, 0.9, {"standard_0.2": held, "learned": missed})
    text = page(points(), [table, Unseen("nowhere", n, gap, None, {})])
    assert "the least over all rows, *line*, is taken" in text
    there, nowhere = (part.splitlines() for part in text.split("\n### ")[1:])
    assert there[0] == "elsewhere: 3.0 M parameters, gap 2.000, excess 0.900"
    assert nowhere[0] == "nowhere: 3.0 M parameters, gap 2.000, excess unknown"
    line = [row for row in there if "| line" in row]
    assert ["inside" in row for row in line if "standard 0.2" in row] == [True]
    assert ["**outside**" in row for row in line if "learned" in row] == [True]
    assert any("| excess" in row for row in there)
    assert not any("| excess" in row for row in nowhere)
    assert (
        sum("not run" in row for row in nowhere) == 2 * 2
    )  # rows by forms that need the gap alone


@pytest.fixture
def cell(tmp_path: Path, write, make_record) -> Path:
    """Records of one cell, whose evaluations are at epochs 10, 20, 30 and 40 of 40."""
    for seed in (1, 2):
        for row, val in ((BASELINE, 4.0), ("learned_wd0.1", 3.9)):
            curve = [
                {
                    "step": step,
                    "train/loss_nats": 3.0 - step / 1000,
                    "val/loss_nats": val + 0.01 * seed + above,
                }
                for step, above in ((60, 0.2), (300, 0.0), (600, 0.1))
            ]
            changes = {"curve": curve, "steps": 1200, "parameters": 900_000}
            scale = {"config__scale": "surface_0.9m_123k", "table": "surface_0.9m_123k"}
            write(make_record(row, seed, val, 2.6, **changes, **scale))
    write(make_record("none_wd1", 1, 3.9, 2.6, config__scale="surface_0.9m_123k"))
    write(make_record("standard_0.2_wd0.1", 7, 3.9, 2.6, config__scale="surface_0.9m_123k"))
    return tmp_path / "runs"


def test_a_cells_points_are_means_over_shared_seeds_from_the_fourth_epoch(cell: Path) -> None:
    found = points_of(load_table(load_spec("surface_0.9m_123k"), cell))
    assert {point.row for point in found} == {"learned_wd0.1"}
    assert [point.epoch for point in found] == pytest.approx([10, 20])
    assert [point.gap for point in found] == pytest.approx([1.315, 1.715])
    assert [point.excess for point in found] == pytest.approx([0.0, 0.1])
    assert [point.gain for point in found] == pytest.approx([-0.1, -0.1])
    assert {point.millions for point in found} == {0.9}


def test_too_little_of_the_surface_is_an_error_in_a_line(tmp_path, capsys) -> None:
    assert cells(tmp_path) == []
    assert main(["--runs", str(tmp_path), "--out", str(tmp_path / "law.md")]) == 2
    assert capsys.readouterr().err.startswith("error: the law needs three cells")


def test_the_published_table_is_at_hand_without_runs(tmp_path) -> None:
    table = unseen("published_published", tmp_path)
    assert table is not None
    assert (table.gap, table.excess) == (pytest.approx(0.63), None)
    assert table.gains == pytest.approx(
        {"standard_0.2": -0.121, "standard_0.3": -0.05, "standard_0.4": 0.037, "learned": -0.091}
    )
    assert unseen("published_small", tmp_path) is None
