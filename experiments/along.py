"""A figure along a setting: what each kind's loss is at every value that the table's rows have of it.

Rows of such a table are labelled `LINE, VALUE` or `LINE, PANEL, VALUE`: "none, epochs, decay 0.1". A
row without the setting is a level line.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.forest import GREY
from experiments.looks import LOOKS, Look, looks
from experiments.runs import RowRuns, Table
from experiments.statistics import LEVEL

OUTCOMES = {"val": "last weights", "val_ema": "averaged weights"}
DASHES = ("-", "--", ":")  # lines of one family
MOST_LINES = 8  # in one panel; with more, each line has a panel of its own
COLUMNS = 4


@dataclass
class Line:
    """One kind's rows, by the setting's value."""

    look: Look
    dash: str
    rows: dict[float, RowRuns] = field(default_factory=dict)
    level: RowRuns | None = None  # the row without the setting


def along(table: Table) -> Figure | None:
    """What does the setting do to each kind, and which is lowest at its own best?

    A column of panels for the last and one for the averaged weights; of many kinds, a panel for each.
    None for a table whose file has no `along`, or of which too little was run.
    """
    setting = table.spec.along
    panels = _panels(table) if setting else {}
    values = sorted(
        {value for lines in panels.values() for line in lines.values() for value in line.rows}
    )
    outcomes = [name for name in OUTCOMES if any(runs.values(name) for runs in table.rows.values())]
    if len(values) < 2:
        return None
    if max(len(lines) for lines in panels.values()) > MOST_LINES:
        return _kind_by_kind(table, panels, outcomes, values)
    figure, grid = plt.subplots(
        len(panels), len(outcomes), squeeze=False, sharex=True, sharey=True, layout="constrained",
        figsize=(3.3 * len(outcomes), 2.7 * len(panels) + 0.7),
    )  # fmt: skip
    handles: dict[str, Any] = {}
    for (name, lines), row in zip(panels.items(), grid, strict=True):
        for outcome, axes in zip(outcomes, row, strict=True):
            _panel(axes, lines, outcome, values, handles)
            axes.set_title(", ".join(part for part in (OUTCOMES[outcome], name) if part))
    for axes in grid[-1]:
        axes.set_xlabel(_setting(table), fontsize=9)
    figure.supylabel("val loss, nats a token", fontsize=9)
    figure.legend(
        handles.values(), handles, loc="outside lower center", ncols=3, frameon=False, fontsize=8,
        title=f"bars: {LEVEL:.0%} intervals over seeds; without one: one seed", title_fontsize=8,
    )  # fmt: skip
    return figure


def _setting(table: Table) -> str:
    return str(table.spec.along).partition(".")[2].replace("_", " ").replace(".", " ")


def _panels(table: Table) -> dict[str, dict[str, Line]]:
    """By panel and line, the rows by value; lines of one family differ in their dashes."""
    panels: dict[str, dict[str, Line]] = defaultdict(dict)
    names: dict[str, list[str]] = defaultdict(list)
    for runs in table.rows.values():
        name, *panel = runs.row.label.split(", ")[:-1] or [runs.row.label]
        of_family = names[runs.row.family]
        if name not in of_family:
            of_family.append(name)
        if runs.finished:
            dash = DASHES[of_family.index(name) % len(DASHES)]
            line = Line(looks(table)[runs.row.family], dash)
            own = panels[", ".join(panel)].setdefault(name, line)
            value = _value(runs, str(table.spec.along))
            if value is None:
                own.level = runs
            else:
                own.rows[value] = runs
    return dict(panels)


def _value(runs: RowRuns, setting: str) -> float | None:
    node: Any = runs.finished[0].config
    for key in setting.split("."):
        node = node.get(key) if isinstance(node, Mapping) else None
    return float(node) if isinstance(node, int | float) else None


def _kind_by_kind(
    table: Table, panels: Mapping[str, Mapping[str, Line]], outcomes: list[str], values: list[float]
) -> Figure:
    """A panel for each line; in it the table's panels in colours, and the reference of each, level."""
    names = list(
        dict.fromkeys(n for lines in panels.values() for n, ln in lines.items() if ln.rows)
    )
    columns = min(COLUMNS, len(names))
    figure, grid = plt.subplots(
        -(-len(names) // columns), columns, squeeze=False, sharex=True, sharey=True,
        figsize=(2.2 * columns, 1.9 * -(-len(names) // columns) + 0.9), layout="constrained",
    )  # fmt: skip
    references = {name for kind in table.spec.kinds if kind.reference for name in kind.of}
    handles: dict[str, Any] = {}
    for axes, name in zip(grid.flat, names, strict=False):
        for look, (panel, lines) in zip(LOOKS, panels.items(), strict=False):
            for dash, outcome in zip(DASHES, outcomes, strict=False):
                label = ", ".join(part for part in (OUTCOMES[outcome], panel) if part)
                if name in lines:
                    drawn = Line(look, dash, lines[name].rows)
                    _panel(axes, {label: drawn}, outcome, values, handles)
                for other in lines.values():
                    if other.level is not None and other.level.row.name in references:
                        at = other.level.mean(outcome)
                        if at is not None:
                            axes.axhline(at, color=look.color, ls=dash, lw=0.8, alpha=0.6)
        axes.set_title(name, fontsize=9)
    for empty in range(len(names), grid.size):
        grid.flat[empty].set_visible(False)
        grid.flat[empty - columns].tick_params(labelbottom=True)
    for axes in grid.flat[len(names) - columns : len(names)]:
        axes.set_xlabel(_setting(table), fontsize=9)
    figure.supylabel("val loss, nats a token", fontsize=9)
    figure.legend(
        handles.values(), handles, loc="outside lower center", ncols=2, frameon=False, fontsize=8,
        title=f"bars: {LEVEL:.0%} intervals over seeds; level: without it", title_fontsize=8,
    )  # fmt: skip
    return figure


def _panel(
    axes: Axes,
    lines: Mapping[str, Line],
    outcome: str,
    values: list[float],
    handles: dict[str, Any],
) -> None:
    for name, line in lines.items():
        if line.level is not None and not line.rows:
            at = line.level.mean(outcome)
            if at is not None:
                level = axes.axhline(at, color=line.look.color, ls=line.dash, lw=1)
                handles.setdefault(name, level)
            continue
        points = [
            (values.index(v), runs.interval(outcome)) for v, runs in sorted(line.rows.items())
        ]
        known = [(at, interval) for at, interval in points if interval is not None]
        handle = axes.plot(
            [at for at, _ in known], [i.mean for _, i in known], line.look.marker + line.dash,
            color=line.look.color, mec="white", ms=6, lw=1.4,
        )  # fmt: skip
        for at, interval in known:
            if interval.low is not None and interval.high is not None:
                axes.plot(
                    [at, at],
                    [interval.low, interval.high],
                    color=line.look.color,
                    lw=2.5,
                    alpha=0.6,
                )
        handles.setdefault(name, handle[0])
    axes.set_xticks(range(len(values)), [f"{value:g}" for value in values])
    axes.tick_params(labelsize=8, color=GREY)
    axes.grid(axis="y", color="#e8e8e8", lw=0.8)
