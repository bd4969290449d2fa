"""When dropout begins to gain, beside when the model without it begins to lose.

A rule that was read off the first four cells of the surface, and tried on all else that has runs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.formats import NOTHING, markdown
from experiments.runs import Table, load_tables
from experiments.surface import BASELINE, Point, points_of

COLUMNS = (
    "standard_0.1", "standard_0.2", "standard_0.3", "standard_0.4", "drop_path_0.1", "learned",
)  # fmt: skip
RULED = "standard_0.1"
# Epochs before the earliest seed's lowest val loss of none, and after the latest one's.
BEFORE, AFTER = 2.0, 4.0
# A table, none's row, and how the other rows of the setting are called, their dropout in braces.
Place = tuple[str, str, str]
SEEN: tuple[Place, ...] = tuple(
    (f"surface_{cell}", BASELINE, "{}_wd0.1")
    for cell in ("0.2m_41k", "0.2m_123k", "0.9m_41k", "2.9m_41k")
)
TRIED: tuple[Place, ...] = (
    *((f"surface_{cell}", BASELINE, "{}_wd0.1") for cell in ("0.9m_123k", "2.9m_123k")),
    *((f"surface_{m}m_400k", BASELINE, "{}_wd0.1") for m in ("0.2", "0.9", "2.9")),
    *(
        (f"surface_{m}m_{text}", "none_wd1", "{}_wd1")
        for m in ("0.2", "0.9", "2.9")
        for text in ("41k", "123k", "400k")
    ),
    *(("rivals_nano", f"none_wd{d}", f"{{}}_wd{d}") for d in ("0", "0.1", "0.3")),
    ("family_nano", "none_wd1", "{}_wd1"),
    ("rivals_nano", "none_wd3", "{}_wd3"),
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


def turning(runs: Path) -> str:
    """The section: the settings that the rule was read off, and those that it was tried on."""
    seen, tried = _lines(SEEN, runs), _lines(TRIED, runs)
    ruled = [line for line in tried if line.holds is not None]
    held = sum(line.holds is True for line in ruled)
    early = sum(line.holds is True and line.cannot_be_late for line in ruled)
    text = (
        "The epoch of none's lowest val loss, earliest and latest seed, and the epoch from which on a "
        "row's mean stays below none of the same setting, over the seeds that they share; one seed is "
        "in brackets. The rule was read off the first four cells at decay 0.1: standard 0.1 stays "
        f"below none from no more than {BEFORE:.0f} epochs before the earliest of those to no more "
        f"than {AFTER:.0f} after the latest, or never, if the run may end first. It was "
        f"written in the log before it was tried, and holds in {held} of {len(ruled)} other settings; "
        f"in {early} of those the run ends so soon after the turn that only a gain that begins before "
        "it would have told against the rule.\n\n"
        "A mild dropout that costs a little early and ends below an overfit none must cross it "
        "somewhere near that turn, as drop path 0.1 does too. The rule says no more than this, of "
        "small models at a constant learning rate: a run whose val loss still falls at its end has "
        "little to gain by standard dropout."
    )
    header = ["setting", "none is lowest at", *(c.replace("_", " ") for c in COLUMNS), "rule"]
    cells = [line.cells for line in (*seen, *tried)]
    return f"## When dropout begins to gain\n\n{text}\n\n{markdown(header, cells)}"


@dataclass(frozen=True)
class Line:
    """A setting's line of the table, and what the rule comes to there: None without the row."""

    cells: list[str]
    holds: bool | None
    cannot_be_late: bool


def _lines(places: Sequence[Place], runs: Path) -> list[Line]:
    tables = load_tables(dict.fromkeys(name for name, *_ in places), runs)
    return [
        _line(tables[name], none, others)
        for name, none, others in places
        if name in tables and tables[name].rows[none].finished
    ]


def _line(table: Table, none: str, others: str) -> Line:
    lowest = lowest_epochs(table, none)
    last = max(record.metrics.epoch for record in table.rows[none].finished)
    told, right = [], None
    for column in COLUMNS:
        points = points_of(table, [others.format(column)], none)
        if not points:
            told.append(NOTHING)
            continue
        start = gains_from(points)
        word = "never" if start is None else f"{start:.3g}"
        told.append(f"({word})" if points[0].n == 1 else word)
        if column == RULED:
            right = holds(lowest, start, last)
    name = f"{table.spec.name}, {none.replace('_', ' ').replace('wd', 'decay ')}"
    span = "–".join(dict.fromkeys(f"{epoch:.3g}" for epoch in (lowest[0], lowest[-1])))
    verdict = {None: NOTHING, True: "holds", False: "**fails**"}[right]
    return Line([name, span, *told, verdict], right, lowest[-1] + AFTER >= last)
