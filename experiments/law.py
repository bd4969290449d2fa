"""A law of what dropout gains, and the tests that it can fail: `python -m experiments.law`.

`experiments/forms.py` has the forms, which are fitted on the surface alone. The one with the least
error at cells left out is taken and set beside tables that it was not fitted on
(`experiments/predictions.py`). `--predict TABLE` keeps what the forms say of a table before its rows
are looked at, when only none has been run.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

from common.errors import UserError
from experiments.clock import clock_figure, clocks, slower_clock
from experiments.command import answer, write_text
from experiments.figures import save
from experiments.formats import NOTHING, folded, loss, markdown, signed
from experiments.forms import FORMS
from experiments.left_out import overall, taken
from experiments.pairs import points as pairs_of
from experiments.pairs import resolved
from experiments.predictions import (
    UNSEEN,
    Elsewhere,
    Fitted,
    Predicted,
    as_published,
    keep,
    label_of,
    of_runs,
)
from experiments.runs import load_tables
from experiments.spec import RESULTS, table_names
from experiments.statistics import LEVEL
from experiments.surface import (
    FIRST_EPOCH,
    Point,
    cell_names,
    cells,
    last_points,
    points_of,
    surface_figure,
)
from experiments.turning import turning

PAGE, FIGURE = RESULTS / "law.md", RESULTS / "figures" / "surface.svg"
CLOCK = "clock.svg"  # beside the figure
Kept = Mapping[str, Any] | None  # the content of a table's file of predictions, if it has one


def page(
    points: Sequence[Point],
    of_curves: str,
    elsewhere: Sequence[tuple[Elsewhere, Kept]],
) -> str:
    """The forms, how they fare at cells that they were not fitted on, and their predictions."""
    fits = {form.name: Fitted.on(form, points) for form in FORMS}
    choice = taken({name: one.errors for name, one in fits.items()})
    names = list(dict.fromkeys(point.cell for point in points))
    others = [_fit(one, names) for name, one in fits.items() if name not in ("line", choice)]
    parts = [
        "# What dropout gains: a law, and where it fails",
        _failed(fits, choice, points, elsewhere),
        "Gain is val loss minus that of none at weight decay 0.1, in nats a token: below zero, dropout "
        "helps. N is millions of parameters, embeddings among them, D millions of unique tokens, V "
        "none's own val loss by epoch; the gap its val minus its train loss, the excess its val loss "
        f"minus its lowest so far. Made by `python -m experiments.law` from {len(names)} cells of the "
        f"surface, every evaluation of theirs from epoch {FIRST_EPOCH} on; the points of one cell "
        "weigh together as much as another's, though cells of large gains count for more in a sum of "
        "squares. Rows have two seeds, none, standard 0.2 and learned three; a gain is over the seeds "
        "that a row shares with none. All sizes have one learning rate, and surface_0.9m_123k is nano "
        "trained longer.",
        "![Gain by epochs, size and text](figures/surface.svg)",
        of_curves,
        _forms(fits, choice),
        *(_fit(fits[name], names) for name in dict.fromkeys(("line", choice))),
        folded("The other forms, by cell", "\n\n".join(others)),
        "## Foretold\n\nWhat the forms say of tables that they were not fitted on, or not yet. The "
        f"interval is {LEVEL:.0%}, from the errors at cells left out, each where its own gap, or "
        "excess, is nearest to that of the table, which not all reach. That the form was chosen on "
        "these cells, and the noise of the outcome, are not in it. A verdict has the form that is "
        "taken and *line*, which came first.",
    ]
    parts += [_kept(fits, points, table, kept) for table, kept in elsewhere]
    parts.append(_published(fits, choice, points))
    return "\n\n".join(parts) + "\n"


def _failed(
    fits: Mapping[str, Fitted],
    choice: str,
    points: Sequence[Point],
    elsewhere: Sequence[tuple[Elsewhere, Kept]],
) -> str:
    published, first = as_published(), fits["line"]
    missed = [_missed(published, first.predict(points, published.at))]
    missed += [_missed(table, _by_form(kept)["line"]) for table, kept in elsewhere if kept]
    least = overall(fits[choice].errors)
    outcomes = [point.gain for point in last_points(points).values()]
    cost = (
        "does not fall with size"
        if first.law.k < 0.05
        else f"falls with size by k = {first.law.k:.2f}"
    )
    return (
        f"**What failed:** of *line*, the law that was expected, cost {cost}, where k was to be 0.3 to "
        f"1, and it misses {' and '.join(filter(None, missed))}. No form "
        f"foretells a cell that it was not fitted on to better than {least:.2f} nats, root mean "
        f"square, of outcomes from {signed(min(outcomes))} to {signed(max(outcomes))}."
    )


def _missed(table: Elsewhere, predictions: Mapping[str, Predicted]) -> str:
    """`2 of 4 rows of published_small`: those outside their intervals, of those that were run."""
    run = [row for row in predictions if row in table.gains]
    outside = [row for row in run if "outside" in _verdict(predictions[row], table.gains[row])]
    return f"{len(outside)} of {len(run)} rows of `{table.name}`" if outside else ""


def _by_form(content: Mapping[str, Any]) -> dict[str, dict[str, Predicted]]:
    """The predictions of a kept file, by form and kind."""
    return {
        name: {row: Predicted(**one) for row, one in rows.items()}
        for name, rows in content["predictions"].items()
    }


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
            [label_of(row), f"{one.law.saved[row]:.3f}", f"{one.law.cost[row]:.3f}", *by_cell]
        )
    header = ["row", one.form.of_row, "cost", *(name.removeprefix("surface_") for name in names)]
    text = "By cell: what a row gained at its last epoch minus what the fit without the cell says."
    return f"### {one.form.name}: {one.form.equation}\n\n{text}\n\n{markdown(header, lines)}"


def _kept(fits: Mapping[str, Fitted], points: Sequence[Point], table: Elsewhere, kept: Kept) -> str:
    if kept is None:
        predictions = {name: one.predict(points, table.at) for name, one in fits.items()}
        text = "No prediction was kept before its rows were run, so none has a verdict."
        return _beside(table, predictions, (), text)
    text = (
        f"As kept in `predictions/{table.name}.json`, from {len(kept['cells'])} cells and "
        f"{kept['seeds']} seeds of none, before its other rows were looked at; *{kept['taken']}* was "
        "taken then."
    )
    predictions = _by_form(kept)
    later = [name for name in fits if name not in predictions]
    if later and table.name not in {point.cell for point in points}:
        predictions |= {name: fits[name].predict(points, table.at) for name in later}
        text += (
            f" *{', '.join(later)}* came after they were read: fitted on the surface alone, and no "
            "prediction."
        )
    return _beside(table, predictions, ("line", kept["taken"]), text)


def _published(fits: Mapping[str, Fitted], choice: str, points: Sequence[Point]) -> str:
    published = as_published()
    predictions = {name: one.predict(points, published.at) for name, one in fits.items()}
    text = (
        "As its document has it: one seed, standard rows evaluated with attention dropout on, another "
        "vocabulary, window and learning rate, half of its parameters embeddings. Its figures were "
        "known before any form, and standard 0.2 here is one of the three points that *line* was "
        "guessed from. It has neither none's own curve, which *slowed* needs, nor its excess."
    )
    return _beside(published, predictions, ("line", choice), text)


def _beside(
    table: Elsewhere,
    predictions: Mapping[str, Mapping[str, Predicted]],
    judged: Sequence[str],
    text: str,
) -> str:
    lines = []
    for kind in table.kinds:
        for name, kinds in predictions.items():
            if kind not in kinds:
                continue
            one, outcome = kinds[kind], table.gains.get(kind)
            interval = NOTHING if one.half is None else (
                f"[{signed(one.gain - one.half)}, {signed(one.gain + one.half)}]"
            )  # fmt: skip
            verdict = _verdict(one, outcome) if name in judged else NOTHING
            told = "not run" if outcome is None else f"{signed(outcome)} ({table.n[kind]})"
            lines.append([label_of(kind), name, signed(one.gain), interval, told, verdict])
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


def foretold(runs: Path, kept: Path) -> list[tuple[Elsewhere, Kept]]:
    """UNSEEN where it has runs, and the cells of which a prediction is kept, with what was."""
    found = []
    for name in (UNSEEN, *cell_names()):
        table, path = of_runs(name, runs), kept / f"{name}.json"
        content = json.loads(path.read_text()) if path.exists() else None
        if table is not None and (name == UNSEEN or content is not None):
            found.append((table, content))
    return found


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
        "--predict", metavar="TABLE", choices=(UNSEEN, *cell_names()),
        help=f"keep what the forms say of {UNSEEN} or a cell, of which only none has been run",
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
        pairs = clocks(resolved(pairs_of(load_tables(table_names(), arguments.runs))))
        kept = arguments.runs.parent / "predictions"
        if arguments.predict is not None:
            table = of_runs(arguments.predict, arguments.runs)
            if table is None:
                raise UserError(
                    f"{arguments.predict} has no run of none at decay 0.1, whose gap a prediction "
                    "needs: run that row first, and publish it"
                )
            keep(points, table, kept / f"{table.name}.json")
        figures = [arguments.figure]
        save(lambda: surface_figure(tables, points), arguments.figure)
        if pairs:
            figures.append(arguments.figure.with_name(CLOCK))
            save(lambda: clock_figure(pairs), figures[-1])
        of_curves = f"{turning(arguments.runs)}\n\n{slower_clock(pairs)}".strip()
        text = page(points, of_curves, foretold(arguments.runs, kept))
        write_text(arguments.out, text)
        print(text)
        print(arguments.out, *figures, sep="\n")
        return 0

    return answer(make)


if __name__ == "__main__":
    sys.exit(main())
