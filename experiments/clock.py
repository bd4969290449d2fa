"""Is a dropout a slower clock? Its val loss read as none's at an earlier epoch, plus a constant.

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
from scipy import interpolate, optimize

from experiments.forest import GREY
from experiments.formats import NOTHING, bounds, folded, loss, markdown, signed
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
FASTEST, SLOWEST, STEP = 0.5, 4.0, 0.01
# A fit needs so many of the row's evaluations, and this share of them inside none's curve.
LEAST, SHARE = 5, 0.8
WITHIN = 0.03  # what the log expected of learned dropout's constant


@dataclass(frozen=True)
class Clock:
    """`slower` is s, `shift` b in nats; `off` the root mean square of what the two leave."""

    slower: float
    shift: float
    off: float


def clock(record: Finished, none: Finished, averaged: bool = False) -> Clock | None:
    """The least squares over the row's evaluations from FIRST_EPOCH on, of last or averaged weights.

    None's loss is read between its evaluations by cubics that are monotone where those are: straight
    lines would lie above a bent curve, and make b too low. It is read nowhere outside of them. None
    where that leaves too little, or where s would be at an end of what is tried: the two curves then
    do not tell it.
    """
    (epochs, val), (there, without) = (_curve(one, averaged) for one in (record, none))
    late = epochs >= FIRST_EPOCH
    epochs, val = epochs[late], val[late]
    if len(epochs) < LEAST or len(there) < 2:
        return None
    read = interpolate.PchipInterpolator(there, without, extrapolate=False)

    def left(s: float | np.ndarray) -> np.ndarray:
        """The differences that b is the mean of; NaN where none's curve does not reach."""
        return val - read(epochs / np.reshape(s, (-1, 1)))

    def spread(s: float | np.ndarray) -> np.ndarray:
        differences = left(s)
        enough = np.isfinite(differences).sum(axis=1) >= max(LEAST, SHARE * len(epochs))
        found = np.full(len(differences), np.inf)
        found[enough] = np.nanvar(differences[enough], axis=1)
        return found

    tried = np.arange(FASTEST, SLOWEST + STEP / 2, STEP)
    spreads = spread(tried)
    possible = np.flatnonzero(np.isfinite(spreads))
    if not len(possible) or (best := int(np.argmin(spreads))) in (possible[0], possible[-1]):
        return None
    found = optimize.minimize_scalar(
        lambda s: float(spread(s)[0]), method="bounded", options={"xatol": 1e-6},
        bounds=(tried[best] - STEP, tried[best] + STEP),
    )  # fmt: skip
    s = float(found.x if found.fun <= spreads[best] else tried[best])
    differences = left(s)
    return Clock(s, float(np.nanmean(differences)), float(np.nanstd(differences)))


def _curve(record: Finished, averaged: bool) -> tuple[np.ndarray, np.ndarray]:
    """Epochs and val losses of its evaluations; an average is of the steps about its lag ago."""
    known = [
        (point.step, val)
        for point in sorted(record.curve, key=lambda point: point.step)
        if (val := point.val_ema if averaged else point.val) is not None
    ]
    lag = 0.0
    if averaged and known:
        decay = record.config["ema_decay"]
        lag = decay / (1 - decay)
    a_step = record.metrics.epoch / record.steps
    steps, losses = np.array(known).reshape(-1, 2).T
    return (steps - lag) * a_step, losses


@dataclass(frozen=True)
class Slowed:
    """A pair's clocks over its seeds; `averaged` is b of averaged weights, where both have them."""

    point: Point
    slower: Interval
    shift: Interval
    off: float
    averaged: Interval | None

    @property
    def nothing_left(self) -> bool:
        """Is b within WITHIN, its whole interval?"""
        low, high = self.shift.low, self.shift.high
        return low is not None and high is not None and low >= -WITHIN and high <= WITHIN


