"""The part of a table's page about ensembles: a row's runs with their probabilities averaged.

`python evaluate.py --run ROW/seed* --ensemble --record` puts them into the records.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from experiments.formats import NOTHING, bounds, loss, markdown, plain, signed
from experiments.records import Joint
from experiments.runs import RowRuns, Table
from experiments.sections import PERCENT, finished_rows
from experiments.spec import Comparison
from experiments.statistics import MIN_SEEDS, Interval, jackknife

Split = Literal["val", "test"]
WEIGHTS = {"final": "last weights", "best": "best checkpoint", "ema": "averaged weights"}
METRIC: dict[tuple[Split, str], str] = {
    ("val", "final"): "val", ("val", "best"): "best_val", ("val", "ema"): "val_ema",
    ("test", "final"): "test", ("test", "best"): "best_test", ("test", "ema"): "test_ema",
}  # fmt: skip


@dataclass(frozen=True)
class RowEnsemble:
    """A row's ensemble: its loss, and its loss without the run of each seed."""

    whole: float
    without: Mapping[int, float]

    @property
    def interval(self) -> Interval:
        """Over seeds, by the jackknife."""
        return jackknife(self.whole, list(self.without.values()))

    def minus(self, other: "RowEnsemble") -> Interval | None:
        """The difference of two rows' ensembles of the same seeds, else None."""
        if self.without.keys() != other.without.keys():
            return None
        without = [self.without[seed] - other.without[seed] for seed in self.without]
        return jackknife(self.whole - other.whole, without)


def row_ensemble(runs: RowRuns, split: Split, weights: str) -> RowEnsemble | None:
    """The ensemble of all the row's finished runs; None where it was not made of just those."""
    members = {str(record.seed): record.run_hash for record in runs.finished}
    joints: dict[int, Joint] = {}
    for record in runs.finished:
        ensemble = record.ensemble
        of_split = (
            None if ensemble is None or ensemble.members != members else getattr(ensemble, split)
        )
        joint = None if of_split is None else getattr(of_split, weights)
        if joint is None:
            return None
        joints[record.seed] = joint
    if len({joint.loss for joint in joints.values()}) != 1:
        return None
    return RowEnsemble(
        joints[runs.seeds[0]].loss, {s: joint.without for s, joint in joints.items()}
    )


def ensembles(table: Table) -> str:
    """Loss of the rows' ensembles, and how they differ; empty where none was made."""
    tables = [_part(table, split, weights) for split, weights in METRIC]
    if not any(tables):
        return ""
    text = (
        "The probabilities that a row's n runs give each token, averaged, by evaluation alone. "
        "One run is the mean of the n; the last columns set the ensemble beside another row's, of "
        f"the same seeds. Intervals are {PERCENT}, by the jackknife over seeds, from {MIN_SEEDS} "
        "on: they say how far other seeds would move the figure."
    )
    stale = [
        plain(runs.row.label)
        for runs in finished_rows(table).values()
        if any(record.ensemble for record in runs.finished)
        and not any(row_ensemble(runs, split, "final") for split in ("val", "test"))
    ]
    said = [f"Made of fewer or other runs than the row has now, and left out: {', '.join(stale)}."]
    return "\n\n".join(["## Ensembles", text, *filter(None, tables), *(said if stale else [])])


def _part(table: Table, split: Split, weights: str) -> str:
    rows, known = finished_rows(table), _known(table, split, weights)
    if not known:
        return ""
    chosen_by = _known(table, "val", weights)  # no choice is made on the test split
    others = [other for c in table.spec.comparisons if (other := _other(c, chosen_by)) in known]
    header = ["row", "n", "one run", "ensemble", f"{PERCENT} interval"]
    header += [f"minus {table.rows[other].row.label}" for other in others]
    lines = []
    for name, one in known.items():
        runs = rows[name]
        cells = [runs.row.label, str(len(one.without)), loss(runs.mean(METRIC[split, weights]))]
        cells += [loss(one.whole), bounds(one.interval)]
        cells += [_difference(one, known[other], name == other) for other in others]
        lines.append(cells)
    title = f"### {split.capitalize()} loss of the ensemble, {WEIGHTS[weights]}"
    return f"{title}\n\n{markdown(header, lines)}"


def _known(table: Table, split: Split, weights: str) -> dict[str, RowEnsemble]:
    rows = finished_rows(table).items()
    found = {name: row_ensemble(runs, split, weights) for name, runs in rows}
    return {name: one for name, one in found.items() if one is not None}


def _other(comparison: Comparison, known: Mapping[str, RowEnsemble]) -> str:
    """The row that a comparison is with; of several the one whose ensemble has the lowest loss."""
    names: Sequence[str] = comparison.best_of or [comparison.against or ""]
    there = [name for name in names if name in known]
    return min(there, key=lambda name: known[name].whole, default="")


def _difference(one: RowEnsemble, other: RowEnsemble, same: bool) -> str:
    difference = None if same else one.minus(other)
    if difference is None:
        return NOTHING
    return f"{signed(difference.mean)} {bounds(difference)}"
