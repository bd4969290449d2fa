"""The command line that tables and figures share: which table, of which runs, written where."""

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common.door import read_json
from common.errors import MISTAKEN, UserError
from common.files import explained
from common.wandb_places import PROJECT
from experiments.spec import RESULTS, RUNS, TableSpec, load_spec, table_names

if TYPE_CHECKING:
    from experiments.records import Record
    from experiments.runs import Table


def parser(prog: str, made: str, *, writes: bool = True) -> argparse.ArgumentParser:
    """Options that choose a table and its runs and, where it `writes`, the place for what is made."""
    names = ", ".join(table_names())
    options = argparse.ArgumentParser(
        prog=f"python -m experiments.{prog}", description=f"Make {made} from records of runs."
    )
    options.add_argument("table", nargs="?", help=f"one of {names}, or a .yaml file of your own")
    options.add_argument("--list", action="store_true", help="print the tables, and what each took")
    options.add_argument(
        "--runs", type=Path, metavar="DIR", help="the folder above the rows (results/runs/TABLE); "
        "without a table, a row for each kind of run in it",
    )  # fmt: skip
    options.add_argument(
        "--add", type=Path, metavar="DIR", action="append", default=[],
        help="the folder of one more row, runs/TABLE/ROW, to set beside the table's; again for more",
    )  # fmt: skip
    if writes:
        options.add_argument(
            "--out", type=Path, help="where to write (results/; with --runs, --add, --source runs/)"
        )
    options.add_argument(
        "--source", nargs="+", metavar=("wandb", "DIR"),
        help="`--source wandb`: the runs of a W&B project; `--source offline DIR`: W&B's offline "
        "runs under DIR",
    )  # fmt: skip
    options.add_argument("--project", default=PROJECT, help=f"on W&B (default: {PROJECT})")
    options.add_argument("--entity", help="a W&B team (default: your own)")
    return options


def wanted(options: argparse.ArgumentParser, arguments: argparse.Namespace) -> "Table":
    """The table that the command line asks for."""
    from experiments.runs import load_table, make_table, own_table

    if arguments.source is not None:
        if arguments.table is None and len(arguments.source) > 1:
            given = " ".join(arguments.source)
            options.error(
                f"--source {given} has no table's name before it: put the table's name before "
                f"--source, as in `{options.prog} {table_names()[0]} --source wandb`"
            )
        if arguments.table is None or arguments.runs is not None:
            options.error("--source goes with a table's name, and without --runs")
        spec = load_spec(arguments.table)
        records = _records(options, arguments, spec.name)
        return make_table(spec, records, arguments.add, f"--source {arguments.source[-1]}")
    if arguments.table is not None:
        return load_table(load_spec(arguments.table), arguments.runs, arguments.add)
    if arguments.runs is None or arguments.add:
        options.error(
            f"which table? {', '.join(table_names())}, or a .yaml file of your own, or --runs DIR "
            "for whatever runs lie there"
        )
    return own_table(arguments.runs)


def _records(
    options: argparse.ArgumentParser, arguments: argparse.Namespace, table: str
) -> "list[Record]":
    from experiments import sources

    match arguments.source:
        case ["wandb"]:
            return sources.from_wandb(table, arguments.project, arguments.entity)
        case ["offline", folder]:
            return sources.from_offline(table, Path(folder))
    options.error("--source must be `wandb`, or `offline DIR`")


def is_own(arguments: argparse.Namespace) -> bool:
    """Whether it shows a person's own runs, which have no place under results/."""
    return arguments.runs is not None or bool(arguments.add) or arguments.source is not None


def home(arguments: argparse.Namespace) -> Path:
    """Where tables and figures go by default."""
    return RUNS if is_own(arguments) else RESULTS


def spelled(module: str, argv: Sequence[str] | None) -> str:
    """The command as a person would give it again, wherever the records are by then."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--source", nargs="+")
    for name in ("--project", "--entity"):
        options.add_argument(name)
    _, rest = options.parse_known_args(sys.argv[1:] if argv is None else argv)
    return shlex.join(["python", "-m", module, *rest])


def write_text(path: Path, text: str) -> None:
    """Write a page."""
    with explained(path, "--out FILE"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def answer(make: Callable[[], int]) -> int:
    """The command's exit code; a person's mistake is one line, and 2."""
    try:
        return make()
    except (UserError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return MISTAKEN


def print_list() -> int:
    """Print the tables that there are, and what the committed runs of each took."""
    for name in table_names():
        spec = load_spec(name)
        print(f"{name:20}  {_done(spec):33}  {spec.title}")
    return 0


def _done(spec: TableSpec) -> str:
    """`10 of 82 rows, 10 runs, 0.7 h`: of one process each, and of no run of another table."""
    rows = [list((RESULTS / "runs" / spec.name / row.name).glob("seed*.json")) for row in spec.rows]
    records = [read_json(path) for row in rows for path in row]
    own = [r for r in records if not r.get("taken_from")]
    hours = sum(r["time_s"] for r in own if isinstance(r.get("time_s"), float)) / 3600
    took = f", {len(records)} runs, {hours:.1f} h" if records else ""
    return f"{sum(map(bool, rows))} of {len(rows)} rows{took}"
