"""A table's page in Markdown, and what of it a terminal shows."""

from tabulate import tabulate

from experiments import sections
from experiments.cost import cost, unfinished
from experiments.differences import differences
from experiments.ensembles import ensembles
from experiments.formats import NOTHING, bounds, loss, signed
from experiments.heading import head
from experiments.kinds import best_of_kinds
from experiments.other_masks import other_masks
from experiments.reproduction import beside_published, reproduction
from experiments.runs import Compared, Table, compared_with


def render(table: Table, command: str) -> str:
    """The page of a table: failures first, then results, then what they cost."""
    parts = [
        head(table, command),
        reproduction(table),
        unfinished(table),
        best_of_kinds(table),
        sections.final_loss(table),
        sections.best_loss(table),
        sections.test_loss(table),
        differences(table) if table.spec.comparisons else "",
        ensembles(table),
        other_masks(table),
        sections.certainty(table),
        beside_published(table),
        cost(table),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def glance(table: Table) -> str:
    """The main tables: what did not finish, the losses, and how they differ."""
    parts = [
        unfinished(table),
        sections.final_loss(table),
        sections.best_loss(table),
        differences(table, ["val", "best_val"]) if table.spec.comparisons else "",
    ]
    return "\n\n".join(part for part in parts if part)


def in_short(table: Table) -> str:
    """A line for each row, lowest val first, as plain text: what a sweep says at its end."""
    comparison = next(c for c in table.spec.comparisons if c.against)
    compared = {one.row.row.name: one for one in compared_with(table, comparison, "val", "val")[1]}
    lines = []
    for name, runs in sections.finished_rows(table).items():
        cells = [runs.row.label, str(len(runs.finished)), loss(runs.mean("val"))]
        cells += [bounds(runs.interval("val")), loss(runs.mean("best_val"))]
        lines.append([*cells, *_difference(compared.get(name))])
    interval = f"{sections.PERCENT} interval"
    header = [
        "row",
        "n",
        "val, last",
        interval,
        "best",
        f"minus {comparison.against}",
        interval,
        "",
    ]
    sides = ["left", *["right"] * (len(header) - 2), "left"]
    ordered = sorted(lines, key=lambda line: float(line[2]))
    return tabulate(ordered, header, "plain", disable_numparse=True, colalign=sides)


def _difference(one: Compared | None) -> list[str]:
    if one is None or one.difference is None:
        return [NOTHING, NOTHING, ""]
    interval = one.difference.interval
    return [signed(interval.mean), bounds(interval), one.reading]
