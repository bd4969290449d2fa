"""A picture of a run's losses in its directory, for the one who just waited for them."""

from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from common.files import write_atomically

# A run shorter than this is not worth the second that matplotlib's import and the drawing take.
SHORTEST_S = 20.0


def draw_curve(record: Mapping[str, Any], folder: Path) -> Path | None:
    """Write `curve.svg`: train and val loss by step; returns its path, None for a short run.

    A finished run's is not drawn again.
    """
    path = folder / "curve.svg"
    if path.exists():
        return path
    points: Sequence[Mapping[str, Any]] = record["curve"]
    if record["time_s"] < SHORTEST_S or len(points) < 3:
        return None

    import matplotlib
    from matplotlib.figure import Figure

    steps = [point["step"] for point in points]
    style: Any = {"svg.hashsalt": "curve", "axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained", facecolor="white")
        axes = figure.subplots()
        for split, color, line in (("train", "#6b6b6b", "--"), ("val", "#0072B2", "-")):
            losses = [_height(point.get(f"{split}/loss_nats")) for point in points]
            axes.plot(steps, losses, line, color=color, label=split)
        best = min((p for p in points if p["val/loss_nats"] is not None), key=_val, default=None)
        if best is not None:
            lowest = f"lowest val: {_val(best):.3f} at step {best['step']:,}"
            axes.plot(best["step"], _val(best), "o", color="#0072B2", label=lowest)
        axes.legend(frameon=False)
        axes.set(xlabel="step", ylabel="loss, nats a token")
        axes.set_title(f"{record['row']}, seed {record['seed']}", loc="left", fontsize=10)
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    write_atomically(path, text.getvalue())
    return path


def _val(point: Mapping[str, Any]) -> float:
    return float(point["val/loss_nats"])


def _height(loss: float | None) -> float:
    """A gap where a loss was not finite."""
    return float("nan") if loss is None else loss
