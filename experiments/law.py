"""A law of what dropout gains, and the tests that it can fail: `python -m experiments.law`.

gain is the val loss of a row minus none's; N is millions of parameters; the gap is none's val minus
its train loss, how far the model overfits without dropout; the excess is none's val loss minus its
lowest so far. `saved` is what a row takes off, `cost` what its noise takes from the model's capacity,
and one `k` says how that falls with size. Three forms, written in the log before their fit, are fitted
on the surface alone; the one with the least error at cells left out is taken; all are set beside
tables that they have not seen, at none's own gap and excess there.
"""

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from scipy import optimize, special

from common.errors import UserError
from experiments.command import answer, write_text
from experiments.figures import save
from experiments.formats import NOTHING, loss, markdown, signed
from experiments.runs import load_table
from experiments.spec import RESULTS, load_spec
from experiments.statistics import LEVEL, paired_difference, root_mean_square
from experiments.surface import Point, cells, last_points, points_of, surface_figure

PAGE, FIGURE = RESULTS / "law.md", RESULTS / "figures" / "surface.svg"
LARGEST_K = 3.0
# Tables that the law has not seen, with the names that the surface's rows have there.
UNSEEN = ("published_small", "published_published")
ROWS = {
    "standard_0.2_wd0.1": "standard_0.2",
    "standard_0.3_wd0.1": "standard_0.3",
    "standard_0.4_wd0.1": "standard_0.4",
    "learned_wd0.1": "learned",
}


@dataclass(frozen=True)
class Form:
    """gain = cost(row) N^-k - saved(row) x^p, with x the gap or the excess."""

    name: str
    equation: str
    of: str
    largest_p: float = 1.0  # p is fitted from 1 to this


FORMS = (
    Form("line", "cost N^-k - saved gap", of="gap"),
    Form("bent", "cost N^-k - saved gap^p", of="gap", largest_p=3.0),
    Form("excess", "cost N^-k - saved excess", of="excess"),
)


@dataclass(frozen=True)
class Law:
    """A form with its numbers: `saved` and `cost` by row, and the powers `k` and `p`."""

    form: Form
    k: float
    p: float
    saved: Mapping[str, float]
    cost: Mapping[str, float]

    def gain(self, row: str, millions: float, x: float) -> float:
        return self.cost[row] * millions**-self.k - self.saved[row] * x**self.p


def fit(form: Form, points: Sequence[Point]) -> Law:
    """The least squares over all points, in which every cell of a row weighs as much as another."""
    rows = {row: _arrays(form, [p for p in points if p.row == row]) for row in _rows(points)}

    def solved(powers: Sequence[float]) -> tuple[dict[str, np.ndarray], float]:
        k, p = powers
        solutions, error = {}, 0.0
        for row, (millions, x, gains, weights) in rows.items():
            design = np.stack([millions**-k, -(x**p)], axis=1) * weights[:, None]
            solutions[row] = np.linalg.lstsq(design, gains * weights)[0]
            error += float(((design @ solutions[row] - gains * weights) ** 2).sum())
        return solutions, error

    ps = np.unique(np.linspace(1, form.largest_p, 5))
    starts = [(k, p) for k in np.linspace(0, LARGEST_K, 13) for p in ps]
    found = optimize.minimize(
        lambda powers: solved(powers)[1], min(starts, key=lambda powers: solved(powers)[1]),
        bounds=[(0.0, LARGEST_K), (1.0, form.largest_p)], method="Nelder-Mead",
        options={"xatol": 1e-4, "fatol": 1e-10},
    )  # fmt: skip
    k, p = (float(power) for power in found.x)
    solutions = solved((k, p))[0]
    return Law(
        form, k, p,
        saved={row: float(s[1]) for row, s in solutions.items()},
        cost={row: float(s[0]) for row, s in solutions.items()},
    )  # fmt: skip


def _rows(points: Sequence[Point]) -> list[str]:
    return list(dict.fromkeys(point.row for point in points))


def _arrays(form: Form, own: Sequence[Point]) -> tuple[np.ndarray, ...]:
    """Of a row's points: sizes, what the form is of, gains, and the roots of their weights."""
    n = Counter(point.cell for point in own)
    # A gap below zero, before anything overfits, saves nothing.
    values = [(p.millions, max(0.0, getattr(p, form.of)), p.gain, n[p.cell] ** -0.5) for p in own]
    return tuple(np.array(values).T)


