"""The law of what dropout gains: it is found where it holds, and fails where it does not."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import UserError
from experiments import law as command
from experiments.forms import FORMS, Form, Law
from experiments.law import foretold, main, page
from experiments.left_out import (
    errors_at_the_end,
    errors_near,
    fitted_without,
    overall,
    reach,
    taken,
)
from experiments.predictions import KINDS, Elsewhere, as_published, keep, of_runs
from experiments.runs import load_table
from experiments.spec import RESULTS, load_spec
from experiments.surface import (
    BASELINE,
    Point,
    Setting,
    cells,
    points_of,
    size,
)

LINE, BENT, EXCESS, COUPLED, SLOWED = FORMS
TRUE = Law(
    LINE, k=0.7, p=1.0,
    saved={"standard_0.2_wd0.1": 0.3, "learned_wd0.1": 0.1},
    cost={"standard_0.2_wd0.1": 0.2, "learned_wd0.1": 0.02},
)  # fmt: skip
SIZES = (0.2, 0.9, 2.9)
WRONG = "surface_0.2m_123k"


def setting(
    millions: float, gap: float, excess: float | None = None, tokens: float = 0.1
) -> Setting:
    return Setting(millions, per_token=millions / tokens, gap=gap, excess=excess)


def points(law: Law = TRUE, wrong: float = 0.0) -> list[Point]:
    """Three sizes by two amounts of text, some epochs each; `wrong` is added to one cell's gains.

    The excess grows from zero when the gap is past 0.7, so that neither of the two is the other; none's
    own loss turns sooner where there is more to overfit with.
    """
    found = []
    for n in SIZES:
        for text, tokens, most in (("41k", 0.041, 2.5), ("123k", 0.123, 1.0)):
            cell = f"surface_{n}m_{text}"
            for step in range(1, 11, 1 if text == "41k" else 2):
                gap = most * step / 10
                course = tuple(
                    (float(epoch), 4 + 3 / epoch + most * n**0.3 * (epoch / 10) ** 2)
                    for epoch in range(1, step + 1)
                )
                excess = max(0.0, gap - 0.7) * (0.5 + n / 10)
                at = replace(setting(n, gap, excess, tokens), course=course)
                for row in law.cost:
                    gain = law.gain(row, at)
                    assert gain is not None
                    found.append(Point(cell, row, 2, step, at, gain + wrong * (cell == WRONG)))
    return found


@pytest.mark.parametrize(
    ("form", "p"), [(LINE, 1.0), (BENT, 2.2), (EXCESS, 1.0), (COUPLED, 2.2), (SLOWED, 0.4)]
)
def test_the_law_that_made_the_points_is_found(form: Form, p: float) -> None:
    true = Law(form, 0.7, p, TRUE.saved, TRUE.cost)
    found = form.fit(points(true))
    assert (found.k, found.p) == pytest.approx((0.7, p), abs=2e-3)
    for row in TRUE.cost:
        assert found.saved[row] == pytest.approx(TRUE.saved[row], abs=2e-3)
        assert found.cost[row] == pytest.approx(TRUE.cost[row], abs=2e-3)
    errors = {
        one.name: errors_at_the_end(fitted_without(one, points(true)), points(true))
        for one in FORMS
    }
    assert set(errors[form.name]) == set(TRUE.cost)
    assert overall(errors[form.name]) < 2e-3
    assert taken(errors) == form.name  # and of a line and a bent one with p = 1, the line


def test_a_slower_clock_is_none_at_an_earlier_epoch() -> None:
    law = Law(SLOWED, k=1.0, p=0.5, saved={"x": 0.5}, cost={"x": 0.02})
    at = replace(setting(2.0, 1.0, tokens=0.25), course=((1.0, 5.0), (2.0, 4.0), (3.0, 4.6)))
    assert at.tokens == pytest.approx(0.25)
    # s = 1 + 0.5 x 2 x 0.5 = 1.5: none's loss at epoch 2 instead of 3
    assert law.gain("x", at) == pytest.approx(4.0 - 4.6 + 0.02)
    assert law.gain("y", at) is None
    assert law.gain("x", setting(2.0, 1.0)) is None  # none's own loss is not known


def test_a_cost_that_grows_with_size_is_found_too() -> None:
    growing = points(replace(TRUE, k=-0.5))
    assert replace(LINE, smallest_k=-1.0).fit(growing).k == pytest.approx(-0.5, abs=1e-3)
    assert LINE.fit(growing).k == pytest.approx(0.0, abs=1e-3)  # which was written to fall


def test_a_cell_that_breaks_the_law_shows_where_it_is_left_out() -> None:
    found = points(wrong=0.2)
    off = errors_at_the_end(fitted_without(LINE, found), found)["learned_wd0.1"]
    assert max(off, key=lambda cell: abs(off[cell])) == WRONG
    assert off[WRONG] > 0.15
    of_its_size = errors_at_the_end(fitted_without(LINE, found, size), found)["learned_wd0.1"]
    assert of_its_size.keys() == off.keys()
    assert of_its_size[WRONG] != off[WRONG]


def test_an_error_is_taken_where_a_cell_is_as_far_gone() -> None:
    """And of a cell that never gets there, at its nearest epoch, the last."""
    found = [replace(p, gain=p.gain + 0.1 * (p.at.gap > 1.2)) for p in points()]
    laws = dict.fromkeys({p.cell for p in found}, TRUE)
    at_the_end = errors_near(laws, found, setting(9, 2.5))["learned_wd0.1"]
    before = errors_near(laws, found, setting(9, 1.0))["learned_wd0.1"]
    assert at_the_end == pytest.approx({cell: 0.1 * cell.endswith("41k") for cell in laws})
    assert before == pytest.approx(dict.fromkeys(laws, 0.0))  # those of 123k end at 0.9


def test_cells_of_one_size_tell_nothing_of_sizes() -> None:
    found = [p for p in points() if p.at.millions < 1 and p.cell != "surface_0.9m_123k"]
    with pytest.raises(UserError, match=r"without surface_0\.9m_41k there are none"):
        fitted_without(LINE, found)


@pytest.mark.parametrize("form", [LINE, SLOWED], ids=lambda form: form.name)
def test_every_cell_weighs_as_much_as_another(form: Form) -> None:
    at = replace(setting(1.0, 1e-9), course=((0.0, 4.0), (9.0, 4.0)))

    def flat(cell: str, gain: float, n: int) -> list[Point]:
        return [Point(cell, "x", 2, epoch, at, gain) for epoch in range(n)]

    law = form.fit([*flat("many", 1.0, 9), *flat("one", 0.0, 1)])
    assert law.cost["x"] == pytest.approx(0.5, abs=1e-3)


def test_nothing_is_saved_before_anything_overfits() -> None:
    bent = Law(BENT, 0.0, 1.5, {"x": 0.3}, {"x": 0.2})
    assert bent.gain("x", setting(1.0, -0.4)) == bent.gain("x", setting(1.0, 0.0)) == 0.2


def test_an_interval_reaches_as_far_as_the_errors_at_cells_left_out() -> None:
    assert reach([0.1, -0.1, 0.1]) == pytest.approx(3.182 * 0.1, rel=1e-3)  # three, about zero
    assert reach([0.1, 0.1]) is None


def parts_of(text: str) -> dict[str, list[str]]:
    return {part.split(":")[0]: part.splitlines() for part in text.split("\n### ")[1:]}


def test_a_page_says_which_form_is_taken_and_what_was_predicted() -> None:
    at = replace(setting(3.0, 2.0, 0.9), course=((1.0, 4.0), (10.0, 4.9)))
    kinds = ["standard_0.2", "learned"]
    small = Elsewhere("published_small", at, 2, kinds, {"learned": 0.6}, {"learned": 2})
    kept = {
        "cells": ["a", "b"], "seeds": 2, "taken": "excess",
        "predictions": {
            form.name: {
                "standard_0.2": {"gain": -0.2, "half": 0.1}, "learned": {"gain": 0.5, "half": half}
            }
            for form, half in ((LINE, 0.05), (BENT, 0.05), (EXCESS, 0.7), (COUPLED, 0.05))
        },
    }  # fmt: skip
    text = page(points(), "", [(small, kept)])
    assert "least error at cells left out: *line*" in text
    assert "cost falls with size by k = 0.70" in text and "better than 0.00 nats" in text
    there = parts_of(text)["published_small"]
    assert there[0].endswith("3.0 M parameters, gap 2.000, excess 0.900")
    learned = {row.split("|")[2].strip(): row for row in there if row.startswith("| learned")}
    assert "**outside**" in learned["line"]
    assert "inside; so is zero" in learned["excess"]
    assert "side" not in learned["bent"]  # neither the first nor the one that was taken
    assert sum("not run" in row for row in there) == len(FORMS)
    assert "side" not in learned["slowed"]  # of which nothing was kept
    assert any("*slowed* came after they were read" in row for row in there)
    live = parts_of(page(points(), "", [(small, None)]))["published_small"]
    assert not any("inside" in row or "outside" in row for row in live)


def test_a_prediction_is_made_once_and_before_its_rows(tmp_path) -> None:
    path = tmp_path / "predictions" / "published_small.json"
    none = Elsewhere("published_small", setting(3.0, 2.0, 0.9), 3, ["learned"], {}, {})
    with pytest.raises(UserError, match=r"has records of learned: .* from none alone"):
        keep(points(), replace(none, others=["learned"]), path)
    keep(points(), none, path)
    kept = json.loads(path.read_text())
    true = TRUE.gain("learned_wd0.1", none.at)
    assert kept["predictions"]["line"]["learned"]["gain"] == pytest.approx(true, abs=1e-3)
    assert (kept["taken"], kept["seeds"], len(kept["cells"])) == ("line", 3, 6)
    with pytest.raises(UserError, match="made once"):
        keep(points(), none, path)


@pytest.fixture
def cell(tmp_path: Path, write, make_record) -> Callable[..., Path]:
    """Write records whose evaluations are at epochs 2, 10 and 20 of 40."""

    def make(name: str, row: str, seed: int, val: float, scale: str, **changes: object) -> None:
        curve = [
            {"step": step, "train/loss_nats": 3.0 - step / 1000, "val/loss_nats": val + above}
            for step, above in ((60, 0.2), (300, 0.0), (600, 0.1))
        ]
        told = {"curve": curve, "steps": 1200, "parameters": 900_000} | changes
        write(make_record(row, seed, val, 2.6, **told, config__scale=scale, table=name))

    return make


def test_a_cells_points_are_means_over_shared_seeds_from_the_fourth_epoch(tmp_path, cell) -> None:
    name = "surface_0.9m_123k"
    for seed in (1, 2):
        for row, val in ((BASELINE, 4.0), ("learned_wd0.1", 3.9)):
            cell(name, row, seed, val + 0.01 * seed, name)
    cell(name, BASELINE, 3, 9.0, name)  # not shared
    cell(name, "none_wd1", 1, 3.9, name)
    cell(name, "standard_0.2_wd0.1", 7, 3.9, name)
    table = load_table(load_spec(name), tmp_path / "runs")
    found = points_of(table)
    assert {(point.row, point.n) for point in found} == {("learned_wd0.1", 2)}
    assert [point.epoch for point in found] == pytest.approx([10, 20])
    assert [point.at.gap for point in found] == pytest.approx([1.315, 1.715])
    assert [point.at.excess for point in found] == pytest.approx([0.0, 0.1])
    assert [point.gain for point in found] == pytest.approx([-0.1, -0.1])
    assert {point.at.millions for point in found} == {0.9}
    # None's own loss so far, of the shared seeds, with what was before the fourth epoch.
    assert [len(point.at.course) for point in found] == [2, 3]
    assert [epoch for epoch, _ in found[1].at.course] == pytest.approx([2, 10, 20])
    assert [val for _, val in found[1].at.course] == pytest.approx([4.215, 4.015, 4.115])
    alone = points_of(table, [BASELINE])
    assert [point.gain for point in alone] == [0, 0]
    assert {point.n for point in alone} == {3}


def test_a_table_is_predicted_from_none_alone(tmp_path, cell) -> None:
    assert of_runs("published_small", tmp_path) is None
    cell("published_small", "none", 1, 4.0, "small")
    (tmp_path / "runs").rename(tmp_path / "published_small")
    alone = of_runs("published_small", tmp_path)
    assert alone is not None and alone.gains == {}
    assert (alone.seeds, alone.at.gap, alone.at.excess) == pytest.approx((1, 1.7, 0.1))


def test_a_cell_is_predicted_by_its_rows_at_the_laws_decay(tmp_path, cell) -> None:
    name = "surface_0.2m_400k"
    for row, val in ((BASELINE, 4.0), ("none_wd1", 3.0)):
        cell(name, row, 1, val, name)
    (tmp_path / "runs").rename(tmp_path / name)
    alone = of_runs(name, tmp_path)
    assert alone is not None and alone.gains == {}
    assert alone.kinds == [
        "standard_0.1",
        "standard_0.2",
        "standard_0.3",
        "standard_0.4",
        "learned",
    ]
    cell(name, "standard_0.1_wd0.1", 1, 3.9, name)
    shutil.move(tmp_path / "runs" / "standard_0.1_wd0.1", tmp_path / name)
    after = of_runs(name, tmp_path)
    assert after is not None
    assert after.gains == pytest.approx({"standard_0.1": -0.1})


@pytest.fixture
def four_cells(tmp_path: Path) -> Path:
    """The committed records of four cells, and none's of a fifth."""
    runs = tmp_path / "results" / "runs"
    for name in ("surface_0.2m_41k", "surface_0.2m_123k", "surface_0.9m_41k", "surface_2.9m_41k"):
        shutil.copytree(RESULTS / "runs" / name, runs / name)
    fifth = f"surface_0.9m_123k/{BASELINE}"
    shutil.copytree(RESULTS / "runs" / fifth, runs / fifth)
    return runs


