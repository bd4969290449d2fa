"""The parts of a table's page that speak of our own runs, each a Markdown text."""

from collections.abc import Sequence

from experiments.formats import (
    NOTHING,
    bounds,
    cell,
    count,
    duration,
    loss,
    markdown,
    memory,
    p_value,
    quantity,
    seed_list,
    share,
    signed,
)
from experiments.runs import Compared, RowRuns, Table, compared_with
from experiments.spec import Comparison
from experiments.statistics import ALPHA, LEVEL, MIN_SEEDS, root_mean_square

PERCENT = f"{LEVEL:.0%}"
OUTCOMES = {
    "val": "final val loss",
    "best_val": "best val loss",
    "test": "final test loss",
    "best_test": "test loss of the best checkpoint",
}
CHOSEN_BY = {"test": "val", "best_test": "best_val"}  # no choice is made on the test split


def _rows(table: Table, width: int, cells: dict[str, list[str]]) -> list[list[str]]:
    """A line for each row; those without a finished run say why in the first cell."""
    lines = []
    for name, runs in table.rows.items():
        blank = [runs.state] + [NOTHING] * (width - 1)
        lines.append([runs.row.label, *cells.get(name, blank)])
    return lines


def _finished(table: Table) -> dict[str, RowRuns]:
    return {name: runs for name, runs in table.rows.items() if runs.finished}


def final_loss(table: Table) -> str:
    """Train and val loss after the last step, ones, and n."""
    has_ones = any(runs.values("ones") for runs in table.rows.values())
    has_bytes = any(runs.values("bits_per_byte") for runs in table.rows.values())
    header = ["row", "n", "train", "val", f"{PERCENT} interval of val"]
    header += ["bits per byte"] * has_bytes + ["ones", "ones, evaluation"] * has_ones
    cells = {}
    for name, runs in _finished(table).items():
        cells[name] = [str(len(runs.finished)), loss(runs.mean("train")), loss(runs.mean("val"))]
        cells[name] += [_interval(runs, "val")]
        cells[name] += [loss(runs.mean("bits_per_byte"))] * has_bytes
        cells[name] += [share(runs.mean("ones")), share(runs.mean("eval_ones"))] * has_ones
    text = (
        "Mean cross-entropy in nats a token over n seeds, in evaluation mode, after the last step. "
        "The interval is Student's t over seeds."
    )
    if any(len(runs.finished) == 1 for runs in table.rows.values()):
        text += (
            " One seed has no such interval: ± is then the standard error of its evaluation "
            "windows alone, which says nothing about another seed."
        )
    if has_ones:
        text += (
            " Ones is the share of ones in the rounded masks: of one stochastic draw as in "
            "training, and of evaluation's rounding."
        )
    return f"## Final loss\n\n{text}\n\n{markdown(header, _rows(table, len(header) - 1, cells))}"


def _interval(runs: RowRuns, metric: str) -> str:
    if len(runs.finished) > 1:
        return bounds(runs.interval(metric))
    return f"one seed, ± {loss(runs.mean(f'{metric}_stderr'))}"


def best_loss(table: Table) -> str:
    """The lowest val loss on the way and where it was: what early stopping would have kept."""
    header = ["row", "best val", f"{PERCENT} interval", "at step", "train there", "final − best"]
    cells = {}
    for name, runs in _finished(table).items():
        best, final = runs.mean("best_val"), runs.mean("val")
        steps = sorted(int(step) for step in runs.values("best_step").values())
        at = count(steps[0]) if steps[0] == steps[-1] else f"{count(steps[0])}–{count(steps[-1])}"
        rise = NOTHING if best is None or final is None else signed(final - best)
        interval = bounds(runs.interval("best_val")) if len(runs.finished) > 1 else "one seed"
        cells[name] = [loss(best), interval, at, loss(runs.mean("best_train")), rise]
    text = (
        "The lowest val loss among a run's evaluations, as early stopping would have kept it. It "
        "is chosen on the windows that measure it, so it flatters every row a little; and these "
        "are fewer than the final loss has."
    )
    return f"## Best val loss\n\n{text}\n\n{markdown(header, _rows(table, len(header) - 1, cells))}"


def test_loss(table: Table) -> str:
    """Loss of the last and the best checkpoint on the held-out split; empty before it is read."""
    if not _has(table, "test"):
        return ""
    header = ["row", "n", "final", f"{PERCENT} interval", "bits per byte"]
    header += ["best checkpoint", f"{PERCENT} interval"]
    cells = {}
    for name, runs in _finished(table).items():
        several = len(runs.values("test")) > 1
        cells[name] = [
            str(len(runs.values("test"))),
            loss(runs.mean("test")),
            bounds(runs.interval("test")) if several else "one seed",
            loss(runs.mean("test_bits_per_byte")),
            loss(runs.mean("best_test")),
            bounds(runs.interval("best_test")) if several else "one seed",
        ]
    text = (
        "The split that no choice was made on, read once for each run after all was done. Final is "
        "the model after the last step; the best checkpoint is the one of the lowest val loss, "
        "which is chosen on val and so is not flattered here."
    )
    table_text = markdown(header, _rows(table, len(header) - 1, cells))
    return f"## Held-out test loss\n\n{text}\n\n{table_text}"


def _has(table: Table, metric: str) -> bool:
    return any(runs.values(metric) for runs in table.rows.values())


