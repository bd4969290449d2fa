"""What the commands that write a text have in common: one argument, a line an article, an outcome."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from common.errors import MISTAKEN
from common.files import write_atomically


def write_lines(module: str, records: Callable[[], Iterable[Mapping[str, Any]]], what: str) -> int:
    """Write them to the file that the command's one argument names; 0, or 2 for a person's mistake.

    `records` may raise ImportError for a package that is not there, whose extra bears `module`'s name.
    """
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        return _told(f"usage: python -m data.{module} OUT.jsonl")
    try:
        lines = [json.dumps(record) for record in records()]
        write_atomically(Path(sys.argv[1]), "".join(f"{line}\n" for line in lines))
    except ImportError as error:
        return _told(f"error: {error}: pip install -c constraints.txt -e '.[{module}]'")
    except OSError as error:
        return _told(f"error: {error}: name a file in a folder that there is")
    print(f"{sys.argv[1]}: {len(lines)} {what}")
    return 0


def _told(line: str) -> int:
    print(line, file=sys.stderr)
    return MISTAKEN
