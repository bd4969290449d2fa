"""The runs of a table anew: `python -m experiments.rerun family_nano seed=1,2,3,4`.

The table's own command or commands, each a sweep by train.py; what is finished is skipped, what was
stopped goes on. Overrides are added to each command; one for a key that it has already takes its place.
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from common.errors import INTERRUPTED, UserError
from experiments.command import answer
from experiments.publish import swept
from experiments.spec import RESULTS, TableSpec, load_spec, table_names

TRAIN = RESULTS.parent / "train.py"
PYTHON = ["python", "train.py"]


def commands(spec: TableSpec, overrides: Sequence[str]) -> list[list[str]]:
    """The arguments of train.py, a list for each of the table's commands.

    Raises UserError where the table's runs are made by more than train.py, and for an override of what
    tells its rows apart: all of its rows are meant.
    """
    given = {override.partition("=")[0] for override in overrides}
    found = []
    for words in _split(shlex.split(spec.command)):
        if words[:2] != PYTHON:
            raise UserError(
                f"table={spec.name!r} is made by more than train.py: run it yourself: {spec.command}"
            )
        rows = {word.partition("=")[0] for word in swept(words)} - {"seed"}
        if named := sorted(given & rows):
            raise UserError(
                f"{', '.join(named)}: rerun makes all rows of {spec.name}. For some of them give "
                f"`{shlex.join(words)}` with it yourself"
            )
        own = [word for word in words[2:] if word.partition("=")[0] not in given]
        found.append([*own, *overrides])
    return found


def _split(words: Sequence[str]) -> Iterator[list[str]]:
    """The commands between `&&`."""
    command: list[str] = []
    for word in [*words, "&&"]:
        if word == "&&":
            yield command
            command = []
        else:
            command.append(word)


def run(arguments: Sequence[str]) -> int:
    """Run train.py; its exit code, or INTERRUPTED where it ended well in spite of a signal."""
    process = subprocess.Popen([sys.executable, os.path.relpath(TRAIN), *arguments])
    with process, _signals(process) as received:
        code = process.wait()
    if code < 0:
        return 128 - code
    return code or (INTERRUPTED if received else 0)


@contextmanager
def _signals(process: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """The signals that came: a terminal sends its own to both, so SIGTERM alone is passed on."""
    received: list[int] = []

    def note(signum: int, _: object) -> None:
        received.append(signum)
        if signum == signal.SIGTERM:
            process.terminate()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, note) for number in numbers]
    try:
        yield received
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


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
