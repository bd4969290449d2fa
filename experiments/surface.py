"""The surface: what dropout gains over none at each size, amount of text and epoch.

A cell is one size on one amount of text, a table of its own. `experiments.law` fits their points.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from experiments.forest import GREY
from experiments.looks import looks
from experiments.runs import Table, load_table
from experiments.spec import load_spec, table_names

BASELINE = "none_wd0.1"
FIRST_EPOCH = 4  # before it nothing overfits, and the warm-up is most of the run
# Dropout at the published decay. The surface's rows at another one are for its tables.
ROWS = (
    "standard_0.1_wd0.1", "standard_0.2_wd0.1", "standard_0.3_wd0.1", "standard_0.4_wd0.1",
    "learned_wd0.1",
)  # fmt: skip
DASHES: dict[str, Any] = {
    "standard_0.1_wd0.1": ":", "standard_0.2_wd0.1": "-", "standard_0.3_wd0.1": "--",
    "standard_0.4_wd0.1": "-.", "learned_wd0.1": "-",
}  # fmt: skip


@dataclass(frozen=True)
class Point:
    """What a row gains over none in a cell, at one epoch, in the mean over shared seeds.

    `gap` is none's val minus its train loss there, `excess` its val loss minus its lowest so far.
    """

    cell: str
    row: str
    millions: float
    epoch: float
    gap: float
    excess: float
    gain: float


def cells(runs: Path) -> list[Table]:
    """The cells that have committed runs, the smallest model first, then the shortest text."""
    names = [name for name in table_names() if name.startswith("surface_")]
    return [
        load_table(load_spec(name), runs / name)
        for name in sorted(names, key=lambda name: (size(name), tokens(name)))
        if (runs / name).is_dir()
    ]


def size(cell: str) -> float:
    """Millions of parameters, as the name has them: surface_0.9m_123k."""
    return float(cell.split("_")[1].removesuffix("m"))


def tokens(cell: str) -> float:
    """Thousands of unique tokens, as the name has them: surface_0.9m_123k."""
    return float(cell.split("_")[2].removesuffix("k"))


def points_of(table: Table) -> list[Point]:
    """The points of a cell: every row with a seed that none has too, at every epoch from the first."""
    baseline = {record.seed: record for record in table.rows[BASELINE].finished}
    found = []
    for name, runs in table.rows.items():
        shared = [(r, baseline[r.seed]) for r in runs.finished if r.seed in baseline]
        if name not in ROWS or not shared:
            continue
        by_step = defaultdict[int, list[tuple[float, float, float, float]]](list)
        for record, other in shared:
            theirs = {point.step: point for point in record.curve}
            lowest = np.inf
            for none in sorted(other.curve, key=lambda point: point.step):
                lowest = min(lowest, none.val)
                epoch = record.metrics.epoch * none.step / record.steps
                point = theirs.get(none.step)
                if epoch >= FIRST_EPOCH and point is not None and none.train is not None:
                    by_step[none.step].append(
                        (epoch, none.val - none.train, none.val - lowest, point.val - none.val)
                    )
        millions = shared[0][1].parameters / 1e6
        for values in by_step.values():
            if len(values) == len(shared):
                epoch, gap, excess, gain = (float(mean) for mean in np.mean(values, axis=0))
                found.append(Point(table.spec.name, name, millions, epoch, gap, excess, gain))
    return found


def surface_figure(tables: Sequence[Table], points: Sequence[Point]) -> Figure:
    """What does each dropout gain over none, epoch by epoch? Sizes down, amounts of text across."""
    sizes = sorted({size(table.spec.name) for table in tables})
    texts = sorted({tokens(table.spec.name) for table in tables})
    figure, grid = plt.subplots(
        len(sizes), len(texts), squeeze=False, sharex=True, sharey=True, layout="constrained",
        figsize=(2.5 * len(texts) + 0.6, 2.1 * len(sizes) + 1.0),
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
            look = looks(table)[table.rows[row].row.family]
            (line,) = axes.plot(
                [point.epoch for point in own], [point.gain for point in own],
                ls=DASHES[row], color=look.color, lw=1.4,
            )  # fmt: skip
            handles.setdefault(table.rows[row].row.label, line)
        last = max((p for p in points if p.cell == name), key=lambda p: p.epoch, default=None)
        gap = "" if last is None else f", gap {last.gap:.2f}"
        axes.set_title(f"{size(name):g} M, {tokens(name):g} k tokens{gap}", fontsize=8)
        axes.tick_params(labelsize=8, color=GREY)
    figure.supxlabel("epochs", fontsize=9)
    figure.supylabel("val loss minus none's, nats a token", fontsize=9)
    figure.legend(
        handles.values(), handles, loc="outside lower center", ncols=5, frameon=False, fontsize=8,
        title="mean over shared seeds; below zero: better; gap: none's val − train at the end",
        title_fontsize=8,
    )  # fmt: skip
    return figure


def last_points(points: Sequence[Point]) -> Mapping[tuple[str, str], Point]:
    """By cell and row, the point of the last epoch."""
    return {(point.cell, point.row): point for point in sorted(points, key=lambda p: p.epoch)}
