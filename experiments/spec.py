"""What a table is: its rows, comparisons, published figures and order, from `<table>.yaml`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from common.door import Count, Label, Many, Name, Number, Part, build, read_yaml
from common.errors import UserError

FOLDER = Path(__file__).parent
RESULTS = FOLDER.parent / "results"  # the committed records, tables and figures
RUNS = Path("runs")  # where a person's own lie


class Strict(Part, extra="forbid"):
    """A part of a table's file, in which a key that means nothing is a misspelt one."""


class Published(Strict):
    """One published set of figures; a row has several where its document disagrees with itself."""

    version: Label
    train: Number | None = None
    val: Number | None = None
    ones: Number | None = None
    parameters: Count | None = None
    note: str | None = None


class Row(Strict):
    """A row: `name` is the config's `row_name`, `label` is printed, a `family` shares its colour."""

    name: Name
    label: Label
    family: str
    published: Many[Published] = ()


class Comparison(Strict):
    """Paired differences of `rows` (default: all) against a row, or the best of several."""

    against: str | None = None
    best_of: Many[str] = ()
    name: Label | None = None
    rows: Many[str] = ()


class Claim(Strict):
    """A published order: in `metric`, row `lower` lies below row `higher`."""

    metric: Literal["train", "val", "ones"]
    lower: str
    higher: str


class Table(Strict):
    """A table as its YAML file describes it.

    `varies` names the config groups that tell the rows apart; other settings in which rows differ
    are printed. `along` is one of them that a figure has the losses along. `command` makes the
    records. `notes` are marks on published figures, by key.
    """

    title: str
    rows: Many[Row]
    command: str
    question: str = ""
    setting: str = ""
    scale: str | None = None
    source: str = ""
    notes: dict[str, str] = Field(default_factory=dict)
    varies: Many[str] = ("dropout",)
    along: str | None = None
    comparisons: Many[Comparison] = ()
    claims: Many[Claim] = ()


class TableSpec(Table):
    """A table and its name, which is its file's."""

    name: Name

    def row(self, name: str) -> Row:
        """The row of that name."""
        return next(row for row in self.rows if row.name == name)


def table_names() -> list[str]:
    """The tables that there are; files with a leading underscore are parts of others."""
    return sorted(path.stem for path in FOLDER.glob("[!_]*.yaml"))


def load_spec(table: str) -> TableSpec:
    """The table of that name, or of a YAML file of one's own.

    Raises UserError for an unknown name, naming the valid ones, and for a file whose entries are
    misspelt or speak of rows that it does not have.
    """
    path = Path(table) if table.endswith(".yaml") else FOLDER / f"{table}.yaml"
    own = table.endswith(".yaml") and path.exists() and not path.stem.startswith("_")
    if not own and table not in table_names():
        names = ", ".join(table_names())
        raise UserError(
            f"table={table[:100]!r} must be one of {names}, or the path of a .yaml file"
        )
    described = build(Table, _read(path), path)
    _check(described, path)
    return build(TableSpec, {**dict(described), "name": path.stem}, path)


def _read(path: Path, readers: Sequence[Path] = ()) -> dict[str, Any]:
    """The file's entries over those of the one that it extends; `readers` extend this one."""
    reader = Path(os.path.realpath(path))
    if reader in readers:
        chain = " extends ".join(str(reader) for reader in [*readers, reader])
        raise UserError(f"{path}: a table must not extend itself: {chain}")
    content = read_yaml(path)
    base = content.pop("extends", None)
    if base is None:
        return content
    if not isinstance(base, str):
        raise UserError(f"{path}: extends={str(base)[:80]!r} must be the path of a file")
    return {**_read(path.parent / base, [*readers, reader]), **content}


def _check(spec: Table, path: Path) -> None:
    names = [row.name for row in spec.rows]
    if not names or len(set(names)) < len(names):
        raise UserError(f"{path}: rows={names} must be some, and each once")
    spoken_of = [name for claim in spec.claims for name in (claim.lower, claim.higher)]
    for comparison in spec.comparisons:
        if (comparison.against is None) == (not comparison.best_of):
            raise UserError(f"{path}: a comparison must have `against` or `best_of`, and not both")
        spoken_of += [*comparison.best_of, *comparison.rows]
        spoken_of += [comparison.against] if comparison.against else []
    for name in spoken_of:
        if name not in names:
            raise UserError(f"{path}: {name!r} is not one of its rows: {names} are")
    for note in (p.note for row in spec.rows for p in row.published if p.note):
        if note not in spec.notes:
            raise UserError(f"{path}: note={note!r} must be one of notes={list(spec.notes)}")