def options(runs: Path) -> list[str]:
    """The command's, all of them beside the records."""
    root = runs.parent
    return [f"--runs={runs}", f"--out={root / 'law.md'}", f"--figure={root / 'surface.svg'}"]


def test_a_cell_is_foretold_once_and_judged_when_it_has_run(four_cells, capsys) -> None:
    name, root = "surface_0.9m_123k", four_cells.parent
    plain = options(four_cells)
    assert main([*plain, f"--predict={name}"]) == 0
    path = root / "predictions" / f"{name}.json"
    kept = json.loads(path.read_text())
    assert (len(kept["cells"]), kept["seeds"]) == (4, 3)
    assert list(kept["predictions"]["slowed"]) == list(KINDS)
    there = parts_of((root / "law.md").read_text())[name]
    assert sum("not run" in line for line in there) == len(FORMS) * len(KINDS)
    assert main([*plain, f"--predict={name}"]) == 2
    assert "made once" in capsys.readouterr().err

    shutil.copytree(RESULTS / "runs" / name, four_cells / name, dirs_exist_ok=True)
    assert main(plain) == 0
    there = parts_of((root / "law.md").read_text())[name]
    judged = [line for line in there if "| line " in line or f"| {kept['taken']} " in line]
    assert judged and all("side" in line for line in judged)
    path.unlink()
    assert foretold(four_cells, path.parent) == []  # a cell of which nothing was kept