def certainty(table: Table) -> str:
    """Seed-to-seed spread beside the evaluation windows' own sampling error."""
    header = ["row", "spread, train", "spread, val", "windows, train", "windows, val"]
    cells = {}
    for name, runs in _finished(table).items():
        spreads = [runs.interval(metric) for metric in ("train", "val")]
        errors = [runs.values(f"{metric}_stderr").values() for metric in ("train", "val")]
        cells[name] = [
            *(loss(None if spread is None else spread.sd) for spread in spreads),
            *(loss(root_mean_square(error)) for error in errors),
        ]
    text = (
        "Spread is the standard deviation from seed to seed; windows is the standard error that "
        "one run's figure has from its sample of evaluation windows. Each seed draws its own "
        "windows, so the spread contains that error; rows of one seed share them, so paired "
        "differences have less of it."
    )
    table_text = markdown(header, _rows(table, len(header) - 1, cells))
    return f"## How sure one figure is\n\n{text}\n\n{table_text}"


def differences(table: Table) -> str:
    """Every comparison of the table, in the final and the best loss, of val and then of test."""
    text = (
        "Row minus the other, seed by seed: below zero, the row is better. Rows of one seed share "
        "batches, evaluation windows and, where shapes agree, initial weights. Intervals are "
        f"{PERCENT}, Student's t; p is the paired t test's, Holm-corrected over its table. *Lower* "
        f"and *higher* are said only from {MIN_SEEDS} shared seeds on, where the interval leaves "
        f"out zero and p is below {ALPHA:.2f}."
    )
    parts = [f"## Paired differences\n\n{text}"]
    for metric in (metric for metric in OUTCOMES if _has(table, metric)):
        parts += [_comparison(table, comparison, metric) for comparison in table.spec.comparisons]
    return "\n\n".join(parts)


def _comparison(table: Table, comparison: Comparison, metric: str) -> str:
    chosen_by = CHOSEN_BY.get(metric, metric)
    other, compared = compared_with(table, comparison, metric, chosen_by)
    name = comparison.name or ("the best" if other is None else table.rows[other].row.label)
    title = f"### {OUTCOMES[metric].capitalize()}, against {name}"
    if other is None:
        return f"{title}\n\nNot there yet: its rows share no finished seed to choose by."
    texts = []
    if comparison.best_of:
        own = chosen_by == metric
        labels = ", ".join(table.rows[row].row.label for row in comparison.best_of)
        texts.append(
            f"Chosen: **{table.rows[other].row.label}**, lowest in mean {OUTCOMES[chosen_by]} of "
            f"{labels}." + " It was chosen on these same runs, which favours it a little." * own
        )
    header = ["row", "difference", f"{PERCENT} interval", "p (Holm)", "n", "verdict"]
    texts.append(markdown(header, [_difference_cells(one) for one in compared], left=(5,)))
    texts += _common_seeds(compared)
    return "\n\n".join([title, *texts])


def _difference_cells(one: Compared) -> list[str]:
    if one.difference is None:
        return [one.row.row.label, NOTHING, NOTHING, NOTHING, "0", one.reading]
    interval = one.difference.interval
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


def cost(table: Table) -> str:
    """Size of the models, and what a run took."""
    sizes, runs_took = {}, {}
    for name, runs in _finished(table).items():
        sizes[name] = [
            *(count(runs.mean(metric)) for metric in ("parameters", "trainable")),
            quantity(runs.mean("flops_per_token")),
            f"{runs.mean('epoch'):.1f}",
        ]
        peak = runs.values("memory_bytes").values()
        runs_took[name] = [
            count(runs.mean("tokens_per_s")),
            duration(runs.mean("time_s")),
            memory(max(peak) if peak else None),
        ]
    size_header = ["row", "parameters", "trainable", "FLOPs a token", "epochs"]
    cost_header = ["row", "tokens/s", "wall time", "peak memory"]
    text = (
        "Parameters leave out the positional embedding, as published; trainable ones don't. FLOPs "
        "are of forward and backward; epochs are passes over the training data."
    )
    machines = {
        tuple(
            map(record.get, ("device.name", "device.threads", "device.compiled_kernels", "compile"))
        )
        for record in table.finished
    }
    speed = "Means over seeds; memory is the highest."
    if len(machines) > 1:
        speed += (
            " **Device, threads, kernels or compile differ between these runs: compare no speeds.**"
        )
    return (
        f"## Size and cost\n\n{text}\n\n{markdown(size_header, _rows(table, 4, sizes))}\n\n"
        f"{speed}\n\n{markdown(cost_header, _rows(table, 3, runs_took))}"
    )


def unfinished(table: Table) -> str:
    """Runs that did not finish, with their errors, and rows that were not run; empty if none."""
    lines = []
    for runs in table.rows.values():
        for record in runs.unfinished:
            why = cell(record.error) if record.error else NOTHING
            lines.append([runs.row.label, str(record.seed), record.status, why])
        if not runs.finished and not runs.unfinished:
            lines.append([runs.row.label, NOTHING, "not run", NOTHING])
    if not lines:
        return ""
    header = ["row", "seed", "status", "error"]
    return (
        f"## Not finished\n\n`{table.spec.command}` fills these gaps and leaves the rest.\n\n"
        f"{markdown(header, lines, left=(1, 2, 3))}"
    )
