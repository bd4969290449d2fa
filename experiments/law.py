"""A law of what dropout gains, and the tests that it can fail: `python -m experiments.law`.

`experiments/forms.py` has the forms, which are fitted on the surface alone. The one with the least
error at cells left out is taken and set beside tables that it was not fitted on. `--predict` keeps
what it says of `published_small` before that table's rows are looked at, when only none has been run.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib

from common.errors import UserError
from experiments.clock import clock_figure, clocks, slower_clock
from experiments.command import answer, write_text
from experiments.figures import save
from experiments.formats import NOTHING, loss, markdown, signed
from experiments.forms import (
    FORMS,
    Errors,
    Form,
    Law,
    errors_at_the_end,
    errors_near,
    fit,
    fitted_without,
    overall,
    reach,
    taken,
)
from experiments.pairs import points as pairs_of
from experiments.pairs import resolved
from experiments.runs import load_table, load_tables
from experiments.spec import RESULTS, load_spec, table_names
from experiments.statistics import LEVEL
from experiments.surface import (
    FIRST_EPOCH,
    Point,
    Setting,
    cells,
    last_points,
    points_of,
    size,
    surface_figure,
)
from experiments.turning import turning

PAGE, FIGURE = RESULTS / "law.md", RESULTS / "figures" / "surface.svg"
CLOCK = "clock.svg"  # beside the figure
# The surface's rows that the published comparison has too, and their names there.
ROWS = {
    "standard_0.2_wd0.1": "standard_0.2",
    "standard_0.3_wd0.1": "standard_0.3",
    "standard_0.4_wd0.1": "standard_0.4",
    "learned_wd0.1": "learned",
}
UNSEEN = "published_small"
PUBLISHED_TOKENS = 36e6  # to train on, a tenth of the text held out


@dataclass(frozen=True)
class Elsewhere:
    """A table that no form was fitted on: where it is, from none alone, and what its rows gained."""

    name: str
    at: Setting
    seeds: int  # of none
    gains: Mapping[str, float]
    n: Mapping[str, int]


@dataclass(frozen=True)
class Predicted:
    """What a form says that a row gains, and half its interval."""

    gain: float
    half: float | None


@dataclass(frozen=True)
class Fitted:
    """A form, its law on all cells, and its errors where cells or sizes were left out."""

    form: Form
    law: Law
    without_cell: Mapping[str, Law]
    errors: Errors
    without_size: Errors | None

    @classmethod
    def on(cls, form: Form, points: Sequence[Point]) -> "Fitted":
        without = fitted_without(form, points)
        sizes = None
        if len({size(point.cell) for point in points}) > 2:
            sizes = errors_at_the_end(fitted_without(form, points, size), points)
        return cls(form, fit(form, points), without, errors_at_the_end(without, points), sizes)

    def predict(self, points: Sequence[Point], at: Setting) -> dict[str, Predicted]:
        """By row of the comparison; the interval is of the errors at cells left out, as far gone."""
        near = errors_near(self.without_cell, points, at)
        gains = {row: self.law.gain(row, at) for row in ROWS}
        return {
            ROWS[row]: Predicted(gain, reach(near.get(row, {}).values()))
            for row, gain in gains.items()
            if gain is not None
        }


def of_runs(name: str, runs: Path) -> Elsewhere | None:
    """A table's own runs, at their last evaluation; None where none has no finished run."""
    if not (runs / name).is_dir():
        return None
    table = load_table(load_spec(name), runs / name)
    if not table.rows["none"].finished:
        return None
    points = points_of(table, ["none", *ROWS.values()], baseline="none")
    last = {row: point for (_, row), point in last_points(points).items()}
    none = last.pop("none")
    return Elsewhere(
        name, none.at, none.n,
        {row: point.gain for row, point in last.items()},
        {row: point.n for row, point in last.items()},
    )  # fmt: skip


def as_published() -> Elsewhere:
    """The published figures; none's lowest loss on the way is not among them."""
    later = {
        row.name: figures
        for row in load_spec("published_published").rows
        for figures in row.published
        if figures.version == "later"
    }
    val, train, n = later["none"].val, later["none"].train, later["none"].parameters
    assert val is not None and train is not None and n is not None
    gains = {
        row: figures.val - val for row in ROWS.values() if (figures := later[row]).val is not None
    }
    at = Setting(n / 1e6, n / PUBLISHED_TOKENS, val - train, None)
    return Elsewhere("published_published", at, 1, gains, dict.fromkeys(gains, 1))


