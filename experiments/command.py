"""The command line that tables and figures share: which table, of which runs, written where."""

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import MISTAKEN, UserError
from common.files import explained
from experiments.spec import RESULTS, RUNS, load_spec, table_names

if TYPE_CHECKING:
    from experiments.runs import Table


def parser(prog: str, made: str) -> argparse.ArgumentParser:
    """Options that choose a table and its runs."""
    names = ", ".join(table_names())
    options = argparse.ArgumentParser(
        prog=f"python -m experiments.{prog}", description=f"Make {made} from records of runs."
    )
    options.add_argument("table", nargs="?", help=f"one of {names}, or a .yaml file of your own")
    options.add_argument("--list", action="store_true", help="print the names of the tables")
    options.add_argument(
        "--runs", type=Path, metavar="DIR", help="the folder above the rows (results/runs/TABLE); "
        "without a table, a row for each kind of run in it",
    )  # fmt: skip
    options.add_argument(
        "--add", type=Path, metavar="DIR", action="append", default=[],
        help="the folder of one more row, runs/TABLE/ROW, to set beside the table's; again for more",
    )  # fmt: skip
    options.add_argument(
        "--out", type=Path, help="where to write (under results/; with --runs or --add under runs/)"
    )
    return options


def wanted(options: argparse.ArgumentParser, arguments: argparse.Namespace) -> "Table":
    """The table that the command line asks for."""
    from experiments.runs import load_table, own_table

    if arguments.table is not None:
        return load_table(load_spec(arguments.table), arguments.runs, arguments.add)
    if arguments.runs is None or arguments.add:
        options.error(
            f"which table? {', '.join(table_names())}, or a .yaml file of your own, or --runs DIR "
            "for whatever runs lie there"
        )
    return own_table(arguments.runs)


def is_own(arguments: argparse.Namespace) -> bool:
    """Whether it shows a person's own runs, which have no place under results/."""
    return arguments.runs is not None or bool(arguments.add)


def home(arguments: argparse.Namespace) -> Path:
    """Where tables and figures go by default."""
    return RUNS if is_own(arguments) else RESULTS


def spelled(module: str, argv: Sequence[str] | None) -> str:
    """The command as a person would give it again."""
    return shlex.join(["python", "-m", module, *(sys.argv[1:] if argv is None else argv)])


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
    """Print the tables that there are."""
    print("\n".join(f"{name:20} {load_spec(name).title}" for name in table_names()))
    return 0
