import matplotlib as mpl
import pytest
from matplotlib import pyplot as plt

from experiments.along import along
from experiments.kinds import best_of_kinds, kinds_figure
from experiments.runs import load_table
from experiments.spec import load_spec

mpl.use("agg")

KINDS = """
title: Kinds
command: python train.py table=kinds
along: dropout.p
rows:
  - {name: none, label: "none, decay 1, no rate", family: none}
  - {name: "token_{p}", label: "token, decay 1, rate {p}", family: other, each: {p: [0.1, 0.2]}}
  - {name: "head_{p}", label: "head, decay 1, rate {p}", family: other, each: {p: [0.1, 0.2]}}
kinds:
  - {name: none, of: [none], reference: true}
  - {name: token, of: [token_*]}
  - {name: head, of: [head_*]}
"""
VAL = {"none": 4.0, "token_0.1": 3.9, "token_0.2": 3.8, "head_0.1": 4.1, "head_0.2": 4.2}


@pytest.fixture
def table(tmp_path, write, make_record):
    """Seed 1 of every row, seeds 2 and 3 of none and of each kind's best; token's is 0.2 on val."""
    for row, val in VAL.items():
        for seed in (1, 2, 3) if row in ("none", "token_0.2", "head_0.1") else (1,):
            changes = {"table": "kinds", "metrics__val/ema_loss_nats": 8 - val}
            changes["test__final"] = {"test/loss_nats": 8 - val}
            rate = float(row.partition("_")[2] or 0)
            dropout = {"name": row, "p": rate} if rate else {"name": row}
            noise = 0.01 * seed if row == "none" else 0.002 * seed
            write(make_record(row, seed, val + noise, 2.6, config__dropout=dropout, **changes))
    (tmp_path / "kinds.yaml").write_text(KINDS)
    yield load_table(load_spec(str(tmp_path / "kinds.yaml")), tmp_path / "runs")
    plt.close("all")


def cells(page: str, title: str) -> dict[str, list[str]]:
    """A part's table: the first cell of each line to the others."""
    part = page.partition(f"### {title}\n\n")[2].partition("\n\n")[0]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in part.splitlines()[2:]]
    return {line[0]: line[1:] for line in lines}


def test_each_kind_is_its_best_row_beside_the_reference(table):
    final = cells(best_of_kinds(table), "Final val loss")
    assert [final[kind][0] for kind in final] == [
        "none, decay 1, no rate", "token, decay 1, rate 0.2", "head, decay 1, rate 0.1",
    ]  # fmt: skip
    assert final["none"][3:] == ["–", ""]
    assert final["token"][1:3] == ["3", "3.804"]
    assert final["token"][3].startswith("−0.216 [") and final["token"][4] == "lower"
    assert final["head"][3].startswith("+0.084 [") and final["head"][4] == "higher"


def test_averaged_weights_choose_for_themselves_and_test_does_not_choose(table):
    page = best_of_kinds(table)
    averaged = cells(page, "Val loss of the averaged weights")
    assert averaged["token"] == [
        "token, decay 1, rate 0.1",
        "1",
        "4.100",
        "+0.100",
        "too few seeds",
    ]
    assert cells(page, "Final test loss")["token"][0] == "token, decay 1, rate 0.2"


def test_a_table_without_kinds_has_no_such_part(small_case, small_runs):
    other = load_table(load_spec(small_case), small_runs)
    assert best_of_kinds(other) == ""
    assert kinds_figure(other) is None


def test_the_figure_has_a_line_for_every_kind_but_the_reference(table):
    last, averaged = kinds_figure(table).axes
    assert [label.get_text() for label in last.get_yticklabels()] == [
        "token, decay 1, rate 0.2", "head, decay 1, rate 0.1",
    ]  # fmt: skip
    marks = [line for line in last.lines if line.get_marker() in "soD^"]
    assert [mark.get_xdata()[0] for mark in marks] == pytest.approx([-0.216, 0.084])
    assert not any(mark.get_markerfacecolor() == "white" for mark in marks)
    assert "averaged" in averaged.get_title()


def test_many_kinds_have_a_panel_each_with_the_reference_level(table, monkeypatch):
    monkeypatch.setattr("experiments.along.MOST_LINES", 2)
    figure = along(table)
    assert [axes.get_title() for axes in figure.axes if axes.get_visible()] == ["token", "head"]
    token = figure.axes[0]
    levels = {round(line.get_ydata()[0], 3) for line in token.lines if len(line.get_xdata()) == 2}
    assert {4.02, 4.0} <= levels  # none's last and averaged weights
    curve = next(line for line in token.lines if line.get_marker() == "s")
    assert list(curve.get_ydata()) == pytest.approx([3.902, 3.804])
