"""Records to figures: `python -m experiments.figures published_nano`.

Each figure has one idea. Rows are named where they stand, families differ in marker as well as in a
colour-blind safe colour of its own lightness, and the same records give the same bytes.
"""

import sys
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.errors import UserError
from experiments.along import along
from experiments.along_train import val_against_train
from experiments.command import answer, home, parser, print_list, wanted
from experiments.forest import GREY, forest, limit
from experiments.formats import signed
from experiments.kinds import kinds_figure
from experiments.looks import Look, looks
from experiments.runs import RowRuns, Table, compared_with
from experiments.statistics import LEVEL, MIN_SEEDS, mean_interval

STYLE: dict[Any, Any] = {
    "svg.hashsalt": "experiments.figures",  # element names that do not change from run to run
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",  # comes with matplotlib, so it is the same everywhere
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}

MOST_PANELS = 24

UNDATED: dict[str, Any] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


def mean_curve(runs: RowRuns) -> pd.DataFrame:
    """Val loss: mean, low and high over seeds, at the steps that all seeds have."""
    points = pd.DataFrame(
        [(point.step, point.val) for record in runs.finished for point in record.curve],
        columns=["step", "val"],
    )
    by_step = points.groupby("step")["val"]
    curve = by_step.agg(["mean", "min", "max", "count"])
    curve = curve[curve["count"] == len(runs.finished)].drop(columns="count")
    return curve.set_axis(["mean", "low", "high"], axis=1)


