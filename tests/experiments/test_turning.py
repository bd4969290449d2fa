"""When dropout begins to gain: where it stays below none, and what a rule says of that."""

from pathlib import Path

import pytest

from experiments.formats import NOTHING
from experiments.runs import load_table
from experiments.spec import RESULTS, load_spec
from experiments.surface import Point, Setting
from experiments.turning import COLUMNS, SEEN, gains_from, holds, lowest_epochs, turning


def course(*gains: float) -> list[Point]:
    at = Setting(millions=1, per_token=10, gap=1, excess=0)
    return [Point("c", "r", 2, 2 * i, at, gain) for i, gain in enumerate(gains, 1)]


def test_a_row_begins_to_gain_where_it_stays_below_none() -> None:
    assert gains_from(course(0.1, -0.1, 0.1, -0.1, -0.2)) == 8
    assert gains_from(course(-0.1, -0.1)) == 2
    assert gains_from(course(-0.1, 0.0)) is None


@pytest.mark.parametrize(
    ("start", "right"), [(7.9, False), (8, True), (16, True), (16.1, False), (None, False)]
)
def test_the_rule_has_two_ends(start: float | None, right: bool) -> None:
    assert holds([10, 11, 12], start, last=25) == right


def test_never_is_right_where_the_run_may_end_before() -> None:
    assert holds([20, 22], None, last=25)
    assert not holds([20, 20.5], None, last=25)


def test_the_lowest_is_each_seeds_own() -> None:
    """Against a reading of the committed records by hand."""
    table = load_table(load_spec("published_nano"), RESULTS / "runs" / "published_nano")
    by_hand = []
    for record in table.rows["none"].finished:
        lowest = min(record.content["curve"], key=lambda point: point["val/loss_nats"])
        by_hand.append(25 * lowest["step"] / 1500)
    assert lowest_epochs(table, "none") == pytest.approx(sorted(by_hand), rel=0.01)


def test_the_section_of_the_committed_tables_and_of_none(tmp_path: Path) -> None:
    text = turning(RESULTS / "runs")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    named = {row[0]: row for row in rows if len(row) == len(COLUMNS) + 3}
    published = named["published_nano, none"]
    assert (
        published[2 + COLUMNS.index("standard_0.1")] == published[-1] == NOTHING
    )  # has no such row
    assert named["rivals_nano, none decay 3"][2] == "(never)"  # one seed, lowest at its end
    assert named["surface_0.2m_41k, none decay 1"][-1] == "**fails**"  # it begins six epochs sooner
    ruled = [row for name, row in named.items() if row[-1] in ("holds", "**fails**")]
    tried = [row[-1] for row in ruled if row[0] not in {f"{n}, none decay 0.1" for n, *_ in SEEN}]
    assert f"holds in {tried.count('holds')} of {len(tried)} other settings" in text
    assert "holds in 0 of 0 other settings" in turning(tmp_path)
