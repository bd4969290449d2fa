"""A table's page in Markdown, and what of it a terminal shows."""

from experiments import sections
from experiments.cost import cost, unfinished
from experiments.differences import differences
from experiments.heading import head
from experiments.reproduction import beside_published, reproduction
from experiments.runs import Table


def render(table: Table, command: str) -> str:
    """The page of a table: failures to reproduce first, then results, then what they cost."""
    parts = [
        head(table, command),
        reproduction(table),
        unfinished(table),
        sections.final_loss(table),
        sections.best_loss(table),
        sections.test_loss(table),
        differences(table) if table.spec.comparisons else "",
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
