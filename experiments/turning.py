"""When dropout begins to gain, beside when the model without it begins to lose.

A rule that was read off the first four cells of the surface and then tried on the tables of nano.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from experiments.formats import NOTHING, markdown
from experiments.runs import Table, load_table
from experiments.spec import load_spec
from experiments.surface import BASELINE, Point, points_of

COLUMNS = ("standard_0.1", "standard_0.2", "standard_0.3", "standard_0.4", "learned")
RULED = COLUMNS[0]
# Epochs before the earliest seed's lowest val loss of none, and after the latest one's.
BEFORE, AFTER = 2.0, 4.0
# Of other tables, none's row and what others of its setting are called, their dropout in braces.
ELSEWHERE = (
    *(("rivals_nano", f"none_wd{d}", f"{{}}_wd{d}") for d in ("0", "0.1", "0.3", "1", "3")),
    *(("rivals_nano", f"none_epochs_wd{d}", f"{{}}_epochs_wd{d}") for d in ("0.3", "1")),
    *(("modern_nano", f"modern_none_wd{d}", f"modern_{{}}_wd{d}") for d in ("0.1", "1")),
    ("published_nano", "none", "{}"),
)


def lowest_epochs(table: Table, baseline: str = BASELINE) -> list[float]:
    """The epoch of none's lowest val loss on the way, of each seed, from the earliest."""
    epochs = []
    for record in table.rows[baseline].finished:
        lowest = min(record.curve, key=lambda point: point.val)
        epochs.append(record.metrics.epoch * lowest.step / record.steps)
    return sorted(epochs)


def gains_from(points: Iterable[Point]) -> float | None:
    """The epoch from which on a row's points stay below zero; None where the last one does not."""
    start = None
    for point in sorted(points, key=lambda point: point.epoch):
        start = None if point.gain >= 0 else start or point.epoch
    return start


def holds(lowest: Sequence[float], start: float | None, last: float) -> bool:
    """Is the gain's beginning where the rule has it? Never is right where the run may end before."""
    if start is None:
        return lowest[-1] + AFTER >= last
    return lowest[0] - BEFORE <= start <= lowest[-1] + AFTER


def turning(cells: Sequence[Table], runs: Path) -> str:
    """The section: the surface's cells, and the other tables that have records."""
    names = [
        name for name in dict.fromkeys(name for name, *_ in ELSEWHERE) if (runs / name).is_dir()
    ]
    tables = {name: load_table(load_spec(name), runs / name) for name in names}
    seen = [_line(table, BASELINE, "{}_wd0.1") for table in cells]
    tried = [
        _line(tables[name], baseline, names)
        for name, baseline, names in ELSEWHERE
        if name in tables and tables[name].rows[baseline].finished
    ]
    verdicts = [line[-1] for line in tried if line[-1] != NOTHING]
    held = verdicts.count("holds")
    by_never = sum(line[-1] == "holds" and "never" in line[2] for line in tried)
    text = (
        "The epoch of none's lowest val loss, earliest and latest seed, and the epoch from which on a "
        "row stays below none of the same setting, over the seeds that they share; one seed is in "
        f"brackets. The rule was read off the first four cells: standard 0.1 stays below none from no "
        f"more than {BEFORE:.0f} epochs before the earliest of those to no more than {AFTER:.0f} after "
        "the latest, or never where the run may end before that. It was written in the log before the "
        f"other tables were looked at for it, and holds in {held} of the {len(verdicts)} settings of "
        f"theirs, in {by_never} of them by never."
    )
    header = ["setting", "none is lowest at", *(c.replace("_", " ") for c in COLUMNS), "rule"]
    return f"## When dropout begins to gain\n\n{text}\n\n{markdown(header, [*seen, *tried])}"


def _line(table: Table, baseline: str, names: str) -> list[str]:
    lowest = lowest_epochs(table, baseline)
    last = max(record.metrics.epoch for record in table.rows[baseline].finished)
    told, verdict = [], NOTHING
    for column in COLUMNS:
        points = points_of(table, [names.format(column)], baseline)
        if not points:
            told.append(NOTHING)
            continue
        start = gains_from(points)
        word = "never" if start is None else f"{start:.0f}"
        told.append(f"({word})" if points[0].n == 1 else word)
        if column == RULED:
            verdict = "holds" if holds(lowest, start, last) else "**fails**"
    ends = [f"{epoch:.0f}" for epoch in (lowest[0], lowest[-1])]
    setting = table.spec.name.removeprefix("surface_")
    if baseline != BASELINE or table.spec.name == "rivals_nano":
        setting += ", " + baseline.replace("_", " ").replace("wd", "decay ")
    return [setting, "–".join(dict.fromkeys(ends)), *told, verdict]
