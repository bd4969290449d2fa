"""The law of what dropout gains: it is found where it holds, and fails where it does not."""

from pathlib import Path

import pytest

from experiments.law import (
    BASELINE,
    Law,
    Point,
    Unseen,
    fit,
    left_out_errors,
    main,
    page,
    points_of,
    reach,
    surface,
    unseen,
)
from experiments.runs import load_table
from experiments.spec import load_spec

TRUE = Law(
    0.7,
    saved={"standard_0.2_wd0.1": 0.3, "learned_wd0.1": 0.1},
    cost={"standard_0.2_wd0.1": 0.2, "learned_wd0.1": 0.02},
)
SIZES = {"a": 0.2, "b": 0.9, "c": 2.9}


def points(law: Law = TRUE, wrong: float = 0.0) -> list[Point]:
    """Three sizes by two amounts of text, some epochs each; `wrong` is added to one cell's gains."""
    return [
        Point(f"{cell}{text}", row, n, gap, law.gain(row, n, gap) + wrong * (cell + text == "a2"))
        for cell, n in SIZES.items()
        for text, most in (("1", 2.5), ("2", 1.0))
        for row in law.cost
        for gap in [most * step / 10 for step in range(1, 11)][:: 1 if text == "1" else 2]
    ]


def test_the_law_that_made_the_points_is_found() -> None:
    found = fit(points())
    assert found.k == pytest.approx(0.7, abs=1e-3)
    for row in TRUE.cost:
        assert found.saved[row] == pytest.approx(TRUE.saved[row], abs=1e-3)
        assert found.cost[row] == pytest.approx(TRUE.cost[row], abs=1e-3)
    errors = left_out_errors(points())
    assert set(errors) == set(TRUE.cost)
    assert all(abs(error) < 1e-3 for off in errors.values() for error in off.values())


def test_a_cell_that_breaks_the_law_shows_where_it_is_left_out() -> None:
    off = left_out_errors(points(wrong=0.2))["learned_wd0.1"]
    assert max(off, key=lambda cell: abs(off[cell])) == "a2"
    assert off["a2"] > 0.15


def test_every_cell_weighs_as_much_as_another() -> None:
    def flat(cell: str, gain: float, n: int) -> list[Point]:
        return [Point(cell, "x", 1.0, 1e-9, gain) for _ in range(n)]

    law = fit([*flat("many", 1.0, 9), *flat("one", 0.0, 1)])
    assert law.cost["x"] == pytest.approx(0.5, abs=1e-3)


def test_an_interval_reaches_as_far_as_the_errors_at_cells_left_out() -> None:
    assert reach({"a": 0.1, "b": -0.1, "c": 0.1}) == pytest.approx(4.303 * 0.1, rel=1e-3)
    assert reach({"a": 0.1, "b": 0.1}) is None


def test_a_page_says_which_predictions_failed() -> None:
    gap, n = 2.0, 3.0
    held = TRUE.gain("standard_0.2_wd0.1", n, gap)
    missed = TRUE.gain("learned_wd0.1", n, gap) + 0.5
    table = Unseen("elsewhere", n, gap, {"standard_0.2": held, "learned": missed})
    text = page(points(), [table, Unseen("nowhere", n, gap, {})])
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line[:1] == "|"}
    assert "k = 0.70" in text
    there = text.partition("### elsewhere: 3.0 M parameters, gap 2.000")[2].partition("###")[0]
    assert [line.count("inside") for line in there.splitlines() if "standard_0.2" in line] == [1]
    assert [line.count("**outside**") for line in there.splitlines() if "learned" in line] == [1]
    assert lines["learned"].count("not run") == 1  # of the last table


@pytest.fixture
def cell(tmp_path: Path, write, make_record) -> Path:
    """Records of one cell, whose evaluations are at epochs 10, 20, 30 and 40 of 40."""
    for seed in (1, 2):
        for row, val in ((BASELINE, 4.0), ("learned_wd0.1", 3.9)):
            curve = [
                {
                    "step": step,
                    "train/loss_nats": 3.0 - step / 1000,
                    "val/loss_nats": val + 0.01 * seed,
                }
                for step in (60, 300, 600)
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
    assert [point.gap for point in found] == pytest.approx([1.315, 1.615])
    assert [point.gain for point in found] == pytest.approx([-0.1, -0.1])
    assert {point.millions for point in found} == {0.9}


def test_too_little_of_the_surface_is_an_error_in_a_line(tmp_path, capsys) -> None:
    assert surface(tmp_path) == []
    assert main(["--runs", str(tmp_path), "--out", str(tmp_path / "law.md")]) == 2
    assert capsys.readouterr().err.startswith("error: the law needs three cells")


def test_the_published_table_is_at_hand_without_runs(tmp_path) -> None:
    table = unseen("published_published", tmp_path)
    assert table is not None
    assert table.gap == pytest.approx(0.63)
    assert table.gains == pytest.approx(
        {"standard_0.2": -0.121, "standard_0.3": -0.05, "standard_0.4": 0.037, "learned": -0.091}
    )
    assert unseen("published_small", tmp_path) is None
