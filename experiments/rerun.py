"""The runs of a table anew: `python -m experiments.rerun family_nano seed=1,2,3,4`.

The table's own command or commands, each a sweep by train.py; what is finished is skipped, what was
stopped goes on. Overrides are added to each command; one for a key that it has already takes its place.
"""

import argparse
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from common.errors import UserError
from experiments.command import answer
from experiments.spec import RESULTS, TableSpec, load_spec, table_names

TRAIN = RESULTS.parent / "train.py"
PYTHON = ["python", "train.py"]


def commands(spec: TableSpec, overrides: Sequence[str]) -> list[list[str]]:
    """The arguments of train.py, a list for each of the table's commands.

    Raises UserError where the table's runs are made by more than train.py.
    """
    given = {override.partition("=")[0] for override in overrides}
    found = []
    for words in map(shlex.split, spec.command.split(" && ")):
        if words[:2] != PYTHON:
            raise UserError(
                f"table={spec.name!r} is made by more than train.py: run it yourself: {spec.command}"
            )
        own = [word for word in words[2:] if word.partition("=")[0] not in given]
        found.append([*own, *overrides])
    return found


def run(arguments: Sequence[str]) -> int:
    """Run train.py; its exit code. It gets the signals, and what it does on them is waited for."""
    process = subprocess.Popen([sys.executable, str(TRAIN), *arguments])
    with process, _passing_on(process):
        code = process.wait()
    return 128 - code if code < 0 else code


@contextmanager
def _passing_on(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Ctrl-C reaches both of a terminal's processes, a SIGTERM this one alone."""
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None),
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: process.terminate()),
    }
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the table's commands in turn, up to one that fails; its exit code."""
    options = argparse.ArgumentParser(
        prog="python -m experiments.rerun",
        description="Train the runs of a table by its own commands; what is finished is skipped.",
    )
    options.add_argument("table", help=f"one of {', '.join(table_names())}, or a .yaml file")
    options.add_argument(
        "overrides",
        nargs="*",
        metavar="OVERRIDE",
        help="of train.py: seed=1,2",
    )
    given = options.parse_args(argv)

    def make() -> int:
        for arguments in commands(load_spec(given.table), given.overrides):
            print("$", shlex.join([*PYTHON, *arguments]), flush=True)
            code = run(arguments)
            if code:
                return code
        return 0

    return answer(make)


if __name__ == "__main__":
    sys.exit(main())
