"""The part of a table's page that sets its rows beside each other."""

from collections.abc import Iterable, Sequence

from experiments.formats import bounds, markdown, p_value, seed_list, signed
from experiments.runs import Compared, Table, compared_with
from experiments.sections import PERCENT, has
from experiments.spec import Comparison
from experiments.statistics import ALPHA, MIN_SEEDS, PairedDifference

OUTCOMES = {
    "val": "final val loss",
    "best_val": "best val loss",
    "val_ema": "val loss of the averaged weights",
    "test": "final test loss",
    "best_test": "test loss of the best checkpoint",
    "test_ema": "test loss of the averaged weights",
}
# Read off the curves of the losses that they are of.
AT_EQUAL_TRAIN = {"equal_train": "val", "equal_train_ema": "val_ema"}
NAMES = OUTCOMES | {
    "equal_train": "val loss at equal train loss",
    "equal_train_ema": "val loss of the averaged weights at equal train loss",
}
CHOSEN_BY = {
    "test": "val",
    "best_test": "best_val",
    "test_ema": "val_ema",
    **AT_EQUAL_TRAIN,
}  # no choice is made on the test split, nor by what takes two rows to say
EQUAL_TRAIN_MEANS = (
    "Each pair where both had the lowest train loss that both reached, on the way or at the end, so "
    "that what is gained by learning more slowly is left out. One evaluation of the last weights "
    "jitters; averaged ones say it better. Pairs are read at levels of their own: do not compare two."
)


def differences(table: Table, metrics: Iterable[str] = NAMES) -> str:
    """Every comparison of the table: val, then test, then val at equal train loss."""
    text = (
        "Row minus the other, seed by seed: below zero, the row is better. Rows of one seed share "
        "batches and, where shapes agree, initial weights; all share the windows. Intervals are "
        f"{PERCENT}, Student's t; p is the paired t test's, Holm-corrected over its table. *Lower* "
        f"and *higher* are said only from {MIN_SEEDS} shared seeds on, where the interval leaves "
        f"out zero and p is below {ALPHA:.2f}."
    )
    parts = [f"## Paired differences\n\n{text}"]
    for metric in (metric for metric in metrics if has(table, AT_EQUAL_TRAIN.get(metric, metric))):
        parts += [_comparison(table, comparison, metric) for comparison in table.spec.comparisons]
    return "\n\n".join(parts)


def _comparison(table: Table, comparison: Comparison, metric: str) -> str:
    chosen_by = CHOSEN_BY.get(metric, metric)
    other, compared = compared_with(table, comparison, metric, chosen_by)
    name = comparison.name or ("the best" if other is None else table.rows[other].row.label)
    title = f"### {NAMES[metric].capitalize()}, against {name}"
    if other is None:
        return f"{title}\n\nNot there yet: its rows share no finished seed to choose by."
    texts = [EQUAL_TRAIN_MEANS] if metric in AT_EQUAL_TRAIN else []
    if comparison.best_of:
        own = chosen_by == metric
        labels = ", ".join(table.rows[row].row.label for row in comparison.best_of)
        texts.append(
            f"Chosen: **{table.rows[other].row.label}**, lowest in mean {NAMES[chosen_by]} of "
            f"{labels}." + " It was chosen on these same runs, which favours it a little." * own
        )
    known = [(one, one.difference) for one in compared if one.difference is not None]
    if not known:
        return f"{title}\n\nNo other row has a seed in common with it."
    header = ["row", "difference", f"{PERCENT} interval", "p (Holm)", "n", "verdict"]
    texts.append(markdown(header, [_cells(*one) for one in known], left=(5,)))
    if without := len(compared) - len(known):
        texts.append(f"Without a seed in common here: {without} row{'s' * (without > 1)} more.")
    texts += _common_seeds(compared)
    return "\n\n".join([title, *texts])


def _cells(one: Compared, difference: PairedDifference) -> list[str]:
    interval = difference.interval
    numbers = [signed(interval.mean), bounds(interval), p_value(one.p), str(interval.n)]
    return [one.row.row.label, *numbers, one.reading]


def _common_seeds(compared: Sequence[Compared]) -> list[str]:
    """Says which differences leave seeds out because the other row lacks them."""
    partial = [
        f"{one.row.row.label}: {seed_list(one.difference.seeds)}"
        for one in compared
        if one.difference is not None
        and set(one.difference.seeds) != {*one.row.seeds, *one.other.seeds}
    ]
    if not partial:
        return []
    return [f"Over common seeds only, where one side lacks some: {'; '.join(partial)}."]
