"""A study's history as a figure: what each trial came to, and the best so far."""

from itertools import accumulate
from pathlib import Path
from statistics import median

import matplotlib
import optuna
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.trial import TrialState

from experiments.figures import GREY, save
from experiments.looks import LOOKS
from search.study import complete, results

ROOM = 4  # times the way from the best to the median trial: what is higher stands at the edge


def history(study: optuna.Study) -> Figure:
    """Val loss by trial; pruned trials are open marks at the lowest loss that they had reached."""
    trials = [trial for trial in results(study) if trial.value is not None]
    done = complete(study)
    values = [trial.value for trial in done if trial.value is not None]
    best, middle = min(values), median(values)
    top = best + (ROOM * (middle - best) or 0.1)
    figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
    look = LOOKS[1]
    axes.step(
        [trial.number for trial in done], list(accumulate(values, min)), where="post",
        color=GREY, lw=1.2,
    )  # fmt: skip
    for trial in trials:
        assert trial.value is not None
        marker = look.marker if trial.value <= top else "^"
        fill = look.color if trial.state == TrialState.COMPLETE else "white"
        axes.plot(trial.number, min(trial.value, top), marker, color=look.color, mfc=fill, ms=6)
    winner = study.best_trial.number
    axes.annotate(f"{best:.3f}", (winner, best), xytext=(0, -8), textcoords="offset points",
                  ha="center", va="top", fontsize=8)  # fmt: skip
    axes.set_ylim(best - 0.15 * (top - best), top + 0.05 * (top - best))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("val loss at the best checkpoint,\nnats a token, mean over seeds")
    axes.set_xlabel(
        "trial\nline: best so far; open: pruned, at its lowest; triangle: higher than the picture"
    )
    return figure


def draw(study: optuna.Study, path: Path) -> None:
    """Write the figure as SVG; the same study gives the same bytes."""
    matplotlib.use("agg")
    save(lambda: history(study), path)
