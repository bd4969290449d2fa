"""A table's page in Markdown, and what of it a terminal shows."""

from collections.abc import Collection

from tabulate import tabulate

from experiments import sections
from experiments.cost import cost, unfinished
from experiments.differences import differences
from experiments.ensembles import ensembles
from experiments.formats import NOTHING, bounds, folded, loss, signed
from experiments.heading import head
from experiments.kinds import best_of_kinds
from experiments.other_masks import other_masks
from experiments.reproduction import beside_published, reproduction
from experiments.runs import Compared, Table, compared_with

# A table's figures by their names, as the page has them: the first that is there stands open.
PICTURES = {
    "kinds": "The best of each kind",
    "difference": "Paired differences",
    "along": "Losses along a setting",
    "curves": "Val loss over steps",
    "val": "Final val loss",
    "gap": "Train and val loss",
    "fit": "Val loss against train loss",
}


def render(table: Table, command: str, drawn: Collection[str] = ()) -> str:
    """The page of a table: failures first, then results, then what they cost.

    `drawn` are the names of its figures that lie in ../figures, as seen from the page.
    """
    parts = [
        head(table, command),
        reproduction(table),
        unfinished(table),
        pictures(table, drawn),
        best_of_kinds(table),
        sections.final_loss(table),
        sections.best_loss(table),
        sections.test_loss(table),
        _folded(differences(table), bool(table.spec.kinds)) if table.spec.comparisons else "",
        ensembles(table),
        other_masks(table),
        sections.certainty(table),
        beside_published(table),
        cost(table),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def pictures(table: Table, drawn: Collection[str]) -> str:
    """The figures that are there; all but the first and those along a setting are folded away."""
    there = {name: title for name, title in PICTURES.items() if name in drawn}
    shown = [name for name in there if name in (*list(there)[:1], "along")]
    texts = {
        name: f"![{title}](../figures/{table.spec.name}_{name}.svg)"
        for name, title in there.items()
    }
    more = [texts[name] for name in there if name not in shown]
    parts = [texts[name] for name in shown]
    if more:
        parts.append(folded("More figures", "\n\n".join(more)))
    return "\n\n".join(["## In figures", *parts]) if parts else ""


def _folded(section: str, fold: bool) -> str:
    """The section's text behind its heading, where a shorter one has said the main of it."""
    heading, _, text = section.partition("\n\n")
    if not fold:
        return section
    return f"{heading}\n\n{folded('All pairs', text)}"


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
