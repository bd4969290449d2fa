"""The standard library of the running Python as articles: `python -m data.python_library OUT.jsonl`.

One line a file, {"text": ..., "topic": the module's name}, in the order of their paths. Tests and the
libraries that came by pip are left out. Another version of Python is another text, which the
fingerprint of the tokens tells apart.
"""

import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from data.json_lines import write_lines

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
    library = Path(sysconfig.get_path("stdlib"))
    what = f"modules of Python {sys.version.split()[0]}"
    return write_lines("python_library", lambda: articles(library), what)


if __name__ == "__main__":
    sys.exit(main())
