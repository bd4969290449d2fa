"""Records to a page: `python -m experiments.table published_nano`, or `--runs DIR` for any runs."""

import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.command import (
    answer,
    home,
    is_own,
    parser,
    print_list,
    spelled,
    wanted,
    write_text,
)

SUFFIXES = {"markdown": "md", "latex": "tex", "csv": "csv"}


def main(argv: Sequence[str] | None = None) -> int:
    """Write the table; 0, or 2 for an error that a person can put right."""
    options = parser("table", "a page")
    options.add_argument("--format", choices=SUFFIXES, default="markdown")
    arguments = options.parse_args(argv)

    def make() -> int:
        if arguments.list:
            return print_list()
        # Not before they are needed: --list and --help answer at once.
        from experiments import page, papers

        table = wanted(options, arguments)
        command = spelled("experiments.table", argv)
        figures = home(arguments) / "figures"
        drawn = [
            name for name in page.PICTURES if (figures / f"{table.spec.name}_{name}.svg").is_file()
        ]
        text = {
            "markdown": lambda: page.render(table, command, drawn),
            "latex": lambda: papers.latex(table, command),
            "csv": lambda: papers.csv(table),
        }[arguments.format]()
        name = f"{table.spec.name}.{SUFFIXES[arguments.format]}"
        out: Path = arguments.out or home(arguments) / "tables" / name
        write_text(out, text)
        if is_own(arguments) and arguments.format == "markdown":
            print(f"{page.glance(table)}\n")
        print(out)
        return 0

    return answer(make)


if __name__ == "__main__":
    sys.exit(main())
