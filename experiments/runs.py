"""A table's runs, row by row, and how its rows compare."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError
from experiments.mixing import check_comparable
from experiments.records import Record, read_records
from experiments.spec import Comparison, Row, TableSpec
from experiments.statistics import (
    Interval,
    PairedDifference,
    Reading,
    holm,
    mean_interval,
    paired_difference,
    reading,
)

RESULTS = Path(__file__).parent.parent / "results"


@dataclass(frozen=True)
class RowRuns:
    """One row of a table with the runs that finished and those that did not."""

    row: Row
    finished: tuple[Record, ...] = ()
    unfinished: tuple[Record, ...] = ()

    @property
    def state(self) -> str:
        """`finished` if any run did; else what became of the last one, or `not run`."""
        if self.finished:
            return "finished"
        return self.unfinished[-1].status if self.unfinished else "not run"

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the finished runs."""
        return tuple(record.seed for record in self.finished)

    def values(self, metric: str) -> dict[int, float]:
        """Seed -> value of a metric (a name in METRICS), where a finished run has it."""
        found = {record.seed: record.metric(metric) for record in self.finished}
        return {seed: value for seed, value in found.items() if value is not None}

    def interval(self, metric: str) -> Interval | None:
        """Mean and interval of a metric over seeds; None where no run has it."""
        values = self.values(metric)
        return mean_interval(list(values.values())) if values else None

    def mean(self, metric: str) -> float | None:
        """Mean of a metric over seeds; None where no run has it."""
        interval = self.interval(metric)
        return None if interval is None else interval.mean


@dataclass(frozen=True)
class Table:
    """A table's description and runs; `strangers` are records of rows that it does not have."""

    spec: TableSpec
    rows: dict[str, RowRuns]
    strangers: tuple[Record, ...] = ()

    @property
    def finished(self) -> list[Record]:
        """Every finished run of the table's rows."""
        return [record for runs in self.rows.values() for record in runs.finished]


def load_table(spec: TableSpec, folder: Path | None = None) -> Table:
    """Read a table's records, by default from `results/runs/<table>`.

    Raises ValueError where there are none, one is malformed, or they must not be mixed.
    """
    folder = RESULTS / "runs" / spec.name if folder is None else folder
    records = read_records(folder)
    rows = {row.name: _row_runs(row, records) for row in spec.rows}
    table = Table(spec, rows, tuple(record for record in records if record.row not in rows))
    if len(table.strangers) == len(records):
        raise UserError(
            f"runs={folder} holds no record of table {spec.name!r}: make them with "
            f"`{spec.command}`, or say with --runs where they are"
        )
    check_comparable([record for record in records if record.row in rows], spec.scale)
    return table


def _row_runs(row: Row, records: Sequence[Record]) -> RowRuns:
    own = [record for record in records if record.row == row.name]
    finished = tuple(record for record in own if record.status == "finished")
    return RowRuns(row, finished, tuple(record for record in own if record not in finished))


@dataclass(frozen=True)
class Compared:
    """A row beside another: the paired difference (row - other), its corrected p, what it says.

    `difference` is None where the two share no seed, and `reading` says so.
    """

    row: RowRuns
    other: RowRuns
    difference: PairedDifference | None
    p: float | None
    reading: Reading | str


def compare(table: Table, wanted: Sequence[tuple[str, str, str]]) -> list[Compared]:
    """Paired differences of (row, other, metric); Holm's correction spans the list."""
    sides = [(table.rows[row], table.rows[other]) for row, other, _ in wanted]
    found = [
        paired_difference(a.values(metric), b.values(metric))
        for (a, b), (_, _, metric) in zip(sides, wanted, strict=True)
    ]
    corrected = holm([None if difference is None else difference.p for difference in found])
    return [
        Compared(a, b, d, p, _missing(a, b) if d is None else reading(d, p))
        for (a, b), d, p in zip(sides, found, corrected, strict=True)
    ]


def _missing(row: RowRuns, other: RowRuns) -> str:
    for runs in (row, other):
        if not runs.finished:
            return f"{runs.row.label}: {runs.state}"
    return "no common seed"


def best_row(table: Table, names: Sequence[str], metric: str) -> str | None:
    """The row with the lowest mean over the seeds that all finished ones share, if any."""
    candidates = {name: table.rows[name].values(metric) for name in names}
    candidates = {name: values for name, values in candidates.items() if values}
    common = set.intersection(*map(set, candidates.values())) if candidates else set()
    if not common:
        return None
    return min(candidates, key=lambda name: sum(candidates[name][seed] for seed in common))


def compared_with(
    table: Table, comparison: Comparison, metric: str, chosen_by: str
) -> tuple[str | None, list[Compared]]:
    """The row compared with, and every other's difference from it in `metric`.

    Where the comparison asks for the best, that is the lowest in the metric `chosen_by`.
    """
    other = comparison.against or best_row(table, comparison.best_of, chosen_by)
    if other is None:
        return None, []
    names = comparison.rows or tuple(table.rows)
    return other, compare(table, [(name, other, metric) for name in names if name != other])