def page(
    points: Sequence[Point],
    of_curves: str,
    small: Elsewhere | None,
    kept: Mapping[str, Any] | None,
) -> str:
    """The forms, how they fare at cells that they were not fitted on, and their predictions."""
    fits = {form.name: Fitted.on(form, points) for form in FORMS}
    choice = taken({name: one.errors for name, one in fits.items()})
    names = list(dict.fromkeys(point.cell for point in points))
    parts = [
        "# What dropout gains: a law, and where it fails",
        _failed(fits, choice, points),
        "Gain is val loss minus that of none at weight decay 0.1, in nats a token: below zero, dropout "
        "helps. N is millions of parameters, embeddings among them, N/D parameters for each token of "
        "the text; the gap none's val minus its train loss; the excess "
        "none's val loss minus its lowest so far. Made by `python -m experiments.law` "
        f"from {len(names)} cells of the surface, every evaluation of theirs from epoch "
        f"{FIRST_EPOCH} on; "
        "the points of one cell weigh together as much as another's, though cells of large gains count "
        "for more in a sum of squares. Rows have two seeds, none, standard 0.2 and learned three; a "
        "gain is over the seeds that a row shares with none. All sizes have one learning rate, and "
        "surface_0.9m_123k is nano trained longer.",
        "![Gain by epochs, size and text](figures/surface.svg)",
        of_curves,
        _forms(fits, choice),
        *(_fit(one, names) for one in fits.values()),
        "## Where no form was fitted\n\nThe interval is "
        f"{LEVEL:.0%}, from the errors at cells left out, each where its own gap, or excess, is "
        "nearest to that of the table, which not all reach. That the form was chosen on these cells, "
        "and the noise of the outcome, are not in it. A verdict has the form that is taken "
        "and *line*, which came first.",
    ]
    if small is not None:
        parts.append(_small(fits, points, small, kept))
    parts.append(_published(fits, choice, points))
    return "\n\n".join(parts) + "\n"


def _failed(fits: Mapping[str, Fitted], choice: str, points: Sequence[Point]) -> str:
    published, first = as_published(), fits["line"]
    predictions = first.predict(points, published.at)
    missed = [
        row for row, one in predictions.items() if "outside" in _verdict(one, published.gains[row])
    ]
    least = overall(fits[choice].errors)
    outcomes = [point.gain for point in last_points(points).values()]
    cost = (
        "does not fall with size"
        if first.law.k < 0.05
        else f"falls with size by k = {first.law.k:.2f}"
    )
    return (
        f"**What failed:** of *line*, the law that was expected, cost {cost}, where k was to be 0.3 to "
        f"1, and it misses {len(missed)} of {len(predictions)} rows of the published table. No form "
        f"foretells a cell that it was not fitted on to better than {least:.2f} nats, root mean "
        f"square, of outcomes from {signed(min(outcomes))} to {signed(max(outcomes))}."
    )


def _forms(fits: Mapping[str, Fitted], choice: str) -> str:
    lines = []
    for one in fits.values():
        form, law = one.form, one.law
        ks = sorted(other.k for other in one.without_cell.values())
        p = NOTHING if form.largest_p == 1 else f"{law.p:.2f}"
        lines.append([
            f"**{form.name}**" if form.name == choice else form.name, form.equation, form.written,
            f"{law.k:.2f} ({ks[0]:.2f} to {ks[-1]:.2f})", p, loss(overall(one.errors)),
            NOTHING if one.without_size is None else loss(overall(one.without_size)),
        ])  # fmt: skip
    text = (
        "Errors at the last epoch of a cell, root mean square over rows and cells, of a fit without "
        "that cell, and without all cells of its size; k in brackets: over the fits without a cell. "
        "*Line* is held to a cost that does not grow with size, as it was written; the others are not. "
        f"Taken is the first form within 0.001 of the least error at cells left out: *{choice}*."
    )
    header = [
        "form", "gain", "written", "k", "p", "error, cell left out", "error, size left out",
    ]  # fmt: skip
    return f"## The forms\n\n{text}\n\n{markdown(header, lines, left=(1, 2))}"


def _fit(one: Fitted, names: Sequence[str]) -> str:
    lines = []
    for row, off in one.errors.items():
        by_cell = [signed(off[name]) if name in off else NOTHING for name in names]
        lines.append(
            [_label(row), f"{one.law.saved[row]:.3f}", f"{one.law.cost[row]:.3f}", *by_cell]
        )
    header = ["row", "saved", "cost", *(name.removeprefix("surface_") for name in names)]
    text = "By cell: what a row gained at its last epoch minus what the fit without the cell says."
    return f"### {one.form.name}: {one.form.equation}\n\n{text}\n\n{markdown(header, lines)}"


def _label(row: str) -> str:
    return row.removesuffix("_wd0.1").replace("_", " ")


def _small(
    fits: Mapping[str, Fitted],
    points: Sequence[Point],
    small: Elsewhere,
    kept: Mapping[str, Any] | None,
) -> str:
    if kept is None:
        predictions = {name: one.predict(points, small.at) for name, one in fits.items()}
        text = "No prediction was kept before its rows were run, so none has a verdict."
        return _beside(small, predictions, (), text)
    predictions = {
        name: {row: Predicted(**one) for row, one in rows.items()}
        for name, rows in kept["predictions"].items()
    }
    text = (
        f"As kept in `predictions/{small.name}.json`, from {len(kept['cells'])} cells and "
        f"{kept['seeds']} seeds of none, before its other rows were looked at; *{kept['taken']}* was "
        "taken then."
    )
    return _beside(small, predictions, ("line", kept["taken"]), text)


