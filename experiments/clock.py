"""Is a dropout a slower clock, and nothing more? Its val loss read as none's at an earlier epoch.

V(e) = V_none(e / s) + b. A row that only learns more slowly has s > 1 and b = 0; one that generalises
better has b < 0.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import median

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from scipy import optimize

from experiments.forest import GREY
from experiments.formats import bounds, loss, markdown, signed
from experiments.pairs import Point
from experiments.records import Finished
from experiments.statistics import LEVEL, Interval, mean_interval
from experiments.surface import FIRST_EPOCH

COLORS = {
    "standard 0.1": "#0072B2", "standard 0.2": "#56B4E9", "standard 0.3": "#009E73",
    "standard 0.4": "#CC79A7", "drop path 0.1": "#E69F00", "learned": "#000000",
    "learned Fourier": "#999933", "learned everywhere": "#D55E00",
}  # fmt: skip
OTHERS = "other kinds"
SLOWEST, FASTEST, STEP = 4.0, 0.5, 0.01
LEAST = 5  # evaluations of a row that a fit needs
WITHIN = 0.03  # what the log expected of learned dropout's constant


@dataclass(frozen=True)
class Clock:
    """`slower` is s, `shift` b in nats; `off` the root mean square of what the two leave."""

    slower: float
    shift: float
    off: float


def clock(record: Finished, none: Finished) -> Clock | None:
    """The least squares over the row's evaluations from FIRST_EPOCH on; None with fewer than LEAST.

    None's loss is read with a straight line between its evaluations, and nowhere outside of them: an s
    that needs more of it than there is counts the points for which it suffices.
    """
    (epochs, val), (there, without) = _curve(record), _curve(none)
    late = epochs >= FIRST_EPOCH
    epochs, val = epochs[late], val[late]

    def left(s: float) -> np.ndarray | None:
        """The differences that b is the mean of."""
        at = epochs / s
        known = (at >= there[0]) & (at <= there[-1])
        if known.sum() < LEAST:
            return None
        return val[known] - np.interp(at[known], there, without)

    def spread(s: float) -> float:
        differences = left(s)
        return np.inf if differences is None else float(np.var(differences))

    grid = np.arange(FASTEST, SLOWEST + STEP, STEP)
    start = min(grid, key=spread)
    if not np.isfinite(spread(start)):
        return None
    found = optimize.minimize_scalar(
        spread, bounds=(start - STEP, start + STEP), method="bounded", options={"xatol": 1e-6}
    )
    s = float(min((found.x, start), key=spread))
    differences = left(s)
    assert differences is not None
    return Clock(s, float(differences.mean()), float(differences.std()))


def _curve(record: Finished) -> tuple[np.ndarray, np.ndarray]:
    """Epochs and val losses of its evaluations."""
    points = sorted(record.curve, key=lambda point: point.step)
    epochs = [record.metrics.epoch * point.step / record.steps for point in points]
    return np.array(epochs), np.array([point.val for point in points])


@dataclass(frozen=True)
class Slowed:
    """A pair's clocks over its seeds."""

    point: Point
    slower: Interval
    shift: Interval
    off: float

    @property
    def only_slower(self) -> bool:
        """Does b's interval reach zero, within WITHIN?"""
        low, high = self.shift.low, self.shift.high
        reaches = low is not None and high is not None and low <= 0 <= high
        return reaches and abs(self.shift.mean) <= WITHIN


def slowed(point: Point) -> Slowed | None:
    """The clock of each seed that the pair shares; None where one of them has none."""
    own, without = ({r.seed: r for r in row.finished} for row in (point.row, point.none))
    clocks = [clock(own[seed], without[seed]) for seed in point.gains["val"].seeds]
    known = [one for one in clocks if one is not None]
    if len(known) < len(clocks):
        return None
    return Slowed(
        point,
        mean_interval([one.slower for one in known]),
        mean_interval([one.shift for one in known]),
        float(np.mean([one.off for one in known])),
    )


def clocks(found: Iterable[Point]) -> list[Slowed]:
    """Of the pairs whose seeds all have one."""
    return [one for point in found if (one := slowed(point))]


