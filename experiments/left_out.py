"""How a law fares where it was not fitted: its errors at cells, and at sizes, that were left out."""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence

from scipy import special

from common.errors import UserError
from experiments.forms import Form, Law, rows_of
from experiments.statistics import LEVEL, root_mean_square
from experiments.surface import Point, Setting, last_points, size

# By row and cell.
Errors = Mapping[str, Mapping[str, float]]


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
            laws[part(name)] = form.fit(others)
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
            wanted = law.form.far_gone(at)
            own = [p for p in points if (p.cell, p.row) == (cell, row)]
            if wanted is None or not own or row not in law.cost:
                continue
            gone = [law.form.far_gone(point.at) or 0.0 for point in own]
            nearest = min(zip(gone, own, strict=True), key=lambda one: abs(one[0] - wanted))[1]
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