def slowed(point: Point) -> Slowed | None:
    """The clock of each seed that the pair shares; None where one of them has none."""
    own, without = ({run.seed: run for run in row.finished} for row in (point.row, point.none))

    def each(averaged: bool) -> list[Clock] | None:
        clocks = [clock(own[seed], without[seed], averaged) for seed in point.gains["val"].seeds]
        known = [one for one in clocks if one is not None]
        return known if len(known) == len(clocks) else None

    last, averaged = each(averaged=False), each(averaged=True)
    if last is None:
        return None
    return Slowed(
        point,
        mean_interval([one.slower for one in last]),
        mean_interval([one.shift for one in last]),
        float(np.mean([one.off for one in last])),
        None if averaged is None else mean_interval([one.shift for one in averaged]),
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
        title=f"last weights; a setting a point, with {LEVEL:.0%} intervals over seeds; on the line a "
        "dropout does nothing but slow",
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
            averaged = [one.averaged.mean for one in own if one.averaged is not None]
            rows.append([
                kind, where, str(len(own)), _span([one.slower.mean for one in own], "{:.2f}".format),
                _span([one.shift.mean for one in own], signed),
                str(sum(one.nothing_left for one in own)),
                _span(averaged, signed), loss(median(one.off for one in own)),
            ])  # fmt: skip
    text = (
        "Roughly. A row's val loss is read as none's at an earlier epoch plus a constant, V(e) = "
        f"V_none(e / s) + b, fitted by seed to its evaluations from epoch {FIRST_EPOCH} on; beside "
        "none of the same setting, the pairs of `answer.md`, but those whose curves do not tell s. A "
        "dropout that only learns more slowly has s above 1 and b of zero; one that generalises better "
        "has b below zero, which is nearly how far its lowest val loss is below none's. Off is what "
        "the fit leaves, root mean square, and not noise alone: where much is overfit a row is above "
        "its clock in the middle and below it at both ends, so that b moves by some hundredths with "
        "the first epoch that counts. Averaged weights leave out the jitter, and their b is higher: "
        "what a slow row gains at its end by jittering less is not in it. The surface's cells were "
        "looked at first, and what the others would say was written in the log before they were. "
        f"Nothing left: b's whole {LEVEL:.0%} interval is within {WITHIN:g} of zero."
    )
    header = [
        "kind", "where", "settings", "s", "b", "nothing left", "b, averaged weights", "off, median",
    ]  # fmt: skip
    whole = [
        [
            one.point.kind, one.point.table, one.point.none.row.label, str(one.point.n),
            loss(one.point.gap), f"{one.slower.mean:.2f}", _bounds(one.slower),
            signed(one.shift.mean), bounds(one.shift), *_told(one.averaged), loss(one.off),
        ]
        for one in pairs
    ]  # fmt: skip
    interval = f"{LEVEL:.0%} interval"
    columns = [
        "kind", "table", "beside", "n", "gap", "s", interval, "b", interval, "b, averaged", interval,
        "off",
    ]  # fmt: skip
    return (
        f"## Is it a slower clock?\n\n{text}\n\n![Clocks](figures/clock.svg)\n\n"
        f"{markdown(header, rows, left=(1,))}\n\n"
        f"{folded('All pairs', markdown(columns, whole, left=(1, 2)))}"
    )


def _half(interval: Interval) -> float:
    return 0.0 if interval.high is None else interval.high - interval.mean


def _bounds(interval: Interval) -> str:
    assert interval.low is not None and interval.high is not None  # three seeds or more
    return f"[{interval.low:.2f}, {interval.high:.2f}]"


def _told(interval: Interval | None) -> tuple[str, str]:
    return (NOTHING, NOTHING) if interval is None else (signed(interval.mean), bounds(interval))


def _span(values: Sequence[float], shape: Callable[[float], str]) -> str:
    if not values:
        return NOTHING
    return " to ".join(dict.fromkeys(map(shape, (min(values), max(values)))))
