"""What a table is: its rows, comparisons, published figures and order, from `<table>.yaml`."""

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from common.door import Count, Label, Many, Name, Number, Part, build, read_yaml
from common.errors import UserError

FOLDER = Path(__file__).parent
RESULTS = FOLDER.parent / "results"  # the committed records, tables and figures
RUNS = Path("runs")  # where a person's own lie
MOST_ROWS = 1000


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


class Each(Strict):
    """What a described row stands for: a row for every combination of these values, by name."""

    each: dict[Name, Many[str | int | float]]


class Comparison(Strict):
    """Paired differences of `rows` (default: all) against a row, or the best of several.

    A `*` in a name stands for anything: `none_*`. So in `best_of`, and in a kind's `of`.
    """

    against: str | None = None
    best_of: Many[str] = ()
    name: Label | None = None
    rows: Many[str] = ()


class Kind(Strict):
    """A kind of dropout, for which the best of its rows stands; a `reference` is what others meet."""

    name: Label
    of: Many[str]
    reference: bool = False


class Claim(Strict):
    """A published order: in `metric`, row `lower` lies below row `higher`."""

    metric: Literal["train", "val", "ones"]
    lower: str
    higher: str


class Table(Strict):
    """A table as its YAML file describes it.

    A row with `each: {rate: [0.1, 0.2]}` stands for two, with `{rate}` in its name and label replaced.
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
    kinds: Many[Kind] = ()
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
    content = _read(path)
    if isinstance(content.get("rows"), list):
        content["rows"] = list(_expanded(content["rows"], path))
    described = _with_names(build(Table, content, path), path)
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


def _expanded(rows: Sequence[Any], path: Path) -> Iterator[Any]:
    """The rows that are described, one by one; what is no row is left for the door to refuse."""
    n = 0
    for row in rows:
        if not isinstance(row, dict) or "each" not in row:
            yield row
            continue
        rest = {key: value for key, value in row.items() if key != "each"}
        each = build(Each, {"each": row["each"]}, path).each
        for values in product(*each.values()):
            n += 1
            if n > MOST_ROWS:
                raise UserError(f"{path}: `each` makes more than {MOST_ROWS} rows")
            named = dict(zip(each, values, strict=True))
            filled = {key: _filled(text, named) for key, text in rest.items()}
            if "{" in str(filled.get("name")):
                raise UserError(
                    f"{path}: the row {filled['name']!r} names a value that its `each` does not have: "
                    f"{', '.join(each)}"
                )
            yield filled


def _filled(text: Any, values: Mapping[str, object]) -> Any:
    if isinstance(text, str):
        for name, value in values.items():
            text = text.replace(f"{{{name}}}", str(value))
    return text


def _with_names(spec: Table, path: Path) -> Table:
    """The table with every name that holds a `*` replaced by the rows that it stands for."""
    names = [row.name for row in spec.rows]

    def meant(patterns: Sequence[str]) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for pattern in patterns:
            matching = (
                [n for n in names if fnmatchcase(n, pattern)] if "*" in pattern else [pattern]
            )
            if not matching:
                raise UserError(f"{path}: {pattern!r} is the name of none of its rows: {names} are")
            found |= dict.fromkeys(matching)
        return tuple(found)

    comparisons = tuple(
        c.model_copy(update={"best_of": meant(c.best_of), "rows": meant(c.rows)})
        for c in spec.comparisons
    )
    kinds = tuple(kind.model_copy(update={"of": meant(kind.of)}) for kind in spec.kinds)
    return spec.model_copy(update={"comparisons": comparisons, "kinds": kinds})


def _check(spec: Table, path: Path) -> None:
    try:
        shlex.split(spec.command)
    except ValueError as error:
        raise UserError(
            f"{path}: command={spec.command!r} must be a command line: {error}"
        ) from error
    names = [row.name for row in spec.rows]
    if not names or len(set(names)) < len(names):
        raise UserError(f"{path}: rows={names} must be some, and each once")
    spoken_of = [name for claim in spec.claims for name in (claim.lower, claim.higher)]
    for comparison in spec.comparisons:
        if (comparison.against is None) == (not comparison.best_of):
            raise UserError(f"{path}: a comparison must have `against` or `best_of`, and not both")
        spoken_of += [*comparison.best_of, *comparison.rows]
        spoken_of += [comparison.against] if comparison.against else []
    kinds = [kind.name for kind in spec.kinds]
    if len(set(kinds)) < len(kinds):
        raise UserError(f"{path}: kinds={kinds} must each have a name of its own")
    for kind in spec.kinds:
        if not kind.of:
            raise UserError(f"{path}: the kind {kind.name!r} must have rows: `of` is empty")
        spoken_of += kind.of
    for name in spoken_of:
        if name not in names:
            raise UserError(f"{path}: {name!r} is not one of its rows: {names} are")
    for note in (p.note for row in spec.rows for p in row.published if p.note):
        if note not in spec.notes:
            raise UserError(f"{path}: note={note!r} must be one of notes={list(spec.notes)}")
