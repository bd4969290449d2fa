"""A law of what dropout gains, and the tests that it can fail: `python -m experiments.law`.

    gain(row) = cost(row) N^-k - saved(row) gap

gain: val loss of the row minus none's; gap: none's val minus its train loss, how far the model overfits
without dropout; N: millions of parameters. `saved` is the share of the gap that a row takes off, `cost`
what its noise takes from the model's capacity, and one `k` says how that falls with size. It is fitted
on the cells of the surface alone, then set beside tables that it has not seen, at none's own gap there.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import optimize, special

from common.errors import UserError
from experiments.command import answer, write_text
from experiments.formats import NOTHING, loss, markdown, signed
from experiments.runs import Table, load_table
from experiments.spec import RESULTS, load_spec, table_names
from experiments.statistics import LEVEL, paired_difference, root_mean_square

PAGE = RESULTS / "law.md"
BASELINE = "none_wd0.1"
FIRST_EPOCH = 4  # before it nothing overfits, and the warm-up is most of the run
LARGEST_K = 3.0
# What is fitted: dropout at the published decay. The surface's rows at another one are for its tables.
FITTED = (
    "standard_0.1_wd0.1", "standard_0.2_wd0.1", "standard_0.3_wd0.1", "standard_0.4_wd0.1",
    "learned_wd0.1",
)  # fmt: skip
# Tables that the law has not seen, with the names that the surface's rows have there.
UNSEEN = ("published_small", "published_published")
ROWS = {
    "standard_0.2_wd0.1": "standard_0.2",
    "standard_0.3_wd0.1": "standard_0.3",
    "standard_0.4_wd0.1": "standard_0.4",
    "learned_wd0.1": "learned",
}


@dataclass(frozen=True)
class Point:
    """What a row gains over none in a cell, at one epoch, in the mean over shared seeds."""

    cell: str
    row: str
    millions: float
    gap: float
    gain: float


@dataclass(frozen=True)
class Law:
    """`saved` and `cost` by row, and the one power `k`."""

    k: float
    saved: Mapping[str, float]
    cost: Mapping[str, float]

    def gain(self, row: str, millions: float, gap: float) -> float:
        return self.cost[row] * millions**-self.k - self.saved[row] * gap


def fit(points: Sequence[Point]) -> Law:
    """The least squares over all points, in which every cell of a row weighs as much as another."""
    by_row = defaultdict[str, list[Point]](list)
    for point in points:
        by_row[point.row].append(point)

    def solved(k: float) -> tuple[dict[str, np.ndarray], float]:
        solutions, error = {}, 0.0
        for row, own in by_row.items():
            weights = np.sqrt(_weights(own))
            design = np.array([[p.millions**-k, -p.gap] for p in own]) * weights[:, None]
            gains = np.array([p.gain for p in own]) * weights
            solutions[row] = np.linalg.lstsq(design, gains)[0]
            error += float(((design @ solutions[row] - gains) ** 2).sum())
        return solutions, error

    grid = np.linspace(0, LARGEST_K, 61)
    start = grid[int(np.argmin([solved(k)[1] for k in grid]))]
    bounds = (max(0.0, start - 0.05), min(LARGEST_K, start + 0.05))
    k = float(optimize.minimize_scalar(lambda k: solved(k)[1], bounds=bounds, method="bounded").x)
    solutions = solved(k)[0]
    return Law(
        k,
        saved={row: float(s[1]) for row, s in solutions.items()},
        cost={row: float(s[0]) for row, s in solutions.items()},
    )


def _weights(points: Sequence[Point]) -> np.ndarray:
    n = defaultdict[str, int](int)
    for point in points:
        n[point.cell] += 1
    return np.array([1 / n[point.cell] for point in points])


def left_out_errors(points: Sequence[Point]) -> dict[str, dict[str, float]]:
    """By row and cell, the error at its last epoch of a law that was fitted without that cell."""
    errors = defaultdict[str, dict[str, float]](dict)
    for cell in sorted({point.cell for point in points}):
        law = fit([point for point in points if point.cell != cell])
        for row in sorted({point.row for point in points}):
            own = [p for p in points if (p.cell, p.row) == (cell, row)]
            if own and row in law.cost:
                last = own[-1]  # of points in the order of their steps
                errors[row][cell] = last.gain - law.gain(row, last.millions, last.gap)
    return dict(errors)


def reach(errors: Mapping[str, float]) -> float | None:
    """Half the interval of a prediction, from the errors at cells that a fit had not seen."""
    if len(errors) < 3:
        return None
    t = float(special.stdtrit(len(errors) - 1, (1 + LEVEL) / 2))
    return t * root_mean_square(errors.values())


def points_of(table: Table) -> list[Point]:
    """The points of a cell: every row with a seed that none has too, at every epoch from the first."""
    baseline = {record.seed: record for record in table.rows[BASELINE].finished}
    found = []
    for name, runs in table.rows.items():
        shared = [(r, baseline[r.seed]) for r in runs.finished if r.seed in baseline]
        if name not in FITTED or not shared:
            continue
        by_step = defaultdict[int, list[tuple[float, float]]](list)
        for record, other in shared:
            theirs = {point.step: point for point in other.curve}
            for point in record.curve:
                epoch = record.metrics.epoch * point.step / record.steps
                none = theirs.get(point.step)
                if epoch >= FIRST_EPOCH and none is not None and none.train is not None:
                    by_step[point.step].append((none.val - none.train, point.val - none.val))
        millions = shared[0][1].parameters / 1e6
        for values in by_step.values():
            if len(values) == len(shared):
                gap, gain = np.mean(values, axis=0)
                found.append(Point(table.spec.name, name, millions, float(gap), float(gain)))
    return found


def surface(runs: Path) -> list[Point]:
    """The points of every cell that has committed runs."""
    cells = [name for name in table_names() if name.startswith("surface_")]
    there = [name for name in cells if (runs / name).is_dir()]
    return [p for name in there for p in points_of(load_table(load_spec(name), runs / name))]


@dataclass(frozen=True)
class Unseen:
    """A table that the law has not seen: none's gap and size, and what rows gained, where known."""

    name: str
    millions: float
    gap: float
    gains: Mapping[str, float]


