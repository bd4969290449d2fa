"""What the forms of the law say of tables that they were not fitted on, and what those came to."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from common.errors import UserError
from experiments.command import write_text
from experiments.forms import FORMS, Form, Law
from experiments.left_out import (
    Errors,
    errors_at_the_end,
    errors_near,
    fitted_without,
    reach,
    taken,
)
from experiments.runs import load_table
from experiments.spec import load_spec
from experiments.surface import ROWS, Point, Setting, cell_names, last_points, points_of, size

DECAY = "_wd0.1"  # of the surface's rows that the law is of
KINDS = tuple(row.removesuffix(DECAY) for row in ROWS)
UNSEEN = "published_small"
PUBLISHED_TOKENS = 36e6  # to train on, a tenth of the text held out


@dataclass(frozen=True)
class Elsewhere:
    """A table that no form was fitted on: where it is, from none alone, and what its rows gained.

    `kinds` are those of KINDS that it has rows of, `seeds` is how many none has, and `others` are the
    rows beside none with any record, whatever its seed and state.
    """

    name: str
    at: Setting
    seeds: int
    kinds: Sequence[str]
    gains: Mapping[str, float]
    n: Mapping[str, int]
    others: Sequence[str] = ()


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
        return cls(form, form.fit(points), without, errors_at_the_end(without, points), sizes)

    def predict(self, points: Sequence[Point], at: Setting) -> dict[str, Predicted]:
        """By kind; the interval is of the errors at cells left out, as far gone."""
        near = errors_near(self.without_cell, points, at)
        gains = {row: self.law.gain(row, at) for row in ROWS}
        return {
            row.removesuffix(DECAY): Predicted(gain, reach(near.get(row, {}).values()))
            for row, gain in gains.items()
            if gain is not None
        }


def of_runs(name: str, runs: Path) -> Elsewhere | None:
    """A table's own runs, at their last evaluation; None where none has no finished run."""
    if not (runs / name).is_dir():
        return None
    table, decay = load_table(load_spec(name), runs / name), DECAY if name in cell_names() else ""
    none = f"none{decay}"
    kinds = [kind for kind in KINDS if f"{kind}{decay}" in table.rows]
    points = points_of(table, [none, *(f"{kind}{decay}" for kind in kinds)], none)
    last = {row: point for (_, row), point in last_points(points).items()}
    if none not in last:
        return None
    at_end = last.pop(none)
    return Elsewhere(
        name, at_end.at, at_end.n, kinds,
        {row.removesuffix(decay): point.gain for row, point in last.items()},
        {row.removesuffix(decay): point.n for row, point in last.items()},
        [row for row, runs in table.rows.items() if row != none and runs.state != "not run"],
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
        kind: figures.val - val
        for kind in KINDS
        if (figures := later.get(kind)) is not None and figures.val is not None
    }
    at = Setting(n / 1e6, n / PUBLISHED_TOKENS, val - train, None)
    return Elsewhere("published_published", at, 1, list(gains), gains, dict.fromkeys(gains, 1))


def label_of(row: str) -> str:
    """A row of the surface, or a kind, for a reader."""
    return row.removesuffix(DECAY).replace("_", " ")


def keep(points: Sequence[Point], table: Elsewhere, path: Path) -> None:
    """Write what every form says of a table of which only none was run; never again."""
    if path.exists():
        raise UserError(f"{path} is there already: a prediction is made once")
    if table.others:
        known = ", ".join(map(label_of, table.others))
        raise UserError(
            f"{table.name} has records of {known}: a prediction is made before they are looked at, "
            "from none alone"
        )
    fits = [Fitted.on(form, points) for form in FORMS]
    content = {
        "cells": list(dict.fromkeys(point.cell for point in points)),
        "seeds": table.seeds,
        "at": asdict(table.at),
        "taken": taken({one.form.name: one.errors for one in fits}),
        "predictions": {
            one.form.name: {
                kind: asdict(predicted)
                for kind, predicted in one.predict(points, table.at).items()
                if kind in table.kinds
            }
            for one in fits
        },
    }
    write_text(path, json.dumps(content, indent=1) + "\n")
