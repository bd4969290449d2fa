"""The pictures: one idea each, told apart without colour."""

from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LinearSegmentedColormap, ListedColormap
from matplotlib.figure import Figure
from torch import Tensor

from inspection.gradients import UnitGradients
from inspection.measure import Change, Expectation, PrefixChange
from inspection.observe import Observed, label
from inspection.passage import COLORS

INK, GREY, PALE, ACCENT = "#1c2b3a", "#8a939c", "#e6e9ec", "#b85c00"
# From pale to dark in one direction, so that a greyscale print keeps the order.
DEPTH = LinearSegmentedColormap.from_list("depth", ["#a9c9e8", "#3f7cb8", "#0f2d52"])
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "svg.hashsalt": "masks",  # the same picture gives the same bytes
}
WIDTH = 8.6  # inches
MANY = 6  # modules that lines can still tell apart


def drawn(draw: Callable[..., Figure], *arguments: Any, **options: Any) -> str:
    """The SVG that a drawing function makes, in this module's style."""
    with matplotlib.rc_context(STYLE):
        figure = draw(*arguments, **options)
        text = StringIO()
        figure.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None})
    return text.getvalue()


def draw_batch_mask(mask: Tensor) -> Figure:
    """`mask` (samples, units): which unit is dropped in which sample, and how many are."""
    n_sample, n_unit = mask.shape
    figure = Figure(figsize=(WIDTH, 1.1 + 0.19 * n_sample), layout="constrained")
    units, counts = figure.subplots(1, 2, width_ratios=[5, 1.4], sharey=True)
    units.imshow(mask.numpy(), cmap=ListedColormap(["white", INK]), vmin=0, vmax=1, aspect="auto")
    units.set_yticks(range(n_sample), [str(i + 1) for i in range(n_sample)])
    for edge in range(1, n_sample):
        units.axhline(edge - 0.5, color=GREY, linewidth=0.4)
    units.spines[["top", "right"]].set_visible(True)
    units.set(xlabel="unit", ylabel="sample", title="dark: kept, white: dropped")
    dropped = (mask == 0).sum(1)
    counts.barh(range(n_sample), dropped.numpy(), color=PALE, edgecolor=GREY, linewidth=0.6)
    for row, count in enumerate(dropped.tolist()):
        counts.text(count + 0.02 * n_unit, row, str(int(count)), va="center", fontsize=8.5)
    counts.set(xlabel="units dropped", xlim=(0, max(1.0, 1.2 * dropped.max().item())))
    counts.tick_params(axis="y", length=0, labelleft=False)
    counts.set_title(f"of {n_unit}")
    return figure


def draw_expectation(seen: Expectation) -> Figure:
    """Mean over draws against the input; for a learned mask, against M times the input too."""
    hidden, output = seen.hidden.numpy(), seen.output.numpy()
    figure = Figure(figsize=(5.2 if seen.soft_mask is None else WIDTH, 3.7), layout="constrained")
    if seen.soft_mask is None:
        ax = figure.subplots()
        ax.scatter(hidden, seen.masked.numpy(), facecolors="none", edgecolors=ACCENT, s=18,
                   label="mask × input")  # fmt: skip
        ax.scatter(hidden, output, color=INK, s=12, label="output")
        ax.legend(loc="lower right")
        _draw_identity(ax, hidden, "input")
    else:
        ax, right = figure.subplots(1, 2, sharey=True)
        points = ax.scatter(hidden, output, c=seen.soft_mask.numpy(), cmap=DEPTH, vmin=0, vmax=1,
                            s=18, edgecolors=GREY, linewidths=0.4)  # fmt: skip
        figure.colorbar(points, ax=ax, location="top", label="soft mask M", shrink=0.7, aspect=40)
        expected = seen.soft_mask.numpy() * hidden
        right.scatter(expected, output, color=INK, s=16)
        _draw_identity(ax, hidden, "input")
        _draw_identity(right, expected, "M × input")
    ax.set_ylabel(f"mean output of {seen.n_draw:,} draws" if seen.soft_mask is not None
                  else f"mean of {seen.n_draw:,} draws")  # fmt: skip
    return figure


