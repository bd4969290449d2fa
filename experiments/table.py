"""Records to a Markdown page: `python -m experiments.table published_nano`."""

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments import sections
from experiments.heading import head
from experiments.reproduction import beside_published, reproduction
from experiments.runs import RESULTS, Table, load_table
from experiments.spec import load_spec, table_names

USER_ERROR = 2


def render(table: Table, command: str) -> str:
    """The page of a table: failures to reproduce first, then results, then what they cost."""
    parts = [
        head(table, command),
        reproduction(table),
        sections.unfinished(table),
        sections.final_loss(table),
        sections.best_loss(table),
        sections.test_loss(table),
        sections.differences(table) if table.spec.comparisons else "",
        sections.certainty(table),
        beside_published(table),
        sections.cost(table),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def parser(prog: str, made: str, out: str) -> argparse.ArgumentParser:
    """The command line that tables and figures share."""
    names = ", ".join(table_names())
    options = argparse.ArgumentParser(
        prog=f"python -m experiments.{prog}", description=f"Make {made} from records of runs."
    )
    options.add_argument("table", nargs="?", help=f"one of {names}, or a .yaml file of your own")
    options.add_argument("--list", action="store_true", help="print the names of the tables")
    options.add_argument(
        "--runs", type=Path, help="folder of <row>/seed<k>.json (results/runs/TABLE)"
    )
    options.add_argument("--out", type=Path, help=out)
    return options


def answer(
    options: argparse.ArgumentParser,
    arguments: argparse.Namespace,
    write: Callable[[Table], list[Path]],
) -> int:
    """List the tables, or write the one asked for and print where; the exit code."""
    try:
        if arguments.list:
            print("\n".join(f"{name:20} {load_spec(name).title}" for name in table_names()))
            return 0
        if arguments.table is None:
            options.error(f"which table? {', '.join(table_names())}, or a .yaml file of your own")
        print(*write(load_table(load_spec(arguments.table), arguments.runs)), sep="\n")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Write the table; 0, or 2 for an error that a person can put right."""
    options = parser("table", "a Markdown page", "the page (results/tables/TABLE.md)")
    arguments = options.parse_args(argv)
    words = sys.argv[1:] if argv is None else argv
    command = shlex.join(["python", "-m", "experiments.table", *words])

    def write(table: Table) -> list[Path]:
        out: Path = arguments.out or RESULTS / "tables" / f"{table.spec.name}.md"
        page = render(table, command)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page, encoding="utf-8")
        return [out]

    return answer(options, arguments, write)


if __name__ == "__main__":
    sys.exit(main())
