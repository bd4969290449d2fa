"""Val loss against train loss: tells a better curve from a slower run on the same one."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from experiments.forest import GREY
from experiments.looks import looks
from experiments.runs import RowRuns, Table

MOST_PANELS = 4
BEFORE_LOWEST = 0.8  # nats of train loss that are shown before the reference's val loss is lowest


def course(runs: RowRuns) -> list[tuple[float, float]]:
    """Mean train and val loss at the evaluations that all of a row's seeds have, in order.

    Of the averaged weights where a run keeps some: the last ones' jitter.
    """
    by_step = defaultdict[int, list[tuple[float, float]]](list)
    for record in runs.finished:
        averaged = record.metrics.val_ema is not None
        for point in record.curve:
            train, val = (point.train_ema, point.val_ema) if averaged else (point.train, point.val)
            if train is not None and val is not None:
                by_step[point.step].append((train, val))
    whole = [both for _, both in sorted(by_step.items()) if len(both) == len(runs.finished)]
    return [(float(train), float(val)) for train, val in (np.mean(both, axis=0) for both in whole)]


def val_against_train(table: Table) -> Figure | None:
    """Does a row generalise better than another, or does it only learn more slowly?

    A panel for each row that others are compared with, unless one of the same rows is there. None
    where no two have been run.
    """
    found = [_panel(table, one.against, one.rows) for one in table.spec.comparisons]
    panels = {frozenset(runs.row.name for runs in drawn): drawn for drawn in found[::-1] if drawn}
    shown = list(panels.values())[::-1][:MOST_PANELS]
    if not shown:
        return None
    lines, columns = -(-len(shown) // 2), min(2, len(shown))
    figure, grid = plt.subplots(
        lines, columns, squeeze=False, layout="constrained",
        figsize=(9.2 if columns > 1 else 6.4, 3.5 * lines + 0.7),
    )  # fmt: skip
    handles: dict[str, Any] = {}
    for axes, drawn in zip(grid.flat, shown, strict=False):
        for runs in drawn:
            train, val = np.array(course(runs)).T
            look, width = looks(table)[runs.row.family], 2.6 if runs is drawn[0] else 1.2
            (line,) = axes.plot(train, val, color=look.color, lw=width, alpha=0.8)
            axes.plot(train[-1], val[-1], look.marker, color=look.color, mec="white", ms=6)
            handles.setdefault(runs.row.family, line)
        axes.set_xlim(*_train_range(drawn))
        axes.set_ylim(*_val_range(drawn))
        axes.set_xlabel("train loss, falling to the right", fontsize=8)
        axes.set_title(f"thick: {drawn[0].row.label}", fontsize=9)
        axes.tick_params(labelsize=8, color=GREY)
        axes.grid(color="#e8e8e8", lw=0.8)
    for empty in grid.flat[len(shown) :]:
        empty.set_visible(False)
    figure.supylabel("val loss, nats a token", fontsize=9)
    figure.legend(
        handles.values(), handles, loc="outside lower center", ncols=len(handles), frameon=False,
        fontsize=8, title=f"{_weights(shown)}, mean over seeds, by evaluation; mark: the last. Below "
        "another curve:\nbetter at equal train loss; on it: the same, sooner or later",
        title_fontsize=8,
    )  # fmt: skip
    return figure


def _weights(shown: Sequence[Sequence[RowRuns]]) -> str:
    kept = any(runs.values("val_ema") for drawn in shown for runs in drawn)
    return "averaged weights" if kept else "last weights"


def _panel(table: Table, against: str | None, rows: Sequence[str]) -> list[RowRuns]:
    """The reference and behind it the rows that are set beside it; empty where no two have run."""
    if against is None or not course(table.rows[against]):
        return []
    others = [table.rows[name] for name in rows or table.rows if name != against]
    known = [runs for runs in others if course(runs)]
    return [table.rows[against], *known] if known else []


def _train_range(drawn: Sequence[RowRuns]) -> tuple[float, float]:
    at_lowest, _ = min(course(drawn[0]), key=lambda both: both[1])
    lowest = min(train for runs in drawn for train, _ in course(runs))
    return at_lowest + BEFORE_LOWEST, lowest - 0.1


def _val_range(drawn: Sequence[RowRuns]) -> tuple[float, float]:
    """From the lowest val loss to the highest at an end, with some room."""
    low = min(val for runs in drawn for _, val in course(runs))
    high = max(course(runs)[-1][1] for runs in drawn)
    room = max(0.08 * (high - low), 0.05)
    return low - room, high + 2 * room