def _draw_identity(ax: Axes, x: np.ndarray, name: str) -> None:
    ends = [x.min().item(), x.max().item()]
    ax.plot(ends, ends, color=GREY, linewidth=0.9, linestyle="--", zorder=0)
    ax.text(0.03, 0.94, f"dashed: mean = {name}", transform=ax.transAxes, color="#5c6873")
    ax.set_xlabel(name)


def draw_gradients(seen: UnitGradients) -> Figure:
    """The norm of the gradient of each unit's weights; units dropped in all samples stand out."""
    norm, dropped = seen.gradient.norm(dim=1).numpy(), seen.dropped.numpy()
    figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
    ax = figure.subplots()
    unit = np.arange(len(norm))
    ax.bar(unit[~dropped], norm[~dropped], color=INK, width=0.8, label="kept in some sample")
    ax.bar(unit[dropped], norm[dropped], color="white", edgecolor=ACCENT, hatch="////", width=0.8,
           label="dropped in all")  # fmt: skip
    height = norm.max().item() or 1.0  # all zero where every sample drops all units
    ax.plot(unit[dropped], np.full_like(norm[dropped], -0.045 * height), "^", color=ACCENT,
            markersize=4.5, clip_on=False)  # fmt: skip
    ax.set(xlim=(-1, len(norm)), ylim=(-0.09 * height, 1.05 * height))
    ax.set(xlabel="unit", ylabel="norm of the gradient\nof the unit's weights")
    ax.legend(loc="upper right", ncols=2, bbox_to_anchor=(1, 1.16))
    return figure


def draw_ones_history(
    histories: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
) -> Figure:
    """`histories[mode][key]` is (steps, ones): a panel a mode, a line or row a module."""
    some = next(iter(histories.values()))
    figure = Figure(figsize=(WIDTH, height_of(len(some))), layout="constrained")
    axes = figure.subplots(1, len(histories), sharey=True, squeeze=False)[0]
    for ax, (mode, modules) in zip(axes, histories.items(), strict=True):
        steps = np.array(next(iter(modules.values()))[0])
        rows = {label(key, modules): np.array(ones) for key, (_, ones) in modules.items()}
        ax.set(xlabel="step", title=mode)
        if len(rows) <= MANY:
            ax.set_ylim(0, 1.02)
            draw_lines(ax, steps, rows)
            axes[0].set_ylabel("share of ones")
        else:
            mesh = draw_rows(ax, steps, rows, highest=1.0)
    if len(some) > MANY:
        figure.colorbar(mesh, ax=list(axes), label="share of ones", shrink=0.6, aspect=30)
    return figure