def val_curves(table: Table) -> Figure | None:
    """When does each row begin to overfit? A panel a row: val loss by step, lowest marked.

    None for a table of more rows than a picture shows.
    """
    drawn = [runs for runs in table.rows.values() if runs.finished]
    if len(drawn) > MOST_PANELS:
        return None
    columns = min(4, len(drawn))  # what a telephone's screen still shows legibly
    lines = -(-len(drawn) // columns)
    figure, grid = plt.subplots(
        lines, columns, figsize=(max(1.8 * columns, 4.8), 1.8 * lines + 0.5), squeeze=False,
        sharex=True, sharey=True, layout="constrained",
    )  # fmt: skip
    curves = {runs.row.name: mean_curve(runs) for runs in drawn}
    reference = next((c.against for c in table.spec.comparisons if c.against in curves), None)
    for axes, runs in zip(grid.flat, drawn, strict=False):
        if reference is not None and runs.row.name != reference:
            axes.plot(curves[reference].index, curves[reference]["mean"], ":", color=GREY, lw=1.2)
        _curve_panel(axes, runs, curves[runs.row.name], looks(table)[runs.row.family])
    for empty in range(len(drawn), grid.size):
        grid.flat[empty].set_visible(False)
        grid.flat[empty - columns].tick_params(labelbottom=True)  # the lowest of its column
    grid.flat[0].set_ylim(*_late_range(list(curves.values())))
    grid.flat[0].set_xlim(left=0)
    behind = f"; dotted: {table.rows[reference].row.label}" if reference else ""
    figure.supxlabel(f"step   (mark: lowest mean; band: all seeds{behind})", fontsize=9)
    figure.supylabel("val loss, nats a token", fontsize=9)
    return figure


def _curve_panel(axes: Axes, runs: RowRuns, curve: pd.DataFrame, look: Look) -> None:
    axes.fill_between(curve.index, curve["low"], curve["high"], color=look.color, alpha=0.3, lw=0)
    axes.plot(curve.index, curve["mean"], color=look.color, lw=1.6)
    step, lowest = curve.index[int(curve["mean"].argmin())], float(curve["mean"].min())
    axes.plot(step, lowest, look.marker, color=look.color, mec="white", ms=7)
    late = step > 0.8 * curve.index.max()  # its number ends below it, to stay within the panel
    axes.annotate(f"{lowest:.3f}", (step, lowest), xytext=(4 * late, -8), textcoords="offset points",
                  ha="right" if late else "center", va="top", fontsize=8,
                  bbox={"fc": "white", "alpha": 0.7, "lw": 0, "pad": 0.5})  # fmt: skip
    axes.set_title(runs.row.label, fontsize=9)
    axes.tick_params(labelsize=8, color=GREY)


def _late_range(curves: Sequence[pd.DataFrame]) -> tuple[float, float]:
    """Limits that show the last three quarters of every curve, with room for the lowest labels."""
    late = [curve[curve.index >= 0.25 * curve.index.max()] for curve in curves]
    low, high = min(c["low"].min() for c in late), max(c["high"].max() for c in late)
    return low - 0.22 * (high - low), high + 0.05 * (high - low)


def final_val(table: Table) -> Figure:
    """Where do the rows end? Final val loss: mean, its interval, and every seed."""
    drawn = [runs for runs in table.rows.values() if runs.finished]
    figure, axes = forest(len(drawn))
    spans = []
    for place, runs in enumerate(drawn):
        look, values = looks(table)[runs.row.family], list(runs.values("val").values())
        interval = mean_interval(values)
        if interval.low is None or interval.high is None:
            error = 2 * (runs.mean("val_stderr") or 0.0)
            ends = (interval.mean - error, interval.mean + error)
            axes.plot(ends, [place, place], color=look.color, lw=1.2, ls=(0, (1, 2)))
        else:
            ends = (interval.low, interval.high)
            axes.plot(ends, [place, place], color=look.color, lw=2)
            axes.plot(values, [place + 0.22] * len(values), "|", color=GREY, ms=5)
        axes.plot(interval.mean, place, look.marker, color=look.color, mec="white", ms=8)
        axes.annotate(f"{interval.mean:.3f}", (1.01, place), xycoords=("axes fraction", "data"),
                      va="center", fontsize=8)  # fmt: skip
        spans.append(ends)
    limit(axes, spans)
    axes.set_yticks(range(len(drawn)), [runs.row.label for runs in drawn])
    figure.supxlabel("final val loss, nats a token\n" + _legend(drawn), fontsize=9)
    return figure


def _legend(drawn: Sequence[RowRuns]) -> str:
    several = any(len(runs.finished) > 1 for runs in drawn)
    single = any(len(runs.finished) == 1 for runs in drawn)
    texts = [f"line: {LEVEL:.0%} interval over seeds; ticks: seeds"] * several
    texts += ["dotted: one seed, ± 2 standard errors of its windows"] * single
    return "; ".join(texts)


def val_difference(table: Table) -> Figure | None:
    """Who differs from the reference? Paired differences in final val loss with their intervals.

    The references are rows where the table compares with some, else the best of several. None for a
    table without a comparison, or without a pair that shares a seed.
    """
    comparisons = table.spec.comparisons
    pairs = [
        (one, looks(table)[one.row.row.family])
        for comparison in [c for c in comparisons if c.against] or comparisons
        for one in compared_with(table, comparison, "val", "val")[1]
        if one.difference is not None
    ]
    if not pairs:
        return None
    figure, axes = forest(len(pairs))
    axes.axvline(0, color=GREY, lw=1)
    spans = []
    for place, (one, look) in enumerate(pairs):
        assert one.difference is not None
        interval, sure = one.difference.interval, one.reading in ("lower", "higher")
        ends = (interval.mean, interval.mean)
        if interval.low is not None and interval.high is not None:
            ends = (interval.low, interval.high)
            axes.plot(ends, [place, place], color=look.color, lw=2)
        spans.append(ends)
        axes.plot(interval.mean, place, look.marker, mec=look.color, mew=1.5, ms=7,
                  mfc=look.color if sure else "white")  # fmt: skip
        axes.annotate(signed(interval.mean), (1.01, place), xycoords=("axes fraction", "data"),
                      va="center", fontsize=8)  # fmt: skip
    limit(axes, spans, shown=[0.0])
    others = {one.other.row.label for one, _ in pairs}
    alone = next(iter(others)) if len(others) == 1 else None
    labels = [
        one.row.row.label + ("" if alone else f" − {one.other.row.label}") for one, _ in pairs
    ]
    axes.set_yticks(range(len(pairs)), labels)
    figure.supxlabel(
        (
            f"final val loss minus that of {alone}, same seeds"
            if alone
            else "difference in final val loss"
        )
        + ", nats a token\n"
        + (
            f"below zero: better; line: {LEVEL:.0%} interval; filled: supported, open: not"
            if any(one.reading != "too few seeds" for one, _ in pairs)
            else f"below zero: better; open: fewer than {MIN_SEEDS} seeds support no order"
        ),
        fontsize=9,
    )
    return figure


def train_val_gap(table: Table) -> Figure:
    """How much does each row overfit? Final train and val loss, joined; the gap in numbers."""
    drawn = [runs for runs in table.rows.values() if runs.finished]
    figure, axes = forest(len(drawn))
    for place, runs in enumerate(drawn):
        look, train, val = looks(table)[runs.row.family], runs.mean("train"), runs.mean("val")
        assert train is not None and val is not None  # a finished record has both
        axes.plot([train, val], [place, place], color=look.color, lw=2.5, alpha=0.5)
        axes.plot(train, place, look.marker, mfc="white", mec=look.color, mew=1.5, ms=7)
        axes.plot(val, place, look.marker, color=look.color, ms=7)
        axes.annotate(signed(val - train), (1.01, place), xycoords=("axes fraction", "data"),
                      va="center", fontsize=8)  # fmt: skip
        if place == 0:
            for name, at in (("train", train), ("val", val)):
                axes.annotate(name, (at, place), xytext=(0, 7), textcoords="offset points",
                              ha="center", fontsize=8)  # fmt: skip
    axes.set_ylim(len(drawn) - 0.4, -0.9)
    axes.set_yticks(range(len(drawn)), [runs.row.label for runs in drawn])
    figure.supxlabel("final loss, nats a token; at the right, val − train", fontsize=9)
    return figure


FIGURES: dict[str, Callable[[Table], Figure | None]] = {
    "curves": val_curves,
    "val": final_val,
    "difference": val_difference,
    "gap": train_val_gap,
    "fit": val_against_train,
    "along": along,
    "kinds": kinds_figure,
}


def draw(
    table: Table, folder: Path, suffix: str = "svg", names: Collection[str] = FIGURES
) -> list[Path]:
    """Write the figures that the table's runs allow as `<table>_<figure>.<suffix>`."""
    written = []
    for name in names:
        path = folder / f"{table.spec.name}_{name}.{suffix}"
        if save(partial(FIGURES[name], table), path):
            written.append(path)
    return written


def save(make: Callable[[], Figure | None], path: Path) -> bool:
    """Write a figure in the project's style; False where there is none to draw."""
    with matplotlib.rc_context(STYLE):
        figure = make()
        if figure is None:
            return False
        known = figure.canvas.get_supported_filetypes()
        if (suffix := path.suffix.removeprefix(".")) not in known:
            plt.close(figure)
            raise UserError(
                f"a figure cannot be written as {path.name!r}: one of {', '.join(known)}"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # A date or a version would change the bytes of an unchanged figure.
            figure.savefig(path, metadata=UNDATED.get(suffix, {}))
        finally:
            plt.close(figure)
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Write the figures; 0, or 2 for an error that a person can put right."""
    matplotlib.use("agg")
    options = parser("figures", "figures")
    options.add_argument("--format", choices=("svg", "png", "pdf"), default="svg")
    arguments = options.parse_args(argv)

    def make() -> int:
        if arguments.list:
            return print_list()
        table = wanted(options, arguments)
        if not table.finished:
            raise UserError(f"table {table.spec.name!r} has no finished run: nothing to draw")
        folder = arguments.out or home(arguments) / "figures"
        print(*draw(table, folder, arguments.format), sep="\n")
        return 0

    return answer(make)


if __name__ == "__main__":
    sys.exit(main())
