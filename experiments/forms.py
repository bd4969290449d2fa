"""Forms of a law of what dropout gains, and their fit on the surface."""

from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from experiments.surface import Point, Setting

LARGEST_K = 3.0


@dataclass(frozen=True)
class Form(ABC):
    """How gain depends on where it is measured, by two numbers for each row and two powers for all.

    `written` is when the form was thought of, for a form that was made to fit is no prediction of what
    it was made on; `x` is what of a Setting tells how far gone a run is; `of_row` names the row's
    number that is not its cost.
    """

    name: str
    equation: str
    written: str
    x: str
    of_row: str = "saved"
    smallest_k: float = -1.0  # below zero the cost grows with size
    largest_p: float = 1.0  # p is fitted up to this; 1: there is none

    @abstractmethod
    def fit(self, points: Sequence[Point]) -> "Law":
        """The least squares over all points; those of one cell weigh together as much as another's."""

    @abstractmethod
    def gain(self, law: "Law", row: str, at: Setting) -> float | None:
        """What the row gains there by a law of this form; None where what it needs is not known."""

    def far_gone(self, at: Setting) -> float | None:
        """Below zero, before anything overfits, nothing is saved."""
        x = getattr(at, self.x)
        return None if x is None else max(0.0, x)


@dataclass(frozen=True)
class Law:
    """A form with its numbers: the row's own and `cost` by row, and the powers `k` and `p`."""

    form: Form
    k: float
    p: float
    saved: Mapping[str, float]
    cost: Mapping[str, float]

    def gain(self, row: str, at: Setting) -> float | None:
        """What the row gains there; None where what the form needs is not known."""
        return self.form.gain(self, row, at) if row in self.cost else None


@dataclass(frozen=True)
class Power(Form):
    """gain = cost(row) S^-k - saved(row) x^p; `size` and `x` name what S and x are of a Setting."""

    size: str = "millions"

    def gain(self, law: Law, row: str, at: Setting) -> float | None:
        x = self.far_gone(at)
        if x is None:
            return None
        return float(law.cost[row] * self._size(at) ** -law.k - law.saved[row] * x**law.p)

    def _size(self, at: Setting) -> float:
        return float(getattr(at, self.size))

    def fit(self, points: Sequence[Point]) -> Law:
        rows = {row: self._arrays([p for p in points if p.row == row]) for row in rows_of(points)}

        def solved(powers: Sequence[float]) -> tuple[dict[str, np.ndarray], float]:
            k, p = powers
            solutions, error = {}, 0.0
            for row, (sizes, x, gains, weights) in rows.items():
                design = np.stack([sizes**-k, -(x**p)], axis=1) * weights[:, None]
                solutions[row] = np.linalg.lstsq(design, gains * weights)[0]
                error += float(((design @ solutions[row] - gains * weights) ** 2).sum())
            return solutions, error

        ps = np.unique(np.linspace(1, self.largest_p, 5))
        starts = [(k, p) for k in np.linspace(self.smallest_k, LARGEST_K, 17) for p in ps]
        found = optimize.minimize(
            lambda powers: solved(powers)[1], min(starts, key=lambda powers: solved(powers)[1]),
            bounds=[(self.smallest_k, LARGEST_K), (1.0, self.largest_p)], method="Nelder-Mead",
            options={"xatol": 1e-8, "fatol": 1e-15},
        )  # fmt: skip
        k, p = (float(power) for power in found.x)
        solutions = solved((k, p))[0]
        return Law(
            self, k, p,
            saved={row: float(s[1]) for row, s in solutions.items()},
            cost={row: float(s[0]) for row, s in solutions.items()},
        )  # fmt: skip

    def _arrays(self, own: Sequence[Point]) -> tuple[np.ndarray, ...]:
        """Of a row's points: sizes, x, gains, and the roots of their weights."""
        n = Counter(point.cell for point in own)
        values = []
        for point in own:
            x = self.far_gone(point.at)
            assert x is not None  # of a cell everything is known
            values.append((self._size(point.at), x, point.gain, n[point.cell] ** -0.5))
        return tuple(np.array(values).T)


@dataclass(frozen=True)
class SlowerClock(Form):
    """gain = V(e / s) - V(e) + cost(row), s = 1 + slows(row) N^k D^p, where V is none's own val loss.

    A row is none at an earlier epoch, and a constant (`experiments/clock.py`). Before its first
    evaluation none's loss is taken to be what it was there.
    """

    def gain(self, law: Law, row: str, at: Setting) -> float | None:
        if not at.course:
            return None
        epochs, losses = np.array(at.course).T
        slower = 1 + law.saved[row] * at.millions**law.k * at.tokens**law.p
        earlier = np.interp(epochs[-1] / slower, epochs, losses)
        return float(earlier - losses[-1] + law.cost[row])

    def fit(self, points: Sequence[Point]) -> Law:
        rows = rows_of(points)
        together = defaultdict[tuple[str, str], list[Point]](list)
        for point in sorted(points, key=lambda point: point.epoch):
            together[point.row, point.cell].append(point)

        def gained(numbers: np.ndarray, i: int, own: Sequence[Point]) -> np.ndarray:
            """What the i-th row gains at each of its points of one cell."""
            (k, p), slows, cost = numbers[:2], numbers[2:][i], numbers[2 + len(rows) :][i]
            at = own[-1].at  # whose course has those of the others
            epochs, losses = np.array(at.course).T
            slower = 1 + slows * at.millions**k * at.tokens**p
            now = np.array([point.epoch for point in own])
            return np.interp(now / slower, epochs, losses) - np.interp(now, epochs, losses) + cost

        def off(numbers: np.ndarray) -> np.ndarray:
            return np.concatenate([
                (gained(numbers, rows.index(row), own) - [point.gain for point in own])
                / len(own) ** 0.5
                for (row, _), own in together.items()
            ])  # fmt: skip

        m = len(rows)
        lowest = [self.smallest_k, -1.0, *[0.0] * m, *[-np.inf] * m]
        highest = [LARGEST_K, self.largest_p, *[np.inf] * 2 * m]
        found = [
            optimize.least_squares(off, [k, p, *[1.0] * m, *[0.0] * m], bounds=(lowest, highest))
            for k, p in ((0.0, 0.0), (0.2, 0.3), (0.5, 0.5))
        ]
        k, p, *of_rows = (float(x) for x in min(found, key=lambda one: one.cost).x)
        return Law(
            self, k, p,
            saved=dict(zip(rows, of_rows[:m], strict=True)),
            cost=dict(zip(rows, of_rows[m:], strict=True)),
        )  # fmt: skip


def rows_of(points: Sequence[Point]) -> list[str]:
    return list(dict.fromkeys(point.row for point in points))


FORMS: tuple[Form, ...] = (
    # As it was written: cost that falls with size, or not at all.
    Power("line", "cost N^-k - saved gap", "before any cell", x="gap", smallest_k=0.0),
    Power(
        "bent", "cost N^-k - saved gap^p", "after the first cell, before the second", x="gap",
        largest_p=3.0,
    ),
    Power("excess", "cost N^-k - saved excess", "after the first cell, before the second", x="excess"),
    Power(
        "coupled", "cost (N/D)^-k - saved gap^p", "after four cells", x="gap", size="per_token",
        largest_p=3.0,
    ),
    SlowerClock(
        "slowed", "V(e/s) - V(e) + cost, s = 1 + slows N^k D^p", "after five cells and small",
        x="excess", of_row="slows", largest_p=3.0,
    ),
)  # fmt: skip
