"""What dropout gains by how far the model overfits without it: `python -m experiments.answer`.

Every pair of rows in a committed table that differ in their dropout alone, one of them without any,
is a point: across, none's val minus its train loss at the last step, which anybody can read off a
run of their own; up, what the dropout gains. One picture and one page for all tables, with the
range in which anything was measured.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from itertools import cycle
from pathlib import Path

import matplotlib
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from common.errors import UserError
from experiments.command import answer, write_text
from experiments.figures import save
from experiments.forest import GREY
from experiments.formats import NOTHING, bounds, loss, markdown, signed
from experiments.looks import Look
from experiments.pairs import MAIN, OUTCOMES, Point, points, resolved
from experiments.predictions import Elsewhere, as_published
from experiments.rates import which_rate
from experiments.runs import load_tables
from experiments.spec import RESULTS, table_names
from experiments.statistics import LEVEL, MIN_SEEDS
from experiments.surface import size

PAGE, FIGURE = RESULTS / "answer.md", RESULTS / "figures" / "answer.svg"
# Those that the figure shows: of the others one table alone has a word to say.
COLORS = {
    "standard 0.1": "#0072B2", "standard 0.2": "#56B4E9", "drop path 0.1": "#E69F00",
    "learned": "#000000",
}  # fmt: skip
PANELS = ("val", "best_val", "val_ema", "equal_train_ema")
MARKERS = ("o", "s", "^", "D", "v", "p", "X", "<", ">", "*")
MINUS = (
    "Val loss minus that of none beside it, the same seeds; the gap is of those seeds too, so that one "
    "none can have several."
)
# Gaps, in nats, that the page tells apart: between them lies nothing that was measured.
EDGES = (0.0, 0.7, 1.3, 2.0, 3.0)


def picture(found: Sequence[Point], published: Elsewhere) -> Figure:
    """Gain by gap of the kinds in COLORS, a panel for each of PANELS; hollow, what was published."""
    found = [point for point in found if point.kind in COLORS]
    figure, panels = plt.subplots(2, 2, sharex=True, figsize=(9.6, 7.6), layout="constrained")
    groups = dict.fromkeys(_group(point.table) for point in found)
    markers = dict(zip(groups, cycle(MARKERS), strict=False))
    looks = {kind: Look(color, "o") for kind, color in COLORS.items()}
    for outcome, axes in zip(PANELS, panels.flat, strict=True):
        axes.axhline(0, color=GREY, lw=0.8)
        for kind, look in looks.items():
            own = [p for p in found if p.kind == kind and outcome in p.gains]
            for point in own:
                interval = point.gains[outcome].interval
                if interval.low is not None and interval.high is not None:
                    bar = [interval.low, interval.high]
                    axes.plot([point.gap] * 2, bar, color=look.color, lw=2.5, alpha=0.6)
                axes.plot(
                    point.gap, interval.mean, markers[_group(point.table)],
                    color=look.color, mec="white", ms=6, zorder=3,
                )  # fmt: skip
            gain = published.gains.get(kind.replace(" ", "_"))
            if gain is not None and outcome == "val":
                axes.plot(published.at.gap, gain, "o", mfc="none", mec=look.color, ms=6)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator([0.5, 1, 2, 3, 4, 6]))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_title(OUTCOMES[outcome])
        axes.grid(axis="y", color="#e8e8e8", lw=0.8)
    for axes in panels[-1]:
        axes.set_xlabel("none's val − train loss at its last step", fontsize=9)
    figure.supylabel("val loss minus none's, nats a token", fontsize=9)
    drawn = {point.kind for point in found}
    handles = [
        plt.Line2D([], [], color=look.color, lw=2, label=kind)
        for kind, look in looks.items()
        if kind in drawn
    ]
    handles += [
        plt.Line2D([], [], color=GREY, ls="", marker=marker, label=name)
        for name, marker in markers.items()
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=5, frameon=False, fontsize=8,
        title=f"below zero: the dropout gains; bars: {LEVEL:.0%} intervals over seeds, paired; "
        "hollow: as published, one seed, 15 M parameters; each panel has a scale of its own",
        title_fontsize=8,
    )  # fmt: skip
    return figure


def _group(table: str) -> str:
    """Tables of one marker: those of one model."""
    if table.startswith("surface_"):
        return f"surface, {size(table):g} M parameters"
    return "nano, modern block" if table == "modern_nano" else table.rpartition("_")[2]


def page(found: Sequence[Point], published: Elsewhere) -> str:
    """By range of the gap what each kind gained, and all points of kinds with one of three seeds."""
    sure = resolved(found)
    kinds = {point.kind for point in sure}
    few = [point for point in found if point.n < MIN_SEEDS and point.kind in kinds]
    gaps = [point.gap for point in sure]
    parts = [
        "# What dropout gains, by how far a model overfits without it",
        "Made by `python -m experiments.answer` from the records in `results/runs`. Train once without "
        "dropout and take val minus train loss at the last step, in nats a token: that is the gap. "
        f"Measured from {min(gaps):.2f} to {max(gaps):.2f}, in {len(sure)} pairs of rows that differ "
        f"in their dropout alone, of at least {MIN_SEEDS} seeds; elsewhere, and at other sizes than "
        "the tables' named below, **unmeasured**. A gain is over none at the *same* weight decay: what "
        "is best at its own is in the tables. Stopped early is the checkpoint of the lowest val loss, "
        "on both sides; the learning rate is constant after its warm-up here, so a run of that length "
        "would have ended there. At equal train loss both are read on their curves where each had the "
        "lowest train loss that both reached, which leaves out what is gained by learning more slowly; "
        "the last weights jitter there by some hundredths from one evaluation to the next, averaged "
        "ones do not, and two kinds are read at levels of their own. Rows of family_nano were chosen "
        "by their first seed, which is one of the four. Learned rows have a fifth more parameters than "
        "none's, learned everywhere five times as many.",
        "![Gain by gap](figures/answer.svg)",
    ]
    told = ", ".join(
        f"{row.replace('_', ' ')} {signed(gain)}" for row, gain in published.gains.items()
    )
    parts.append(
        f"Not by the gap alone: the published table, of {published.at.millions:.1f} M parameters, has "
        f"a gap of {published.at.gap:.2f}, and with it {told} (one seed, nothing of ours)."
    )
    for outcome, title in OUTCOMES.items():
        parts.append(f"## By range, {title}\n\n{_by_range(sure, outcome)}")
    parts.append(which_rate(found))
    header = ["kind", "table", "row", "beside", "n", "gap"]
    for title in OUTCOMES.values():
        header += [title, f"{LEVEL:.0%} interval"]
    for title, own in (("All pairs", sure), ("Of fewer seeds, no finding", few)):
        rows = [
            [p.kind, p.table, p.row.row.label, p.none.row.label, str(p.n), loss(p.gap), *_told(p)]
            for p in own
        ]
        if rows:
            parts.append(f"## {title}\n\n{MINUS}\n\n{markdown(header, rows, left=(1, 2, 3))}")
    return "\n\n".join(filter(None, parts)) + "\n"


def _told(point: Point) -> Iterable[str]:
    for outcome in OUTCOMES:
        difference = point.gains.get(outcome)
        if difference is None:
            yield from (NOTHING, NOTHING)
        else:
            yield from (signed(difference.interval.mean), bounds(difference.interval))


def _by_range(found: Sequence[Point], outcome: str) -> str:
    header = ["kind", *(_range(found, i) for i in range(len(EDGES)))]
    rows = []
    measured = {point.kind for point in found}
    for kind in (kind for kind in MAIN if kind in measured):
        cells = []
        for i in range(len(EDGES)):
            gains = [
                point.gains[outcome].interval.mean
                for point in found
                if point.kind == kind and outcome in point.gains and _place(point.gap) == i
            ]
            cells.append(_span(gains))
        rows.append([kind, *cells])
    said = (
        "Lowest and highest mean difference from none, and of how many settings; below zero, the "
        "dropout gains. Kinds that have one setting or two are under all pairs."
    )
    return f"{said}\n\n{markdown(header, rows)}"


def _range(found: Sequence[Point], i: int) -> str:
    """`gap 0.93 to 0.99`: of what was measured there; the bare range where nothing was."""
    gaps = [point.gap for point in found if _place(point.gap) == i]
    if gaps:
        ends = dict.fromkeys(f"{gap:.2f}" for gap in (min(gaps), max(gaps)))
        return f"gap {' to '.join(ends)}"
    if i == 0 or i + 1 == len(EDGES):
        return f"gap below {EDGES[1]:g}" if i == 0 else f"gap above {EDGES[i]:g}"
    return f"gap {EDGES[i]:g} to {EDGES[i + 1]:g}"


def _place(gap: float) -> int:
    return max(i for i, edge in enumerate(EDGES) if gap >= edge or i == 0)


def _span(gains: Sequence[float]) -> str:
    if not gains:
        return "unmeasured"
    low, high = signed(min(gains)), signed(max(gains))
    return f"{low} (1)" if len(gains) == 1 else f"{low} to {high} ({len(gains)})"


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page and the figure; 0, or 2 where no two rows can be set beside each other."""
    matplotlib.use("agg")
    options = argparse.ArgumentParser(
        prog="python -m experiments.answer",
        description="What dropout gains by how far the model overfits without it, over all tables.",
    )
    options.add_argument(
        "--runs", type=Path, default=RESULTS / "runs", metavar="DIR", help="the tables' records"
    )
    options.add_argument("--out", type=Path, default=PAGE, help="default: results/answer.md")
    options.add_argument("--figure", type=Path, default=FIGURE, help=f"default: {FIGURE.name}")
    arguments = options.parse_args(argv)

    def make() -> int:
        found = points(load_tables(table_names(), arguments.runs))
        if not resolved(found):
            raise UserError(
                f"{arguments.runs} has no two rows of a table, three seeds each, that differ in their "
                "dropout alone: the committed records are in results/runs"
            )
        published = as_published()
        save(lambda: picture(resolved(found), published), arguments.figure)
        write_text(arguments.out, page(found, published))
        print(arguments.out, arguments.figure, sep="\n")
        return 0

    return answer(make)


if __name__ == "__main__":
    sys.exit(main())
