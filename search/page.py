"""A study's page in Markdown: its best trials, and how to train the winner anew."""

import math
import shlex
from collections.abc import Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState

from experiments.formats import code, loss, markdown, plain
from search.space import Space
from search.study import complete

N_BEST = 10
N_NEW_SEEDS = 6
EDGE = 0.05  # of a range: a winner this near its end may have its best beyond
TUNED = "tuned_${scale}"  # the table of all studies' winners; train.py fills the scale in


def render(study: optuna.Study, space: Space, common: Sequence[str], command: str) -> str:
    """The page: how many trials there were, the best, and the winner's command."""
    done = complete(study)
    parts = [f"# Search: {plain(space.title)}", f"Made by {code(command)}.", counts(study)]
    if done:
        parts += [
            "![History](history.svg)",
            "## Best trials",
            _best(done, space),
            _edges(study.best_trial, space),
            "## The winner, with new seeds",
            "Its loss above is the lowest of many, on the seeds that it was chosen by: too low as an "
            "estimate of what it does. These runs are one:",
            f"    {retrain(study, space, common)}",
            "Winners of all studies at one scale gather in `runs/tuned_<scale>`: "
            "`python -m experiments.table --runs runs/tuned_<scale>`.",
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def counts(study: optuna.Study) -> str:
    """How many trials there are, by what became of them."""
    trials = study.get_trials(deepcopy=False)
    number = {state: sum(t.state == state for t in trials) for state in TrialState}
    diverged = sum(t.state == TrialState.PRUNED and "why" in t.user_attrs for t in trials)
    said = {
        "complete": number[TrialState.COMPLETE],
        "pruned": number[TrialState.PRUNED] - diverged,
        "not finite": diverged,
        "failed": number[TrialState.FAIL],
        "cut off": number[TrialState.RUNNING],
    }
    return "Trials: " + ", ".join(f"{n} {what}" for what, n in said.items() if n) + "."


def _best(done: Sequence[FrozenTrial], space: Space) -> str:
    """A table; the value is the mean over seeds of the val loss at the best checkpoint."""
    first = sorted(done, key=lambda t: (t.value, t.number))[:N_BEST]
    header = ["trial", "val, mean", *(f"seed {seed}" for seed in space.seeds), "overrides"]
    rows = [
        [
            str(trial.number),
            loss(trial.value),
            *(loss(trial.user_attrs["values"].get(str(seed))) for seed in space.seeds),
            code(shlex.join(space.told(trial.params))),
        ]
        for trial in first
    ]
    text = "Val loss in nats a token at each run's best checkpoint, over all windows; lowest first."
    return f"{text}\n\n{markdown(header, rows, left=[len(header) - 1])}"


def _edges(best: FrozenTrial, space: Space) -> str:
    """Which of the winner's parameters lie at an end of their range."""
    near = []
    for name, one in space.parameters.items():
        if one.low is None or one.high is None:
            continue
        place = math.log if one.log else float
        at, low, high = map(place, (best.params[name], one.low, one.high))
        if min(at - low, high - at) <= EDGE * (high - low):
            near.append(f"{code(name)} ({one.low:g} to {one.high:g})")
    if not near:
        return ""
    return f"**At the edge of its range:** {', '.join(near)}. The best may lie beyond: widen it."


def retrain(study: optuna.Study, space: Space, common: Sequence[str]) -> str:
    """The sweep that trains the winner with seeds that the search has not seen."""
    first = max(space.seeds) + 1
    seeds = ",".join(str(seed) for seed in range(first, first + N_NEW_SEEDS))
    overrides = [*common, *space.told(study.best_trial.params)]
    names = [f"table_name={TUNED}", f"row_name={study.study_name}", f"seed={seeds}"]
    return shlex.join(["python", "train.py", "-m", *overrides, *names])
