"""A table's runs, row by row, and how its rows compare."""

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from common.door import as_name
from common.errors import UserError
from experiments.equal_train import at_equal_train
from experiments.mixing import check_comparable, config_differences
from experiments.records import (
    Finished,
    Record,
    find_records,
    read_record,
    read_records,
    read_row,
    sole,
)
from experiments.spec import RESULTS, Comparison, Row, TableSpec, load_spec
from experiments.statistics import (
    Interval,
    PairedDifference,
    Reading,
    holm,
    mean_interval,
    paired_difference,
    reading,
)

# Of two rows: val loss where both had the same train loss, and the same of averaged weights.
EQUAL_TRAIN = ("equal_train", "equal_train_ema")


@dataclass(frozen=True)
class RowRuns:
    """One row of a table with the runs that finished and those that did not."""

    row: Row
    finished: tuple[Finished, ...] = ()
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
    def finished(self) -> list[Finished]:
        """Every finished run of the table's rows."""
        return [record for runs in self.rows.values() for record in runs.finished]


def load_table(spec: TableSpec, folder: Path | None = None, added: Sequence[Path] = ()) -> Table:
    """The table of a folder's records, by default of `results/runs/<table>`.

    `added` are folders of rows that join it; one that its file does not name comes last.
    Raises UserError where there are none, one is malformed, or they must not be mixed.
    """
    folder = RESULTS / "runs" / spec.name if folder is None else folder
    return make_table(spec, read_records(folder), added, f"runs={folder}")


def load_tables(names: Iterable[str], runs: Path) -> dict[str, Table]:
    """By name, those that have a folder under `runs`."""
    return {
        name: load_table(load_spec(name), runs / name) for name in names if (runs / name).is_dir()
    }


def make_table(
    spec: TableSpec, records: Sequence[Record], added: Sequence[Path], where: str
) -> Table:
    """The table of these records, which are from `where`; as `load_table`."""
    joining = [record for row in added for record in read_row(row)]
    names = dict.fromkeys(record.row for record in joining)
    spec = _with_rows(spec, [name for name in names if name not in {r.name for r in spec.rows}])
    table = _table(spec, sole([*records, *joining]))
    if len(table.strangers) == len(records) + len(joining):
        raise UserError(
            f"{where} holds no record of table {spec.name!r}: make them with "
            f"`{spec.command}`, or say with --runs where they are"
        )
    return table


def own_table(folder: Path, only: Collection[Path] | None = None) -> Table:
    """The table of whatever runs a folder holds: a row for each name and settings among them.

    Its rows are compared with `none`, or the first where there is no such row. `only` are the
    directories of the runs that it is made of; by default all.
    """
    records = read_records_of_any_settings(folder, only)
    if not records:
        raise UserError(
            f"runs={folder} holds no record: it must be the folder above the rows, such as "
            "runs/nano or runs/<table_name>"
        )
    names = sorted({record.row for record in records}, key=lambda name: (name != "none", name))
    name = as_name(os.path.basename(os.path.abspath(folder)))[:100].lstrip(".") or "runs"
    against = (Comparison(against=names[0]),)
    spec = TableSpec(
        name=name, title=f"The runs in {folder}", rows=(), command="", comparisons=against
    )
    return _table(_with_rows(spec, names), records)


def read_records_of_any_settings(
    folder: Path, only: Collection[Path] | None = None
) -> list[Record]:
    """All records under `folder`; rows whose runs differ in settings become one for each.

    The settings are said behind the row's name: `learned,steps=30`. `only` are the directories
    whose records are read.
    """
    records = [
        read_record(path, name)
        for path, name in find_records(folder)
        if only is None or path.parent in only
    ]
    named: list[Record] = []
    for row in sorted({record.row for record in records}):
        own = [record for record in records if record.row == row]
        finished = [record for record in own if isinstance(record, Finished)]
        settings = list(config_differences(finished))
        for record in own:
            said = [
                f"{name}={value}"
                for name, groups in settings
                for value, holders in groups.items()
                if any(record is holder for holder in holders)
            ]
            named.append(record.model_copy(update={"row": _label(row, said)}))
    return sole(named)


def _label(row: str, said: Sequence[str]) -> str:
    text = as_name(",".join([row, *said]))
    return text if len(text) <= 100 else f"{text[:90]}…{sha256(text.encode()).hexdigest()[:8]}"


def _with_rows(spec: TableSpec, names: Sequence[str]) -> TableSpec:
    rows = [Row(name=name, label=name, family=name) for name in names]
    return spec.model_copy(update={"rows": (*spec.rows, *rows)})


def _table(spec: TableSpec, records: Sequence[Record]) -> Table:
    rows = {row.name: _row_runs(row, records) for row in spec.rows}
    check_comparable([record for record in records if record.row in rows], spec.scale)
    return Table(spec, rows, tuple(record for record in records if record.row not in rows))


def _row_runs(row: Row, records: Sequence[Record]) -> RowRuns:
    own = [record for record in records if record.row == row.name]
    finished = tuple(record for record in own if isinstance(record, Finished))
    unfinished = tuple(record for record in own if not isinstance(record, Finished))
    return RowRuns(row, finished, unfinished)


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


def paired(row: RowRuns, other: RowRuns, metric: str) -> PairedDifference | None:
    """The rows' difference in a metric (of METRICS, or EQUAL_TRAIN) over their common seeds."""
    if metric not in EQUAL_TRAIN:
        return paired_difference(row.values(metric), other.values(metric))
    averaged = metric == EQUAL_TRAIN[1]
    theirs = {record.seed: record for record in other.finished}
    both = {
        record.seed: found
        for record in row.finished
        if record.seed in theirs
        and (found := at_equal_train(record, theirs[record.seed], averaged))
    }
    own, others = ({seed: found[side] for seed, found in both.items()} for side in (0, 1))
    return paired_difference(own, others)


def compare(table: Table, wanted: Sequence[tuple[str, str, str]]) -> list[Compared]:
    """Paired differences of (row, other, metric); Holm's correction spans the list."""
    sides = [(table.rows[row], table.rows[other]) for row, other, _ in wanted]
    found = [paired(a, b, metric) for (a, b), (_, _, metric) in zip(sides, wanted, strict=True)]
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
