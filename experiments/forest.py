"""Rows below one another, each with an interval: the frame of such a figure, and its scale."""

from collections.abc import Sequence

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

WILD = 10  # times the usual row's span: what is wider leaves the picture
GREY = "#6b6b6b"


def forest(n: int, width: float = 6.4) -> tuple[Figure, Axes]:
    """Axes with a line for each of n rows, first on top."""
    figure, axes = plt.subplots(figsize=(width, 0.34 * n + 1.1), layout="constrained")
    axes.set_ylim(n - 0.4, -0.6)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8, color=GREY)
    axes.grid(axis="x", color="#e8e8e8", lw=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def limit(axes: Axes, spans: Sequence[tuple[float, float]], shown: Sequence[float] = ()) -> None:
    """Limits to which one wild row does not stretch the others' scale; where it goes on, an arrow.

    `spans` are the rows' (lowest, highest) values, in the axes' order; `shown` is inside too.
    """
    widths = [high - low for low, high in spans]
    wide = sorted(width for width in widths if width > 0)  # a row of one seed has no width
    usual = wide[len(wide) // 2] if wide else 0.0
    tame = [span for span, width in zip(spans, widths, strict=True) if width <= WILD * usual]
    low, high = min([*shown, *(a for a, _ in tame)]), max([*shown, *(b for _, b in tame)])
    room = 0.06 * (high - low) or 0.01
    axes.set_xlim(low - room, high + room)
    for place, (first, last) in enumerate(spans):
        for beyond, edge, marker in (
            (first < low - room, low - 0.8 * room, "<"),
            (last > high + room, high + 0.8 * room, ">"),
        ):
            if beyond:
                axes.plot(edge, place, marker, color=GREY, ms=7)
