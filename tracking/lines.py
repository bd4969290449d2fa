"""Files of JSON lines that only grow, and survive a kill at any byte."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.door import typed
from common.errors import UserError
from common.files import StorageError, explained, read_regular, to_json, write_atomically
from tracking.door import ANEW, Line, check_text

MAX_BYTES = 2**30  # a million lines, ten times over


class JsonLines:
    """The lines of a run, each with its `step`, appended one by one and flushed.

    Opening it for a run that goes on from `step` drops the lines of later steps, which will be
    computed again, and a last line torn by a kill; what is left is `earlier`. A line of the very
    step that is made again has the same bits, and is not written twice.
    """

    def __init__(self, path: Path, step: int) -> None:
        self._path, self._step = path, step
        self.earlier = [line for line in read_lines(path) if line["step"] <= step]
        self._repeated = {frozenset(line) for line in self.earlier if line["step"] == step}
        with explained(path):
            write_atomically(path, "".join(to_json(line) + "\n" for line in self.earlier))
            self._file = path.open("ab", buffering=0)

    def append(self, line: Mapping[str, Any]) -> bool:
        """Write a line; False where the file has it from before. StorageError where it can't."""
        if line["step"] == self._step and frozenset(line) in self._repeated:
            return False
        rest = (to_json(line) + "\n").encode()
        with explained(self._path):
            while rest:  # a disk that fills up may take a part first
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file)  # no checkpoint may outlive the lines before it
        return True

    def close(self) -> None:
        self._file.close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of such a file, without a last one that was torn; none where there is no file.

    UserError, with the line's number, where an earlier line is damaged or holds what no run writes.
    """
    if not os.path.lexists(path):
        return []
    try:
        *lines, _torn = read_regular(path, MAX_BYTES).split(b"\n")
    except StorageError:
        raise
    except UserError as error:
        raise UserError(f"{error}: {ANEW}") from None
    return [_parse(path, number, line) for number, line in enumerate(lines, start=1)]


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(line.decode())
        if not isinstance(parsed, dict):
            raise UserError("no object with a step")
        typed(Line, parsed)
        if b"\\u" in line:
            check_text(parsed)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path} line {number} is damaged ({error}): remove that line, "
            "or run anew with fresh=true"
        ) from error
    return parsed