def draw_histograms(observed: Mapping[str, Observed]) -> Figure:
    """Soft masks by module: how many stand near 0, near 1 and between."""
    columns = min(4, len(observed))
    rows = -(-len(observed) // columns)
    figure = Figure(figsize=(WIDTH, 0.5 + 1.9 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for empty in range(len(observed), axes.size):
        axes.flat[empty].remove()
        axes.flat[empty - columns].tick_params(labelbottom=True)  # the lowest of its column
    for ax, (key, seen) in zip(axes.flat, observed.items(), strict=False):
        assert seen.soft_mask is not None
        soft = seen.soft_mask.flatten().cpu().numpy()
        ax.hist(soft, bins=25, range=(0, 1), weights=np.full_like(soft, 1 / len(soft)), color=INK)
        ax.axvline(0.5, color=ACCENT, linewidth=1, linestyle="--")
        ax.set_title(f"{label(key, observed)}\n{(soft >= 0.5).mean():.0%} at ½ or above")
        ax.set_xticks([0, 0.5, 1], ["0", "½", "1"])
    figure.supxlabel("soft mask M", fontsize=9.5)
    figure.supylabel("share of units", fontsize=9.5)
    return figure


def draw_prefix_change(seen: PrefixChange) -> Figure:
    """Share of mask units that differ between two texts, around their first different token."""
    figure = Figure(figsize=(WIDTH, height_of(len(seen.learned) + 1)), layout="constrained")
    ax = figure.subplots()
    offset, random = seen.offset.numpy(), seen.random.numpy()
    rows = {label(key, seen.learned): share.numpy() for key, share in seen.learned.items()}
    told = "share of units whose mask differs"
    if len(rows) <= MANY:
        ax.set(ylim=(-0.012, 1.05 * max(random.max(), *(row.max() for row in rows.values()))))
        ax.plot(offset, random, color=ACCENT, linewidth=1.4, linestyle=":")
        ax.annotate("random mask", (offset[0], random[0]), (2, 6), color=ACCENT,
                    textcoords="offset points")  # fmt: skip
        draw_lines(ax, offset, rows)
        ax.set_ylabel(told)
    else:
        mesh = draw_rows(ax, offset, {"random mask": random} | rows)
        figure.colorbar(mesh, ax=ax, label=told, shrink=0.6, aspect=30)
    ax.axvline(0 if len(rows) <= MANY else -0.5, color=GREY, linewidth=0.9, linestyle="--")
    ax.set_xlabel("position, from the first different token")
    return figure


def draw_input_dependence(changes: Mapping[str, Mapping[str, Change]]) -> Figure:
    """For each module: the share of a mask that another input changes and the same one does not."""
    styles = {"evaluation": (INK, "o", "learned, evaluation"),
              "training": ("#3f7cb8", "s", "learned, training"),
              "random": (ACCENT, "^", "random, same rate of each unit")}  # fmt: skip
    figure = Figure(figsize=(WIDTH, 1.3 + 0.52 * len(changes)), layout="constrained")
    ax = figure.subplots()
    for shift, (mode, (color, marker, name)) in zip((-0.24, 0, 0.24), styles.items(), strict=True):
        due = [modes[mode].due_to_input for modes in changes.values()]
        y = np.arange(len(changes)) + shift
        ax.barh(y, due, height=0.12, color=color, alpha=0.45)
        ax.plot(due, y, marker, color=color, markersize=6, label=name)
    ax.axvline(0, color=GREY, linewidth=0.9)
    ax.set_yticks(range(len(changes)), [label(key, changes) for key in changes])
    ax.set(ylim=(len(changes) - 0.5, -0.5))
    ax.set_xlabel("share of units that another input changes, and the same input again does not")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    return figure


def shades(count: int) -> list[Any]:
    """`count` colours, darker for later (deeper) modules."""
    return [DEPTH(i / max(1, count - 1)) for i in range(count)]


def height_of(n_module: int) -> float:
    """Inches of a picture with a line a module, or a row where they are many."""
    return 3.4 if n_module <= MANY else 1.2 + 0.24 * n_module


def draw_lines(ax: Axes, x: np.ndarray, lines: Mapping[str, np.ndarray]) -> None:
    """A line each, darker for deeper modules, its name at its end and apart from the others."""
    for (name, y), color in zip(lines.items(), shades(len(lines)), strict=True):
        ax.plot(x, y, color=color, linewidth=1.6, label=name)
    low, high = ax.get_ylim()
    least = -float("inf")
    for name, y in sorted(lines.items(), key=lambda line: line[1][-1]):
        least = max(float(y[-1]), least + 0.055 * (high - low))
        ax.annotate(
            name, (x[-1], least), (4, 0), va="center", textcoords="offset points", fontsize=8.5
        )


def draw_rows(
    ax: Axes, x: np.ndarray, rows: Mapping[str, np.ndarray], highest: float | None = None
) -> QuadMesh:
    """A row of shades each, from pale at 0 to dark: where lines would be too many to tell apart."""
    mesh = ax.pcolormesh(x, range(len(rows)), np.stack(list(rows.values())), cmap=COLORS, vmin=0,
                         vmax=highest, shading="nearest")  # fmt: skip
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set_ylim(len(rows) - 0.5, -0.5)
    return mesh
