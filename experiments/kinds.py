"""The best of each kind: the part of a table's page, and its figure."""

from dataclasses import dataclass

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from experiments.differences import CHOSEN_BY, OUTCOMES
from experiments.forest import GREY, limit
from experiments.formats import NOTHING, bounds, loss, markdown, signed
from experiments.looks import looks
from experiments.runs import Compared, RowRuns, Table, best_row, compare
from experiments.sections import PERCENT, has
from experiments.spec import Kind
from experiments.statistics import LEVEL, MIN_SEEDS

DRAWN = {"val": "last weights", "val_ema": "averaged weights"}


@dataclass(frozen=True)
class Chosen:
    """A kind, and the row that stands for it."""

    kind: Kind
    runs: RowRuns


def chosen(table: Table, metric: str) -> list[Chosen]:
    """Each kind's row of the lowest mean, over the seeds that its rows share; on test, as val says."""
    found = [
        (kind, best_row(table, kind.of, CHOSEN_BY.get(metric, metric))) for kind in table.spec.kinds
    ]
    return [Chosen(kind, table.rows[name]) for kind, name in found if name is not None]


def against(table: Table, metric: str, reference: Chosen) -> list[Compared]:
    """The others' paired differences from a reference's; Holm's correction spans them."""
    other = reference.runs.row.name
    rows = dict.fromkeys(one.runs.row.name for one in chosen(table, metric))  # each but once
    return compare(table, [(name, other, metric) for name in rows if name != other])


def best_of_kinds(table: Table) -> str:
    """The part of the page; empty for a table whose file names no kinds."""
    tables = [_part(table, metric) for metric in OUTCOMES if has(table, metric)]
    if not table.spec.kinds or not any(tables):
        return ""
    text = (
        "For each kind the row with the lowest mean val loss, over the seeds that the kind's rows "
        "share: where most have one seed, it chose. The choice was made on these same runs, which "
        "favours every kind a little, those with more rows more. On test the rows are those that "
        f"val chose. Differences are paired by seed, with {PERCENT} intervals; *lower* and "
        "*higher* as below, with Holm's correction over the kinds alone: among the more pairs of the "
        "table below the same difference can be left open."
    )
    return "\n\n".join([f"## The best of each kind\n\n{text}", *filter(None, tables)])


def _part(table: Table, metric: str) -> str:
    found = [one for one in chosen(table, metric) if one.runs.values(metric)]
    references = [one for one in found if one.kind.reference]
    header, left = ["kind", "its best", "n", "loss"], [1]
    cells = {
        one.kind.name: [
            one.kind.name, one.runs.row.label, str(len(one.runs.values(metric))),
            loss(one.runs.mean(metric)),
        ]
        for one in found
    }  # fmt: skip
    for reference in references:
        header += [f"minus {reference.kind.name}", "verdict"]
        left.append(len(header) - 1)
        compared = {c.row.row.name: c for c in against(table, metric, reference)}
        for one in found:
            cells[one.kind.name] += _difference(compared.get(one.runs.row.name))
    if not found:
        return ""
    title = f"### {OUTCOMES[metric].capitalize()}"
    return f"{title}\n\n{markdown(header, list(cells.values()), left=tuple(left))}"


def _difference(one: Compared | None) -> list[str]:
    if one is None or one.difference is None:
        return [NOTHING, "" if one is None else one.reading]
    interval = one.difference.interval
    bounded = "" if interval.low is None else f" {bounds(interval)}"
    return [signed(interval.mean) + bounded, one.reading]


def kinds_figure(table: Table) -> Figure | None:
    """What does each kind gain over the first reference, each at its best?

    A panel for the last weights and one for the averaged ones. None for a table whose file names no
    kinds, or where no two have been run.
    """
    panels = [(metric, _compared(table, metric)) for metric in DRAWN if has(table, metric)]
    panels = [(metric, compared) for metric, compared in panels if compared]
    if not panels:
        return None
    n = max(len(compared) for _, compared in panels)
    figure, grid = plt.subplots(
        1, len(panels), figsize=(4.4 * len(panels), 0.34 * n + 1.1), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axes, (metric, compared) in zip(grid[0], panels, strict=True):
        axes.axvline(0, color=GREY, lw=1)
        spans = []
        for place, one in enumerate(compared):
            assert one.difference is not None
            interval, look = one.difference.interval, looks(table)[one.row.row.family]
            low, high = interval.low, interval.high
            ends = (interval.mean,) * 2 if low is None or high is None else (low, high)
            axes.plot(ends, [place, place], color=look.color, lw=2)
            axes.plot(
                interval.mean, place, look.marker, mec=look.color, mew=1.5, ms=7,
                mfc=look.color if one.reading in ("lower", "higher") else "white",
            )  # fmt: skip
            spans.append(ends)
        limit(axes, spans, shown=[0.0])
        axes.set_ylim(n - 0.4, -0.6)
        axes.set_yticks(range(len(compared)), [one.row.row.label for one in compared])
        axes.tick_params(labelsize=8, color=GREY)
        axes.grid(axis="x", color="#e8e8e8", lw=0.8)
        axes.set_title(f"{DRAWN[metric]}\nminus {compared[0].other.row.label}", fontsize=9)
    figure.supxlabel(
        f"val loss, nats a token, same seeds; below zero: better; line: {LEVEL:.0%} interval; filled: "
        f"supported by {MIN_SEEDS} seeds or more",
        fontsize=8,
    )
    return figure


def _compared(table: Table, metric: str) -> list[Compared]:
    """The kinds' differences from the first reference, of those that share a seed with it."""
    references = [one for one in chosen(table, metric) if one.kind.reference]
    compared = against(table, metric, references[0]) if references else []
    return [one for one in compared if one.difference is not None]