def left_out_errors(form: Form, points: Sequence[Point]) -> dict[str, dict[str, float]]:
    """By row and cell, the error at its last epoch of a law that was fitted without that cell."""
    errors = defaultdict[str, dict[str, float]](dict)
    last = last_points(points)
    for cell in sorted({point.cell for point in points}):
        law = fit(form, [point for point in points if point.cell != cell])
        for row in law.cost:
            if point := last.get((cell, row)):
                x = max(0.0, getattr(point, form.of))
                errors[row][cell] = point.gain - law.gain(row, point.millions, x)
    return dict(errors)


def overall(errors: Mapping[str, Mapping[str, float]]) -> float:
    """The root mean square over all rows and cells left out."""
    return root_mean_square([error for off in errors.values() for error in off.values()])


def reach(errors: Mapping[str, float]) -> float | None:
    """Half the interval of a prediction, from the errors at cells that a fit had not seen."""
    if len(errors) < 3:
        return None
    t = float(special.stdtrit(len(errors) - 1, (1 + LEVEL) / 2))
    return t * root_mean_square(errors.values())


@dataclass(frozen=True)
class Unseen:
    """A table that the law has not seen: none's size, gap and excess, and what its rows gained."""

    name: str
    millions: float
    gap: float
    excess: float | None
    gains: Mapping[str, float]


def unseen(name: str, runs: Path) -> Unseen | None:
    """Our own runs of a table, or the figures that its document has; None without either."""
    spec = load_spec(name)
    if (runs / name).is_dir():
        table = load_table(spec, runs / name)
        none = table.rows["none"]
        val, train, best, n = (
            none.mean(metric) for metric in ("val", "train", "best_val", "parameters")
        )
        if val is None or train is None or best is None or n is None:
            return None
        baseline = none.values("val")
        paired = {
            row: paired_difference(table.rows[row].values("val"), baseline) for row in ROWS.values()
        }
        gains = {row: one.interval.mean for row, one in paired.items() if one is not None}
        return Unseen(name, n / 1e6, val - train, val - best, gains)
    if name != "published_published":
        return None
    later = {
        row.name: figures
        for row in spec.rows
        for figures in row.published
        if figures.version == "later"
    }
    none_figures = later["none"]
    val, train, n = none_figures.val, none_figures.train, none_figures.parameters
    assert val is not None and train is not None and n is not None
    gains = {
        row: figures.val - val for row in ROWS.values() if (figures := later[row]).val is not None
    }
    title = f"{name}, as the document has it (standard rows with attention dropout on)"
    return Unseen(title, n / 1e6, val - train, None, gains)


def page(points: Sequence[Point], tables: Sequence[Unseen]) -> str:
    """The forms, how they fare at cells that they were not fitted on, and their predictions."""
    laws = [fit(form, points) for form in FORMS]
    errors = {form.name: left_out_errors(form, points) for form in FORMS}
    # Of two that are equal to a thousandth, the one that was written down first.
    taken = min(laws, key=lambda law: round(overall(errors[law.form.name]), 3))
    names = sorted({point.cell for point in points})
    parts = [
        "# What dropout gains: a law, and where it fails",
        "Gain is val loss minus that of none at weight decay 0.1, in nats a token; N millions of "
        "parameters; gap none's val minus train loss; excess none's val loss minus its lowest so far. "
        "The forms were written in the log before the cells were looked at: *line* before any, the "
        f"others after the first. Fitted by `python -m experiments.law` on {len(names)} cells of the "
        f"surface ({', '.join(names)}), every evaluation from epoch 4 on, each cell weighing as much "
        "as another.",
        "![Gain by epochs, size and text](figures/surface.svg)",
        _forms(laws, errors, taken),
        _taken(taken, errors[taken.form.name]),
        "## Tables that it has not seen\n\nAt none's own gap or excess there. The interval is "
        f"{LEVEL:.0%}, by the errors at cells left out, others of whose size were in the fit: beyond "
        "2.9 M parameters it is likely too narrow; *outside* is where a form fails.",
    ]
    parts += [_beside(laws, errors, table) for table in tables]
    return "\n\n".join(parts) + "\n"


