"""The standard library of the running Python as articles: `python -m data.python_library OUT.jsonl`.

One line a file, {"text": ..., "topic": the module's name}, in the order of their paths. Tests and the
libraries that came by pip are left out. Another version of Python is another text, which the
fingerprint of the tokens tells apart.
"""

import json
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from common.files import write_atomically

LEFT_OUT = frozenset({"site-packages", "dist-packages", "test", "tests", "__pycache__"})


def articles(library: Path) -> Iterator[dict[str, str]]:
    """Every module's text that is UTF-8 and not empty."""
    for path in sorted(library.rglob("*.py")):
        place = path.relative_to(library)
        if LEFT_OUT & set(place.parts[:-1]):
            continue
        try:
            text = path.read_text(encoding="utf-8").strip()
        except UnicodeDecodeError:
            continue
        if text:
            yield {"text": text, "topic": place.parts[0].removesuffix(".py")}


def main() -> int:
    """Write the file that the one argument names; 0, or 2 without one."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print("usage: python -m data.python_library OUT.jsonl", file=sys.stderr)
        return 2
    lines = [json.dumps(one) for one in articles(Path(sysconfig.get_path("stdlib")))]
    try:
        write_atomically(Path(sys.argv[1]), "".join(f"{line}\n" for line in lines))
    except OSError as error:
        print(f"error: {error}: name a file in a folder that there is", file=sys.stderr)
        return 2
    print(f"{sys.argv[1]}: {len(lines)} modules of Python {sys.version.split()[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