def _published(fits: Mapping[str, Fitted], choice: str, points: Sequence[Point]) -> str:
    published = as_published()
    predictions = {name: one.predict(points, published.at) for name, one in fits.items()}
    text = (
        "As its document has it: one seed, standard rows evaluated with attention dropout on, another "
        "vocabulary, window and learning rate, half of its parameters embeddings. Its figures were "
        "known before any form, and standard 0.2 here is one of the three points that *line* was "
        "guessed from."
    )
    return _beside(published, predictions, ("line", choice), text)


def _beside(
    table: Elsewhere,
    predictions: Mapping[str, Mapping[str, Predicted]],
    judged: Sequence[str],
    text: str,
) -> str:
    lines = []
    for row in ROWS.values():
        for name, rows in predictions.items():
            if row not in rows:
                continue
            one, outcome = rows[row], table.gains.get(row)
            interval = NOTHING if one.half is None else (
                f"[{signed(one.gain - one.half)}, {signed(one.gain + one.half)}]"
            )  # fmt: skip
            verdict = _verdict(one, outcome) if name in judged else NOTHING
            told = "not run" if outcome is None else f"{signed(outcome)} ({table.n[row]})"
            lines.append([_label(row), name, signed(one.gain), interval, told, verdict])
    header = ["row", "form", "predicted", f"{LEVEL:.0%} interval", "outcome (seeds)", "verdict"]
    at = table.at
    excess = "excess unknown" if at.excess is None else f"excess {at.excess:.3f}"
    title = f"### {table.name}: {at.millions:.1f} M parameters, gap {at.gap:.3f}, {excess}"
    return f"{title}\n\n{text}\n\n{markdown(header, lines, left=(1, 5))}"


def _verdict(one: Predicted, outcome: float | None) -> str:
    if outcome is None or one.half is None:
        return NOTHING
    if abs(outcome - one.gain) > one.half:
        return "**outside**"
    return "inside" if abs(one.gain) > one.half else "inside; so is zero"


def keep(points: Sequence[Point], small: Elsewhere, path: Path) -> None:
    """Write what every form says of a table of which only none was run; never again."""
    if path.exists():
        raise UserError(f"{path} is there already: a prediction is made once")
    if small.gains:
        raise UserError(
            f"{small.name} has records of {', '.join(map(_label, small.gains))}: a prediction is made "
            "before they are looked at, from none alone"
        )
    fits = [Fitted.on(form, points) for form in FORMS]
    content = {
        "cells": list(dict.fromkeys(point.cell for point in points)),
        "seeds": small.seeds,
        "at": asdict(small.at),
        "taken": taken({one.form.name: one.errors for one in fits}),
        "predictions": {
            one.form.name: {
                row: asdict(predicted) for row, predicted in one.predict(points, small.at).items()
            }
            for one in fits
        },
    }
    write_text(path, json.dumps(content, indent=1) + "\n")


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
    options.add_argument(
        "--figure", type=Path, default=FIGURE, help="default: results/figures/surface.svg"
    )
    options.add_argument(
        "--predict", action="store_true",
        help=f"keep what the forms say of {UNSEEN}, of which only none has been run",
    )  # fmt: skip
    arguments = options.parse_args(argv)

    def make() -> int:
        tables = cells(arguments.runs)
        points = [point for table in tables for point in points_of(table)]
        n_cells = len({point.cell for point in points})
        if n_cells < 3:
            raise UserError(
                f"the law needs three cells of the surface at least, and {arguments.runs} has "
                f"{n_cells}: python train.py table=surface scale=surface_0.9m_123k, and so on"
            )
        small = of_runs(UNSEEN, arguments.runs)
        prediction = arguments.runs.parent / "predictions" / f"{UNSEEN}.json"
        save(lambda: surface_figure(tables, points), arguments.figure)
        if arguments.predict:
            if small is None:
                raise UserError(
                    f"{UNSEEN} has no run of none, whose gap a prediction needs: python train.py "
                    "table=published scale=small row=published/none"
                )
            keep(points, small, prediction)
        kept = json.loads(prediction.read_text()) if prediction.exists() else None
        pairs = clocks(resolved(pairs_of(load_tables(table_names(), arguments.runs))))
        if pairs:
            save(lambda: clock_figure(pairs), arguments.figure.with_name(CLOCK))
        of_curves = f"{turning(arguments.runs)}\n\n{slower_clock(pairs)}".strip()
        text = page(points, of_curves, small, kept)
        write_text(arguments.out, text)
        print(text)
        print(arguments.out, arguments.figure, arguments.figure.with_name(CLOCK), sep="\n")
        return 0

    return answer(make)


if __name__ == "__main__":
    sys.exit(main())
