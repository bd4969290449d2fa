"""The parts of a table's page that speak of our own runs, each a Markdown text."""

from experiments.formats import NOTHING, bounds, count, loss, markdown, plain, share, signed
from experiments.mixing import changes_on_the_way
from experiments.runs import RowRuns, Table
from experiments.statistics import LEVEL, root_mean_square

PERCENT = f"{LEVEL:.0%}"
MOVED, THIN = "†", "‡"  # marks of rows that a note below the table speaks of


def lines_of(
    table: Table, cells: dict[str, list[str]], marks: dict[str, str] | None = None
) -> list[list[str]]:
    """A line for each row that has cells; those without a finished run are under "Not finished"."""
    marked = {name: f" {mark}" for name, mark in (marks or {}).items()}
    rows = [(name, table.rows[name].row.label) for name in table.rows if name in cells]
    return [[label + marked.get(name, ""), *cells[name]] for name, label in rows]


def finished_rows(table: Table) -> dict[str, RowRuns]:
    return {name: runs for name, runs in table.rows.items() if runs.finished}


def final_loss(table: Table) -> str:
    """Train and val loss after the last step, ones, and n."""
    has_ones, has_bytes, has_ema = (has(table, m) for m in ("ones", "bits_per_byte", "val_ema"))
    header = ["row", "n", "train", "val", f"{PERCENT} interval of val"]
    header += ["val, averaged weights"] * has_ema
    header += ["bits per byte"] * has_bytes + ["ones", "ones, evaluation"] * has_ones
    cells = {}
    for name, runs in finished_rows(table).items():
        cells[name] = [str(len(runs.finished)), loss(runs.mean("train")), loss(runs.mean("val"))]
        cells[name] += [_interval(runs, "val")] + [loss(runs.mean("val_ema"))] * has_ema
        cells[name] += [loss(runs.mean("bits_per_byte"))] * has_bytes
        cells[name] += [share(runs.mean("ones")), share(runs.mean("eval_ones"))] * has_ones
    text = (
        "Mean cross-entropy in nats a token over n seeds, in evaluation mode, after the last step. "
        "The interval is Student's t over seeds."
    )
    if any(len(runs.finished) == 1 for runs in table.rows.values()):
        text += (
            " One seed has no such interval: ± is then the standard error over its evaluation "
            "windows alone, which says nothing about another seed."
        )
    if has_ones:
        text += (
            " Ones is the share of ones in the rounded masks: of one stochastic draw as in "
            "training, and of evaluation's rounding."
        )
    moved = {
        record.name: changes for record in table.finished if (changes := changes_on_the_way(record))
    }
    marks = {record.row: MOVED for record in table.finished if record.name in moved}
    parts = [f"## Final loss\n\n{text}", markdown(header, lines_of(table, cells, marks))]
    if moved:
        said = "; ".join(f"{plain(name)} ({plain(', '.join(c))})" for name, c in moved.items())
        parts.append(
            f"{MOVED} has a run that went on elsewhere than it began, which changes its bits: {said}."
        )
    return "\n\n".join(parts)


def _interval(runs: RowRuns, metric: str) -> str:
    if len(runs.finished) > 1:
        return bounds(runs.interval(metric))
    return f"one seed, ± {loss(runs.mean(f'{metric}_stderr'))}"


def best_loss(table: Table) -> str:
    """The lowest val loss on the way and where it was: what early stopping would have kept."""
    header = ["row", "best val", f"{PERCENT} interval", "at step", "train there", "final − best"]
    cells = {}
    for name, runs in finished_rows(table).items():
        best, final = runs.mean("best_val"), runs.mean("val")
        steps = sorted(int(step) for step in runs.values("best_step").values())
        at = count(steps[0]) if steps[0] == steps[-1] else f"{count(steps[0])}–{count(steps[-1])}"
        rise = NOTHING if best is None or final is None else signed(final - best)
        interval = bounds(runs.interval("best_val")) if len(runs.finished) > 1 else "one seed"
        cells[name] = [loss(best), interval, at, loss(runs.mean("best_train")), rise]
    text = (
        "The checkpoint with the lowest val loss on the way, as early stopping would have kept it, "
        "evaluated like the final one: over the same windows, so final − best compares like with "
        "like. It was chosen on some of the windows that measure it, which flatters every row a "
        "little."
    )
    thin = {r.name: r.missing_evaluations for r in table.finished if r.missing_evaluations}
    marks = {record.row: THIN for record in table.finished if record.name in thin}
    parts = [f"## Best val loss\n\n{text}", markdown(header, lines_of(table, cells, marks))]
    if thin:
        said = "; ".join(f"{plain(name)} (step {_steps(steps)})" for name, steps in thin.items())
        parts.append(
            f"{THIN} has a run that lost evaluations on the way, so its best may be elsewhere: {said}."
        )
    return "\n\n".join(parts)


def _steps(steps: list[int], most: int = 5) -> str:
    more = f" and {len(steps) - most} more" if len(steps) > most else ""
    return f"{', '.join(count(step) for step in steps[:most])}{more}"


def test_loss(table: Table) -> str:
    """Loss of the last and the best checkpoint on the held-out split; empty before it is read."""
    if not has(table, "test"):
        return ""
    header = ["row", "n", "final", f"{PERCENT} interval", "bits per byte"]
    header += ["best checkpoint", f"{PERCENT} interval"]
    cells = {}
    for name, runs in finished_rows(table).items():
        n = len(runs.values("test"))
        if not n:
            continue
        cells[name] = [
            str(n),
            loss(runs.mean("test")),
            "one seed" if n == 1 else bounds(runs.interval("test")),
            loss(runs.mean("test_bits_per_byte")),
            loss(runs.mean("best_test")),
            "one seed" if n == 1 else bounds(runs.interval("best_test")),
        ]
    text = (
        "The split that no choice was made on, read once for each run after all was done. Final is "
        "the model after the last step; the best checkpoint is the one of the lowest val loss, "
        "which is chosen on val and so is not flattered here."
    )
    table_text = markdown(header, lines_of(table, cells))
    return f"## Held-out test loss\n\n{text}\n\n{table_text}"


def has(table: Table, metric: str) -> bool:
    return any(runs.values(metric) for runs in table.rows.values())


def certainty(table: Table) -> str:
    """Seed-to-seed spread beside the evaluation windows' own sampling error."""
    header = ["row", "spread, train", "spread, val", "windows, train", "windows, val"]
    cells = {}
    for name, runs in finished_rows(table).items():
        spreads = [runs.interval(metric) for metric in ("train", "val")]
        errors = [runs.values(f"{metric}_stderr").values() for metric in ("train", "val")]
        cells[name] = [
            *(loss(None if spread is None else spread.sd) for spread in spreads),
            *(loss(root_mean_square(error) if error else None) for error in errors),
        ]
    text = (
        "Spread is the standard deviation from seed to seed; windows is the standard error of one "
        "run's figure over the windows it was read on, which do not overlap. Every run reads the "
        "same windows, so the spread, the intervals and the differences hold for this text; the "
        "windows' error is what another text of its kind could move a figure by."
    )
    table_text = markdown(header, lines_of(table, cells))
    return f"## How sure one figure is\n\n{text}\n\n{table_text}"
