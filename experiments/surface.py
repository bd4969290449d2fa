"""The surface: what dropout gains over none at each size, amount of text and epoch.

A cell is one size on one amount of text, a table of its own. `experiments.law` fits their points.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from experiments.forest import GREY
from experiments.looks import looks
from experiments.records import Finished
from experiments.runs import Table, load_tables
from experiments.spec import table_names

BASELINE = "none_wd0.1"
FIRST_EPOCH = 4  # before it nothing overfits, and the warm-up is most of the run
# Dropout at the published decay. The surface's rows at another one are for its tables.
ROWS = (
    "standard_0.1_wd0.1", "standard_0.2_wd0.1", "standard_0.3_wd0.1", "standard_0.4_wd0.1",
    "learned_wd0.1",
)  # fmt: skip
DASHES = dict(zip(ROWS, (":", "-", "--", "-.", "-"), strict=True))


@dataclass(frozen=True)
class Setting:
    """Where a gain was measured: the size, and how far the model overfits there without dropout.

    `millions` of parameters, `per_token` parameters for each unique token, `gap` none's val minus its
    train loss, `excess` its val loss minus its lowest so far, None where that is not known; `course`
    none's own (epoch, val loss) up to there, where that is.
    """

    millions: float
    per_token: float
    gap: float
    excess: float | None
    course: tuple[tuple[float, float], ...] = ()

    @property
    def tokens(self) -> float:
        """Millions of unique tokens."""
        return self.millions / self.per_token


@dataclass(frozen=True)
class Point:
    """What a row gains over none at one epoch of a cell, in the mean over `n` shared seeds."""

    cell: str
    row: str
    n: int
    epoch: float
    at: Setting
    gain: float


def cells(runs: Path) -> list[Table]:
    """The cells that have runs of none of FIRST_EPOCH epochs or more, in the order of `cell_names`."""
    tables = load_tables(cell_names(), runs)
    return [table for table in tables.values() if points_of(table, [BASELINE])]


def cell_names() -> list[str]:
    """The surface's tables, the smallest model first, then the shortest text."""
    names = [name for name in table_names() if name.startswith("surface_")]
    return sorted(names, key=lambda name: (size(name), tokens(name)))


def size(cell: str) -> float:
    """Millions of parameters, as the name has them: surface_0.9m_123k."""
    return float(cell.split("_")[1].removesuffix("m"))


def tokens(cell: str) -> float:
    """Thousands of unique tokens, as the name has them: surface_0.9m_123k."""
    return float(cell.split("_")[2].removesuffix("k"))


def points_of(table: Table, rows: Iterable[str] = ROWS, baseline: str = BASELINE) -> list[Point]:
    """Each row's points, an evaluation each from FIRST_EPOCH on, over the seeds it shares with none.

    The baseline itself may be one of the rows: it gains nothing. All is read off the curves, whose
    evaluations are of fewer windows than the closing one.
    """
    without = {record.seed: record for record in table.rows[baseline].finished}
    found = []
    for name in rows:
        own = table.rows[name].finished if name in table.rows else []
        shared = [(record, without[record.seed]) for record in own if record.seed in without]
        course = _mean_course([none for _, none in shared])
        by_step = defaultdict[int, list[tuple[float, ...]]](list)
        for record, none in shared:
            for step, values in _course(record, none).items():
                by_step[step].append(values)
        for one in by_step.values():
            if len(one) == len(shared):
                epoch, gap, excess, gain = (float(mean) for mean in np.mean(one, axis=0))
                n_parameters = shared[0][1].parameters
                per_token = n_parameters / shared[0][1].data.train_tokens
                so_far = tuple(point for point in course if point[0] <= epoch + 1e-9)
                at = Setting(n_parameters / 1e6, per_token, gap, excess, so_far)
                found.append(Point(table.spec.name, name, len(shared), epoch, at, gain))
    return found


def _mean_course(runs: Sequence[Finished]) -> list[tuple[float, float]]:
    """Epoch and val loss of the evaluations that all runs have, in the mean."""
    by_epoch = defaultdict[float, list[float]](list)
    for run in runs:
        for point in run.curve:
            by_epoch[run.metrics.epoch * point.step / run.steps].append(point.val)
    return sorted(
        (epoch, float(np.mean(vals))) for epoch, vals in by_epoch.items() if len(vals) == len(runs)
    )


def _course(record: Finished, none: Finished) -> dict[int, tuple[float, ...]]:
    """By step: the epoch, none's gap and excess, and the record's val loss minus none's."""
    own = {point.step: point for point in record.curve}
    course: dict[int, tuple[float, ...]] = {}
    lowest = np.inf
    for point in sorted(none.curve, key=lambda point: point.step):
        lowest = min(lowest, point.val)
        epoch = none.metrics.epoch * point.step / none.steps
        if epoch >= FIRST_EPOCH and point.step in own and point.train is not None:
            gain = own[point.step].val - point.val
            course[point.step] = (epoch, point.val - point.train, point.val - lowest, gain)
    return course


def last_points(points: Iterable[Point]) -> Mapping[tuple[str, str], Point]:
    """By cell and row, the point of the last epoch."""
    return {(point.cell, point.row): point for point in sorted(points, key=lambda p: p.epoch)}


def surface_figure(tables: Sequence[Table], points: Sequence[Point]) -> Figure:
    """What does each dropout gain over none, epoch by epoch? Sizes down, amounts of text across."""
    sizes = sorted({size(table.spec.name) for table in tables})
    texts = sorted({tokens(table.spec.name) for table in tables})
    figure, grid = plt.subplots(
        len(sizes), len(texts), squeeze=False, sharex=True, sharey="row", layout="constrained",
        figsize=(max(2.4 * len(texts), 6.4) + 0.4, 2.0 * len(sizes) + 1.0),
    )  # fmt: skip
    for axes in grid.flat:
        axes.set_visible(False)
    handles: dict[str, Any] = {}
    for table in tables:
        name = table.spec.name
        axes = grid[sizes.index(size(name)), texts.index(tokens(name))]
        axes.set_visible(True)
        axes.axhline(0, color=GREY, lw=1)
        for row in ROWS:
            own = [point for point in points if (point.cell, point.row) == (name, row)]
            (line,) = axes.plot(
                [point.epoch for point in own], [point.gain for point in own], ls=DASHES[row],
                color=looks(table)[table.rows[row].row.family].color, lw=1.4,
            )  # fmt: skip
            handles.setdefault(table.rows[row].row.label, line)
        none = last_points(points_of(table, [BASELINE]))[name, BASELINE]
        title = f"{size(name):g} M, {tokens(name):g} k tokens, gap {none.at.gap:.2f}"
        axes.set_title(title, fontsize=8)
        axes.tick_params(labelsize=8, color=GREY)
    for column in range(len(texts)):
        lowest = [axes for axes in grid[:, column] if axes.get_visible()][-1]
        lowest.tick_params(labelbottom=True)
        lowest.set_xlabel("epochs", fontsize=9)
    figure.supylabel("val loss minus none's, nats a token", fontsize=9)
    figure.legend(
        handles.values(), handles, loc="outside lower center", ncols=len(ROWS), frameon=False,
        fontsize=8, title="mean over shared seeds; below zero: better; gap: none's val − train at the "
        "end; each size has a scale of its own", title_fontsize=8,
    )  # fmt: skip
    return figure
