"""Forms of a law of what dropout gains, their fit on the surface, and their errors where they were not
fitted."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from common.errors import UserError
from experiments.statistics import LEVEL, root_mean_square
from experiments.surface import Point, Setting, last_points, size

LARGEST_K = 3.0

# By row and cell.
Errors = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Form:
    """gain = cost(row) S^-k - saved(row) x^p.

    `size` and `x` name what S and x are of a Setting; `written` is when the form was thought of, for a
    form that was made to fit is no prediction of what it was made on.
    """

    name: str
    equation: str
    written: str
    x: str
    size: str = "millions"
    smallest_k: float = -1.0  # below zero the cost grows with size
    largest_p: float = 1.0  # p is fitted from 1 to this


FORMS = (
    # As it was written: cost that falls with size, or not at all.
    Form("line", "cost N^-k - saved gap", "before any cell", x="gap", smallest_k=0.0),
    Form(
        "bent", "cost N^-k - saved gap^p", "after the first cell, before the second", x="gap",
        largest_p=3.0,
    ),
    Form("excess", "cost N^-k - saved excess", "after the first cell, before the second", x="excess"),
    Form(
        "coupled", "cost (N/D)^-k - saved gap^p", "after four cells", x="gap", size="per_token",
        largest_p=3.0,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Law:
    """A form with its numbers: `saved` and `cost` by row, and the powers `k` and `p`."""

    form: Form
    k: float
    p: float
    saved: Mapping[str, float]
    cost: Mapping[str, float]

    def gain(self, row: str, at: Setting) -> float | None:
        """What the row gains there; None where what the form needs is not known."""
        known = _size_and_x(self.form, at)
        if known is None or row not in self.cost:
            return None
        return self.cost[row] * known[0] ** -self.k - self.saved[row] * known[1] ** self.p


def _size_and_x(form: Form, at: Setting) -> tuple[float, float] | None:
    x = getattr(at, form.x)
    # Below zero, before anything overfits, nothing is saved.
    return None if x is None else (getattr(at, form.size), max(0.0, x))


def fit(form: Form, points: Sequence[Point]) -> Law:
    """The least squares over all points; those of one cell weigh together as much as another's."""
    rows = {row: _arrays(form, [p for p in points if p.row == row]) for row in rows_of(points)}

    def solved(powers: Sequence[float]) -> tuple[dict[str, np.ndarray], float]:
        k, p = powers
        solutions, error = {}, 0.0
        for row, (sizes, x, gains, weights) in rows.items():
            design = np.stack([sizes**-k, -(x**p)], axis=1) * weights[:, None]
            solutions[row] = np.linalg.lstsq(design, gains * weights)[0]
            error += float(((design @ solutions[row] - gains * weights) ** 2).sum())
        return solutions, error

    ps = np.unique(np.linspace(1, form.largest_p, 5))
    starts = [(k, p) for k in np.linspace(form.smallest_k, LARGEST_K, 17) for p in ps]
    found = optimize.minimize(
        lambda powers: solved(powers)[1], min(starts, key=lambda powers: solved(powers)[1]),
        bounds=[(form.smallest_k, LARGEST_K), (1.0, form.largest_p)], method="Nelder-Mead",
        options={"xatol": 1e-8, "fatol": 1e-15},
    )  # fmt: skip
    k, p = (float(power) for power in found.x)
    solutions = solved((k, p))[0]
    return Law(
        form, k, p,
        saved={row: float(s[1]) for row, s in solutions.items()},
        cost={row: float(s[0]) for row, s in solutions.items()},
    )  # fmt: skip


def rows_of(points: Sequence[Point]) -> list[str]:
    return list(dict.fromkeys(point.row for point in points))


def _arrays(form: Form, own: Sequence[Point]) -> tuple[np.ndarray, ...]:
    """Of a row's points: sizes, x, gains, and the roots of their weights."""
    n = Counter(point.cell for point in own)
    values = []
    for point in own:
        known = _size_and_x(form, point.at)
        assert known is not None  # of a cell everything is known
        values.append((*known, point.gain, n[point.cell] ** -0.5))
    return tuple(np.array(values).T)


def fitted_without(
    form: Form, points: Sequence[Point], part: Callable[[str], object] = str
) -> dict[str, Law]:
    """By cell the law of all cells but those of its part: itself, or as `size`, all of its size.

    Raises UserError where that leaves cells of one size, which tell nothing of how cost falls with it.
    """
    laws: dict[object, Law] = {}
    names = sorted({point.cell for point in points})
    for name in names:
        others = [point for point in points if part(point.cell) != part(name)]
        if len({size(point.cell) for point in others}) < 2:
            raise UserError(
                f"the law needs cells of two sizes beside every one that it is tried on, and without "
                f"{name} there are none: run more of python train.py table=surface scale=surface_..."
            )
        if part(name) not in laws:
            laws[part(name)] = fit(form, others)
    return {name: laws[part(name)] for name in names}


def errors_at_the_end(laws: Mapping[str, Law], points: Sequence[Point]) -> Errors:
    """Outcome minus prediction at the last epoch of each cell, by the law fitted without it."""
    errors = defaultdict[str, dict[str, float]](dict)
    for (cell, row), point in last_points(points).items():
        if row in laws[cell].cost:
            errors[row][cell] = _error(laws[cell], point)
    return {row: errors[row] for row in rows_of(points) if row in errors}


def errors_near(laws: Mapping[str, Law], points: Sequence[Point], at: Setting) -> Errors:
    """As above at the epoch where a cell is as far gone as `at` is, or nearest to that."""
    errors = defaultdict[str, dict[str, float]](dict)
    for row in rows_of(points):
        for cell, law in laws.items():
            wanted = _size_and_x(law.form, at)
            own = [p for p in points if (p.cell, p.row) == (cell, row)]
            if wanted is None or not own or row not in law.cost:
                continue
            xs = [(_size_and_x(law.form, point.at) or (0, 0))[1] for point in own]
            nearest = min(zip(xs, own, strict=True), key=lambda one: abs(one[0] - wanted[1]))[1]
            errors[row][cell] = _error(law, nearest)
    return dict(errors)


def _error(law: Law, point: Point) -> float:
    gain = law.gain(point.row, point.at)
    assert gain is not None
    return point.gain - gain


def overall(errors: Errors) -> float:
    """The root mean square over all rows and cells."""
    return root_mean_square([error for off in errors.values() for error in off.values()])


def taken(errors: Mapping[str, Errors]) -> str:
    """Of forms in the order in which they were written: the first within 0.001 of the least error."""
    least = min(overall(off) for off in errors.values())
    return next(name for name, off in errors.items() if overall(off) <= least + 0.001)


def reach(errors: Collection[float]) -> float | None:
    """Half the interval of a prediction, from errors about zero at cells that its fit had not seen."""
    if len(errors) < 3:
        return None
    t = float(special.stdtrit(len(errors), (1 + LEVEL) / 2))
    return t * root_mean_square(list(errors))
