"""Your runs beside the committed ones: `python -m experiments.compare published_nano`.

A row reproduces where the difference between your mean and the committed one can be chance: its 95%
interval (Student's two-sample t, pooled spread, Holm's correction over the rows) holds zero.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from experiments.command import answer, spelled, write_text
from experiments.formats import NOTHING, bounds, code, loss, markdown, p_value, plain, signed
from experiments.heading import head
from experiments.mixing import code_differences, config_differences, identity_differences
from experiments.page import glance
from experiments.records import find_records
from experiments.runs import Compared, RowRuns, Table, compared_with, load_table
from experiments.sections import PERCENT
from experiments.spec import RESULTS, RUNS, load_spec, table_names
from experiments.statistics import ALPHA, Interval, holm, unpaired_difference

AGREES, DIFFERS, OPEN = "agrees", "differs", "too few seeds"


def beside(committed: Table, own: Table, command: str) -> str:
    """The page: which rows agree with the committed ones, and which orders among them."""
    parts = [
        head(own, command).replace("# ", "# Yours beside the committed: ", 1),
        _not_alike(committed, own),
        _losses(committed, own),
        *_orders(committed, own),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _not_alike(committed: Table, own: Table) -> str:
    """What your runs did otherwise than the committed ones, row by row where it is a setting."""
    said: dict[str, None] = {}
    for name, runs in own.rows.items():
        pair = [*runs.finished[:1], *committed.rows[name].finished[:1]]
        if len(pair) < 2:
            continue
        said |= dict.fromkeys(what for what, _ in identity_differences(pair))
        said |= dict.fromkeys(code(file) for file, _ in code_differences(pair))
        said |= dict.fromkeys(f"{code(s)} of {runs.row.label}" for s, _ in config_differences(pair))
    if not said:
        return "Data, settings and code are those of the committed runs."
    names = list(said)
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return (
        f"**Not as in the committed runs:** {'; '.join(names[:12])}{more}. A difference below can "
        "be theirs."
    )


def rows_beside(
    committed: Table, own: Table
) -> list[tuple[RowRuns, RowRuns, Interval | None, float | None, str]]:
    """Each row: the committed runs, yours, the difference in final val, its p, and the verdict."""
    pairs = [(committed.rows[name], runs) for name, runs in own.rows.items() if runs.finished]
    found = [
        unpaired_difference(list(ours.values("val").values()), list(theirs.values("val").values()))
        if theirs.finished
        else (None, None)
        for theirs, ours in pairs
    ]
    corrected = holm([p for _, p in found])
    return [
        (theirs, ours, interval, p, _verdict(theirs, interval, p))
        for (theirs, ours), (interval, _), p in zip(pairs, found, corrected, strict=True)
    ]


def _verdict(theirs: RowRuns, interval: Interval | None, p: float | None) -> str:
    if interval is None:
        return f"committed: {theirs.state}"
    if interval.low is None or interval.high is None or p is None:
        return OPEN
    return AGREES if interval.low <= 0 <= interval.high or p >= ALPHA else DIFFERS


def _losses(committed: Table, own: Table) -> str:
    rows = rows_beside(committed, own)
    verdicts = Counter(verdict for *_, verdict in rows)
    text = (
        f"Of {len(rows)} rows **{verdicts[AGREES]}** agree with the committed ones within their "
        f"intervals and **{verdicts[DIFFERS]}** differ. Final val loss in nats a token; the "
        f"difference is yours minus the committed, its {PERCENT} interval Student's for two "
        "samples, its p Holm-corrected over the rows."
    )
    header = ["row", "committed", "n", "yours", "n", "difference", f"{PERCENT} interval"]
    lines = []
    for theirs, ours, interval, p, verdict in rows:
        sides = [_mean(theirs), str(len(theirs.finished)), _mean(ours), str(len(ours.finished))]
        difference = NOTHING if interval is None else signed(interval.mean)
        lines.append([ours.row.label, *sides, difference, bounds(interval), p_value(p), verdict])
    table = markdown([*header, "p (Holm)", "verdict"], lines, left=(8,))
    return f"## Does each row come out alike?\n\n{text}\n\n{table}"


def _mean(runs: RowRuns) -> str:
    return loss(runs.mean("val"))


def _orders(committed: Table, own: Table) -> list[str]:
    """Each comparison against a row: the paired difference there and here."""
    parts = []
    for comparison in (c for c in own.spec.comparisons if c.against):
        theirs, ours = (
            {one.row.row.name: one for one in compared_with(table, comparison, "val", "val")[1]}
            for table in (committed, own)
        )
        lines = [
            [one.row.row.label, *_cells(theirs[name]), *_cells(one), _same(theirs[name], one)]
            for name, one in ours.items()
            if one.difference is not None and name in theirs
        ]
        if lines:
            label = own.rows[comparison.against or ""].row.label
            header = ["row", "committed", f"{PERCENT} interval", "yours", f"{PERCENT} interval"]
            table = markdown([*header, "order"], lines, left=(5,))
            parts.append(f"## Final val loss minus that of {label}, same seeds\n\n{table}")
    return parts


def _cells(one: Compared) -> list[str]:
    if one.difference is None:
        return [NOTHING, NOTHING]
    return [signed(one.difference.interval.mean), bounds(one.difference.interval)]


def _same(theirs: Compared, ours: Compared) -> str:
    """What the two say of the order; only a supported direction on both sides says anything."""
    directions = ("lower", "higher")
    if theirs.reading in directions and ours.reading in directions:
        return "the same" if theirs.reading == ours.reading else "**the opposite**"
    return f"committed: {theirs.reading}; yours: {ours.reading}"


def main(argv: Sequence[str] | None = None) -> int:
    """Print and write the comparison; 0, or 2 for an error that a person can put right."""
    options = argparse.ArgumentParser(
        prog="python -m experiments.compare",
        description="Set your runs of a table beside the committed ones.",
    )
    options.add_argument("table", help=f"one of {', '.join(table_names())}, or a .yaml file")
    options.add_argument("--runs", type=Path, help="where your runs are (runs/TABLE)")
    options.add_argument(
        "--with", type=Path, dest="other", help="other records (results/runs/TABLE)"
    )
    options.add_argument("--out", type=Path, help="the page (runs/tables/TABLE_beside.md)")
    arguments = options.parse_args(argv)

    def make() -> int:
        spec = load_spec(arguments.table)
        own = load_table(spec, arguments.runs or RUNS / spec.name)
        folder = arguments.other or RESULTS / "runs" / spec.name
        if not any(find_records(folder)):
            print(
                glance(own), f"{plain(str(folder))} holds no record to set this beside.", sep="\n\n"
            )
            return 0
        page = beside(load_table(spec, folder), own, spelled("experiments.compare", argv))
        out: Path = arguments.out or RUNS / "tables" / f"{spec.name}_beside.md"
        write_text(out, page)
        print(page, out, sep="\n")
        return 0

    return answer(make)


if __name__ == "__main__":
    sys.exit(main())
