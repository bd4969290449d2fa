"""Pairs of rows that differ in their dropout alone, one of them without any, over all tables."""

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.settings import KEEPING, NAMES
from experiments.runs import RowRuns, Table, paired
from experiments.statistics import MIN_SEEDS, PairedDifference

# What is compared: the best checkpoint is the one that early stopping by val would have kept.
OUTCOMES = {
    "val": "last weights",
    "best_val": "stopped early",
    "val_ema": "averaged weights",
    "equal_train": "at equal train loss",
    "equal_train_ema": "averaged, at equal train loss",
}
# Each kind as one row of one table has it, to the last setting of its slots; the first is none.
MAIN = {
    "none": ("published_nano", "none"),
    "standard 0.1": ("rivals_nano", "standard_0.1_wd0.1"),
    "standard 0.2": ("published_nano", "standard_0.2"),
    "standard 0.3": ("published_nano", "standard_0.3"),
    "standard 0.4": ("published_nano", "standard_0.4"),
    "drop path 0.1": ("rivals_nano", "drop_path_0.1_wd0.1"),
    "learned": ("published_nano", "learned"),
}
FAMILY = {
    f"{kind} {rate}": ("family_nano", f"{kind.replace(' ', '_')}_{rate}_wd0.1")
    for kind in (
        "standard", "locked", "token", "head", "layer group", "drop path", "classic", "alpha",
        "feature alpha",
    )
    for rate in (0.05, 0.1, 0.2, 0.3)
}  # fmt: skip
KINDS = {
    **MAIN,
    **{kind: row for kind, row in FAMILY.items() if kind not in MAIN},
    "learned Fourier": ("family_nano", "learned_fourier_wd0.1"),
    "learned everywhere": ("family_nano", "learned_everywhere_wd0.1"),
}
# What tells no two settings apart: the dropout, names, and what changes no number. Where a run computes
# and in which type is asked of its record, since a config says `auto`.
ASIDE = NAMES | KEEPING | {"dropout", "seed", "device", "dtype", "compile", "ema_decay"}


@dataclass(frozen=True)
class Point:
    """What a kind gains over none in one setting; `gains` by outcome, a metric of OUTCOMES."""

    table: str
    setting: str
    row: RowRuns
    none: RowRuns
    kind: str
    gap: float
    gains: Mapping[str, PairedDifference]

    @property
    def n(self) -> int:
        """How many seeds the two rows share."""
        return self.gains["val"].interval.n


def _canonical(config: Mapping[str, Any], left_out: Collection[str]) -> str:
    return json.dumps({k: v for k, v in config.items() if k not in left_out}, sort_keys=True)


def _config(runs: RowRuns) -> Mapping[str, Any]:
    return runs.finished[0].config


def _setting(runs: RowRuns) -> str:
    """All that a run's numbers come from but its dropout and its seed."""
    run = runs.finished[0]
    where = {"kind": run.device.kind, "type": run.dtype, "compiled": run.compile}
    return _canonical({**run.config, "where": where}, ASIDE)


def kinds_of(tables: Mapping[str, Table]) -> dict[str, str]:
    """By a row's canonical dropout, the kind that it is."""
    found = {}
    for kind, (table, row) in KINDS.items():
        if table in tables and tables[table].rows[row].finished:
            found[_canonical(_config(tables[table].rows[row])["dropout"], ())] = kind
    return found


def points(tables: Mapping[str, Table]) -> list[Point]:
    """Every kind beside none of the same setting and table, whatever number of seeds they share.

    Of two tables with one setting the one with more seeds counts, then the one with averaged weights,
    then the first. An average's own setting, `ema_decay`, changes nothing but what it is of.
    """
    kinds, found = kinds_of(tables), dict[tuple[str, str], Point]()
    for name, table in tables.items():
        for setting, own in _by_setting(table, kinds).items():
            none = own.pop("none", None)
            if none is None:
                continue
            for kind, runs in own.items():
                point = _point(name, setting, kind, runs, none)
                before = found.get((setting, kind))
                if point and (before is None or _weight(before) < _weight(point)):
                    found[setting, kind] = point
    order = list(KINDS)
    return sorted(found.values(), key=lambda p: (order.index(p.kind), p.gap))


def _by_setting(table: Table, kinds: Mapping[str, str]) -> dict[str, dict[str, RowRuns]]:
    """The table's rows that are of a kind, by setting and kind."""
    found = defaultdict[str, dict[str, RowRuns]](dict)
    for runs in table.rows.values():
        if runs.finished:
            kind = kinds.get(_canonical(_config(runs)["dropout"], ()))
            if kind is not None:
                found[_setting(runs)].setdefault(kind, runs)
    return found


def _weight(point: Point) -> tuple[int, int]:
    return point.n, len(point.gains)


def _point(table: str, setting: str, kind: str, runs: RowRuns, none: RowRuns) -> Point | None:
    gains = {
        outcome: difference for outcome in OUTCOMES if (difference := paired(runs, none, outcome))
    }
    if "val" not in gains:
        return None
    val, train = (none.values(metric) for metric in ("val", "train"))
    seeds = gains["val"].seeds
    gap = sum(val[seed] - train[seed] for seed in seeds) / len(seeds)
    return Point(table, setting, runs, none, kind, gap, gains)


def resolved(found: Sequence[Point]) -> list[Point]:
    """Those of three seeds or more."""
    return [point for point in found if point.n >= MIN_SEEDS]


def rate_of(kind: str) -> tuple[str, float | None]:
    """`standard 0.1` is standard at 0.1; a kind without a rate has None."""
    name, _, last = kind.rpartition(" ")
    try:
        return name, float(last)
    except ValueError:
        return kind, None