def clock_figure(pairs: Sequence[Slowed]) -> Figure:
    """b by s of every pair: what only learns more slowly lies on the line."""
    figure, axes = plt.subplots(figsize=(6.8, 4.4), layout="constrained")
    axes.axhline(0, color=GREY, lw=0.8)
    axes.axvline(1, color=GREY, lw=0.8)
    for kind, color in {OTHERS: "#bbbbbb", **COLORS}.items():
        own = [one for one in pairs if _shown_as(one) == kind]
        if not own:
            continue
        slower, shift = [one.slower for one in own], [one.shift for one in own]
        axes.errorbar(
            [s.mean for s in slower], [b.mean for b in shift], label=kind, fmt="o", color=color,
            xerr=[_half(s) for s in slower], yerr=[_half(b) for b in shift],
            ecolor=(color, 0.35), mec="white", ms=6,
        )  # fmt: skip
    axes.set_xlabel("s: how much slower its clock is than none's", fontsize=9)
    axes.set_ylabel("b: what is left, nats a token", fontsize=9)
    axes.tick_params(labelsize=8, color=GREY)
    figure.legend(
        loc="outside lower center", ncols=4, frameon=False, fontsize=8, title_fontsize=8,
        title=f"a setting a point, with {LEVEL:.0%} intervals over seeds; on the line a dropout does "
        "nothing but slow",
    )  # fmt: skip
    return figure


def _shown_as(one: Slowed) -> str:
    return one.point.kind if one.point.kind in COLORS else OTHERS


def slower_clock(pairs: Sequence[Slowed]) -> str:
    """The section: by kind, on the surface and elsewhere, and the whole list; nothing without pairs."""
    if not pairs:
        return ""
    grouped = defaultdict[tuple[str, str], list[Slowed]](list)
    for one in pairs:
        where = "surface" if one.point.table.startswith("surface_") else "elsewhere"
        grouped[_shown_as(one), where].append(one)
    rows = []
    for kind, where in product((*COLORS, OTHERS), ("surface", "elsewhere")):
        if own := grouped[kind, where]:
            slower = _span([one.slower.mean for one in own], "{:.2f}".format)
            shift = _span([one.shift.mean for one in own], signed)
            off, only = median(one.off for one in own), sum(one.only_slower for one in own)
            rows.append([kind, where, str(len(own)), slower, shift, loss(off), str(only)])
    text = (
        "A row's val loss read as none's at an earlier epoch plus a constant, V(e) = V_none(e / s) + "
        f"b, fitted by seed to its evaluations from epoch {FIRST_EPOCH} on; beside none of the same "
        "setting, the pairs of `answer.md`. A dropout that only learns more slowly has s above 1 and b "
        "of zero; one that generalises better has b below zero. Off is what the fit leaves, root mean "
        "square. The surface's cells were looked at first, and what the others would say was written "
        f"in the log before they were. Only slower: b's {LEVEL:.0%} interval reaches zero, within "
        f"{WITHIN:g}."
    )
    header = ["kind", "where", "settings", "s", "b", "off, median", "only slower"]
    whole = [
        [
            one.point.kind, one.point.table, one.point.none.row.label, str(one.point.n),
            loss(one.point.gap), f"{one.slower.mean:.2f}", _bounds(one.slower),
            signed(one.shift.mean), bounds(one.shift), loss(one.off),
        ]
        for one in pairs
    ]  # fmt: skip
    interval = f"{LEVEL:.0%} interval"
    columns = ["kind", "table", "beside", "n", "gap", "s", interval, "b", interval, "off"]
    return (
        f"## Is it a slower clock?\n\n{text}\n\n![Clocks](figures/clock.svg)\n\n"
        f"{markdown(header, rows, left=(1,))}\n\n"
        f"<details><summary>All pairs</summary>\n\n{markdown(columns, whole, left=(1, 2))}\n\n"
        "</details>"
    )


def _half(interval: Interval) -> float:
    return 0.0 if interval.high is None else interval.high - interval.mean


def _bounds(interval: Interval) -> str:
    assert interval.low is not None and interval.high is not None  # three seeds or more
    return f"[{interval.low:.2f}, {interval.high:.2f}]"


def _span(values: Sequence[float], shape: Callable[[float], str]) -> str:
    return " to ".join(dict.fromkeys(map(shape, (min(values), max(values)))))