def _forms(
    laws: Sequence[Law], errors: Mapping[str, Mapping[str, Mapping[str, float]]], taken: Law
) -> str:
    rows = list(taken.cost)
    lines = []
    for law in laws:
        off = errors[law.form.name]
        name = f"**{law.form.name}**" if law is taken else law.form.name
        p = NOTHING if law.form.largest_p == 1 else f"{law.p:.2f}"
        by_row = [
            loss(root_mean_square(off[row].values())) if off.get(row) else NOTHING for row in rows
        ]
        lines.append([name, law.form.equation, f"{law.k:.2f}", p, loss(overall(off)), *by_row])
    text = (
        "Errors at the last epoch of a cell that the fit left out, root mean square over cells; the "
        f"form of the least over all rows, *{taken.form.name}*, is taken."
    )
    header = ["form", "gain", "k", "p", "error, all rows", *(_label(row) for row in rows)]
    return f"## The forms\n\n{text}\n\n{markdown(header, lines, left=(1,))}"


def _taken(law: Law, errors: Mapping[str, Mapping[str, float]]) -> str:
    lines = []
    for row in law.cost:
        off = errors.get(row, {})
        worst = max(off, key=lambda cell: abs(off[cell]), default=None)
        told = [NOTHING] * 2 if worst is None else [worst, signed(off[worst])]
        lines.append([_label(row), f"{law.saved[row]:.3f}", f"{law.cost[row]:.3f}", *told])
    header = ["row", "saved", "cost", "worst cell left out", "its error"]
    return f"## The fit of *{law.form.name}*\n\n{markdown(header, lines, left=(3,))}"


def _label(row: str) -> str:
    return row.removesuffix("_wd0.1").replace("_", " ")


def _beside(
    laws: Sequence[Law], errors: Mapping[str, Mapping[str, Mapping[str, float]]], table: Unseen
) -> str:
    lines = []
    for ours, theirs in ROWS.items():
        for law in laws:
            x = getattr(table, law.form.of)
            if ours not in law.cost or x is None:
                continue
            predicted = law.gain(ours, table.millions, x)
            half = reach(errors[law.form.name].get(ours, {}))
            outcome = table.gains.get(theirs)
            verdict = NOTHING
            if outcome is not None and half is not None:
                verdict = "inside" if abs(outcome - predicted) <= half else "**outside**"
            interval = NOTHING if half is None else (
                f"[{signed(predicted - half)}, {signed(predicted + half)}]"
            )  # fmt: skip
            told = "not run" if outcome is None else signed(outcome)
            lines.append(
                [_label(theirs), law.form.name, signed(predicted), interval, told, verdict]
            )
    header = ["row", "form", "predicted gain", f"{LEVEL:.0%} interval", "outcome", "verdict"]
    excess = "excess unknown" if table.excess is None else f"excess {table.excess:.3f}"
    title = f"### {table.name}: {table.millions:.1f} M parameters, gap {table.gap:.3f}, {excess}"
    return f"{title}\n\n{markdown(header, lines, left=(1, 5))}"


def main(argv: Sequence[str] | None = None) -> int:
    """Write and print the page; 0, or 2 where too little of the surface has been run."""
    matplotlib.use("agg")
    options = argparse.ArgumentParser(
        prog="python -m experiments.law",
        description="Fit the law of what dropout gains, and set it beside tables it has not seen.",
    )
    options.add_argument(
        "--runs", type=Path, default=RESULTS / "runs", metavar="DIR", help="the tables' records"
    )
    options.add_argument("--out", type=Path, default=PAGE, help="default: results/law.md")
    options.add_argument("--figure", type=Path, default=FIGURE, help=f"default: {FIGURE.name}")
    arguments = options.parse_args(argv)

    def make() -> int:
        tables = cells(arguments.runs)
        if len(tables) < 3:
            raise UserError(
                f"the law needs three cells of the surface at least, and {arguments.runs} has "
                f"{len(tables)}: python train.py table=surface scale=surface_0.9m_123k, and so on"
            )
        points = [point for table in tables for point in points_of(table)]
        known = [table for name in UNSEEN if (table := unseen(name, arguments.runs)) is not None]
        text = page(points, known)
        write_text(arguments.out, text)
        save(lambda: surface_figure(tables, points), arguments.figure)
        print(text)
        print(arguments.out, arguments.figure, sep="\n")
        return 0

    return answer(make)


if __name__ == "__main__":
    sys.exit(main())