def unseen(name: str, runs: Path) -> Unseen | None:
    """Our own runs of a table, or the figures that its document has; None without either."""
    spec = load_spec(name)
    if (runs / name).is_dir():
        table = load_table(spec, runs / name)
        val, train, n = (table.rows["none"].mean(m) for m in ("val", "train", "parameters"))
        if val is None or train is None or n is None:
            return None
        baseline = table.rows["none"].values("val")
        paired = {
            row: paired_difference(table.rows[row].values("val"), baseline) for row in ROWS.values()
        }
        gains = {row: one.interval.mean for row, one in paired.items() if one is not None}
        return Unseen(name, n / 1e6, val - train, gains)
    if name != "published_published":
        return None
    later = {
        row.name: figures
        for row in spec.rows
        for figures in row.published
        if figures.version == "later"
    }
    none = later["none"]
    assert none.val is not None and none.train is not None and none.parameters is not None
    gains = {
        row: figures.val - none.val
        for row in ROWS.values()
        if (figures := later[row]).val is not None
    }
    return Unseen(
        f"{name}, as the document has it (standard rows with attention dropout on)",
        none.parameters / 1e6,
        none.val - none.train,
        gains,
    )


def page(points: Sequence[Point], tables: Sequence[Unseen]) -> str:
    """The law, how it fares at cells that it was not fitted on, and its predictions."""
    law, errors = fit(points), left_out_errors(points)
    cells = sorted({point.cell for point in points})
    parts = [
        "# What dropout gains: a law, and where it fails",
        "    gain(row) = cost(row) N^-k - saved(row) gap",
        "Gain is val loss minus that of none at weight decay 0.1, gap none's val minus train loss, N "
        "millions of parameters. Fitted by `python -m experiments.law` on "
        f"{len(cells)} cells of the surface ({', '.join(cells)}), every evaluation from epoch "
        f"{FIRST_EPOCH} on, each cell weighing as much as another: k = {law.k:.2f}.",
    ]
    header = ["row", "saved", "cost", "error at a cell left out", "worst cell", "its error"]
    lines = []
    for row in law.cost:
        off = errors.get(row, {})
        worst = max(off, key=lambda cell: abs(off[cell]), default=None)
        lines.append(
            [row, f"{law.saved[row]:.3f}", f"{law.cost[row]:.3f}"]
            + ([NOTHING] * 3 if worst is None else [
                loss(root_mean_square(off.values())), worst, signed(off[worst])
            ])
        )  # fmt: skip
    parts.append("## The fit\n\n" + markdown(header, lines, left=(4,)))
    text = (
        f"At none's own gap there. The interval is {LEVEL:.0%}, by the errors at cells left out, "
        "others of whose size were in the fit: beyond 2.9 M parameters it is likely too narrow; "
        "*outside* is where the law fails."
    )
    parts.append(f"## Tables that it has not seen\n\n{text}")
    for table in tables:
        parts.append(_beside(law, errors, table))
    return "\n\n".join(parts) + "\n"


def _beside(law: Law, errors: Mapping[str, Mapping[str, float]], table: Unseen) -> str:
    lines = []
    for ours, theirs in ROWS.items():
        if ours not in law.cost:
            continue
        predicted, half = law.gain(ours, table.millions, table.gap), reach(errors.get(ours, {}))
        outcome = table.gains.get(theirs)
        verdict = NOTHING
        if outcome is not None and half is not None:
            verdict = "inside" if abs(outcome - predicted) <= half else "**outside**"
        interval = NOTHING if half is None else (
            f"[{signed(predicted - half)}, {signed(predicted + half)}]"
        )  # fmt: skip
        told = "not run" if outcome is None else signed(outcome)
        lines.append([theirs, signed(predicted), interval, told, verdict])
    header = ["row", "predicted gain", f"{LEVEL:.0%} interval", "outcome", "verdict"]
    title = f"### {table.name}: {table.millions:.1f} M parameters, gap {table.gap:.3f}"
    return f"{title}\n\n{markdown(header, lines, left=(4,))}"


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page and print it; 0, or 2 where too little of the surface has been run."""
    options = argparse.ArgumentParser(
        prog="python -m experiments.law",
        description="Fit the law of what dropout gains, and set it beside tables it has not seen.",
    )
    options.add_argument(
        "--runs", type=Path, default=RESULTS / "runs", metavar="DIR", help="the tables' records"
    )
    options.add_argument("--out", type=Path, default=PAGE, help="default: results/law.md")
    arguments = options.parse_args(argv)

    def make() -> int:
        points = surface(arguments.runs)
        n_cells = len({point.cell for point in points})
        if n_cells < 3:
            raise UserError(
                f"the law needs three cells of the surface at least, and {arguments.runs} has "
                f"{n_cells}: python train.py table=surface scale=surface_0.9m_123k, and so on"
            )
        known = [table for name in UNSEEN if (table := unseen(name, arguments.runs)) is not None]
        text = page(points, known)
        write_text(arguments.out, text)
        print(text)
        print(arguments.out)
        return 0

    return answer(make)


if __name__ == "__main__":
    sys.exit(main())