def test_a_row_of_another_seed_is_known_too(four_cells, capsys) -> None:
    row = "surface_0.9m_123k/standard_0.2_wd0.1"
    shutil.copytree(RESULTS / "runs" / row, four_cells / row)
    for seed in (1, 2):
        (four_cells / row / f"seed{seed}.json").unlink()
    (four_cells / "surface_0.9m_123k" / BASELINE / "seed3.json").unlink()
    assert main([*options(four_cells), "--predict=surface_0.9m_123k"]) == 2
    assert "has records of standard 0.2" in capsys.readouterr().err
    assert not (four_cells.parent / "surface.svg").exists()


def test_none_must_have_run_before_its_table_is_predicted(four_cells, capsys) -> None:
    assert main([*options(four_cells), "--predict=surface_0.2m_400k"]) == 2
    assert "surface_0.2m_400k has no run of none at decay 0.1" in capsys.readouterr().err


def test_the_committed_page_is_made_again(tmp_path: Path) -> None:
    out, figure = tmp_path / "law.md", tmp_path / "surface.svg"
    assert main(["--out", str(out), "--figure", str(figure)]) == 0
    assert out.read_text() == command.PAGE.read_text()
    assert figure.read_text().startswith("<?xml")


def test_too_little_of_the_surface_is_an_error_in_a_line(tmp_path, capsys) -> None:
    assert cells(tmp_path) == []
    assert main(["--runs", str(tmp_path), "--out", str(tmp_path / "law.md")]) == 2
    assert capsys.readouterr().err.startswith("error: the law needs three cells")


def test_the_published_figures_are_at_hand_without_runs() -> None:
    table = as_published()
    assert (table.at.gap, table.at.excess) == (pytest.approx(0.63), None)
    assert table.gains == pytest.approx(
        {"standard_0.2": -0.121, "standard_0.3": -0.05, "standard_0.4": 0.037, "learned": -0.091}
    )
