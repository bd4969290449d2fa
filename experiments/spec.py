"""What a table is: its rows, comparisons, published figures and order, from `<table>.yaml`."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from common.errors import UserError

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Published:
    """One published set of figures; a row has several where its document disagrees with itself."""

    version: str
    train: float | None = None
    val: float | None = None
    ones: float | None = None
    parameters: int | None = None
    note: str | None = None


@dataclass(frozen=True)
class Row:
    """A row: `name` is the config's `row`, `label` is printed, a `family` shares its colour."""

    name: str
    label: str
    family: str
    published: tuple[Published, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Paired differences of `rows` (default: all) against a row, or the best of several."""

    against: str | None = None
    best_of: tuple[str, ...] = ()
    name: str | None = None
    rows: tuple[str, ...] = ()


@dataclass(frozen=True)
class Claim:
    """A published order: in `metric`, row `lower` lies below row `higher`."""

    metric: str
    lower: str
    higher: str


@dataclass(frozen=True)
class TableSpec:
    """A table as its YAML file describes it.

    `varies` names the config groups that tell the rows apart; other settings in which rows differ
    are printed. `command` makes the records. `notes` are marks on published figures, by key.
    """

    name: str
    title: str
    rows: tuple[Row, ...]
    command: str
    question: str = ""
    setting: str = ""
    scale: str | None = None
    source: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)
    varies: tuple[str, ...] = ("dropout",)
    comparisons: tuple[Comparison, ...] = ()
    claims: tuple[Claim, ...] = ()

    def row(self, name: str) -> Row:
        """The row of that name."""
        return next(row for row in self.rows if row.name == name)


def table_names() -> list[str]:
    """The tables that there are; files with a leading underscore are parts of others."""
    return sorted(path.stem for path in FOLDER.glob("[!_]*.yaml"))


def load_spec(table: str) -> TableSpec:
    """The table of that name, or of a YAML file of one's own.

    Raises ValueError for an unknown name, naming the valid ones, and for a file whose entries are
    misspelt or speak of rows that it does not have.
    """
    path = Path(table) if table.endswith(".yaml") else FOLDER / f"{table}.yaml"
    if not path.is_file() or path.stem.startswith("_"):
        names = ", ".join(table_names())
        raise UserError(f"table={table!r} must be one of {names}, or the path of a .yaml file")
    content = _read(path)
    content["name"] = path.stem
    content["rows"] = tuple(
        _build(Row, {**row, "published": _all(Published, row.get("published"), path)}, path)
        for row in _listed(content.get("rows"), path)
    )
    content["comparisons"] = _all(Comparison, content.get("comparisons"), path)
    content["claims"] = _all(Claim, content.get("claims"), path)
    spec = _build(TableSpec, content, path)
    _check(spec, path)
    return spec


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: a table's file must hold keys and values")
    base = content.pop("extends", None)
    return content if base is None else {**_read(path.parent / str(base)), **content}


def _listed(entries: Any, path: Path) -> list[dict[str, Any]]:
    entries = entries or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"{path}: {entries!r} must be a list of mappings")
    return entries


Built = TypeVar("Built")


def _all(kind: type[Built], entries: Any, path: Path) -> tuple[Built, ...]:
    return tuple(_build(kind, entry, path) for entry in _listed(entries, path))


def _build(kind: type[Built], entry: dict[str, Any], path: Path) -> Built:
    names = [entry.name for entry in fields(kind)]  # type: ignore[arg-type]
    for key in entry:
        if key not in names:
            raise UserError(f"{path}: {key!r} is not a key of a {kind.__name__}: {names} are")
    values = {key: tuple(v) if isinstance(v, list) else v for key, v in entry.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise UserError(f"{path}: a {kind.__name__} lacks an entry ({error})") from error


def _check(spec: TableSpec, path: Path) -> None:
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
    for claim in spec.claims:
        if claim.metric not in ("train", "val", "ones"):
            raise UserError(f"{path}: metric={claim.metric!r} must be train, val or ones")
