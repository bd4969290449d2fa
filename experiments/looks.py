"""How families of rows are told apart in figures."""

from dataclasses import dataclass

from experiments.runs import Table


@dataclass(frozen=True)
class Look:
    """How a family of rows is drawn."""

    color: str
    marker: str


# From Okabe and Ito's colours, those furthest apart in lightness, and one between them; more
# families begin again.
LOOKS = (Look("#000000", "s"), Look("#0072B2", "o"), Look("#E69F00", "D"), Look("#CC6699", "^"))


def looks(table: Table) -> dict[str, Look]:
    """The look of each family, in the order in which the table's file names them."""
    families = dict.fromkeys(row.family for row in table.spec.rows)
    return {family: LOOKS[index % len(LOOKS)] for index, family in enumerate(families)}
