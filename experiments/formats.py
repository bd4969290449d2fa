"""Numbers, intervals and small tables as Markdown text."""

import re
from collections.abc import Iterable, Sequence

from tabulate import tabulate

from experiments.statistics import Interval

NOTHING = "–"


def loss(value: float | None) -> str:
    """A loss in nats, to three places."""
    return NOTHING if value is None else f"{value:.3f}"


def share(value: float | None) -> str:
    """A share of ones, to four places; powers of ten where that would say 0.0000."""
    if value is None:
        return NOTHING
    return f"{value:.2e}".replace("e-0", "e-") if 0 < value < 5e-5 else f"{value:.4f}"


def signed(value: float) -> str:
    """A difference with its sign, a true minus, and no negative zero."""
    text = f"{value:+.3f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def bounds(interval: Interval | None, places: int = 3) -> str:
    """`[3.940, 3.970]`; a dash where there is no interval."""
    if interval is None or interval.low is None or interval.high is None:
        return NOTHING
    return f"[{interval.low:.{places}f}, {interval.high:.{places}f}]".replace("-", "−")


def p_value(p: float | None) -> str:
    """A p-value to three places."""
    if p is None:
        return NOTHING
    return "< 0.001" if p < 5e-4 else f"{p:.3f}"


def count(value: float | None) -> str:
    """A count, in full: `15,441,192`."""
    return NOTHING if value is None else f"{value:,.0f}"


def quantity(value: float | None) -> str:
    """Three digits with an SI prefix: `3.42 M`."""
    if value is None:
        return NOTHING
    prefixes = ("", " k", " M", " G", " T", " P")
    power = 0
    while abs(value) >= 999.5 and power < len(prefixes) - 1:
        value, power = value / 1000, power + 1
    places = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:.{places}f}{prefixes[power]}"


def duration(seconds: float | None) -> str:
    """`48 s`, `3 min 05 s`, `2 h 07 min`."""
    if seconds is None:
        return NOTHING
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def memory(number_of_bytes: float | None) -> str:
    """Bytes in MiB below one GiB, in GiB above."""
    if number_of_bytes is None:
        return NOTHING
    mebibytes = number_of_bytes / 2**20
    return f"{mebibytes:.0f} MiB" if mebibytes < 1024 else f"{mebibytes / 1024:.1f} GiB"


def seed_list(seeds: Iterable[int]) -> str:
    """`1, 2, 3`."""
    return ", ".join(str(seed) for seed in sorted(seeds)) or NOTHING


def plain(text: str, most: int = 200) -> str:
    """Text from outside as Markdown shows it letter by letter: one line, no markup, not endless."""
    line = " ".join(text.split())
    line = line if len(line) <= most else f"{line[: most - 1]}…"
    line = re.sub(r"([\\`*\[\]|])", r"\\\1", line).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"^([#>+=~-])", r"\\\1", line)


def folded(summary: str, text: str) -> str:
    """A part of a page that opens on a click."""
    return f"<details>\n<summary>{summary}</summary>\n\n{text}\n\n</details>"


def code(text: str) -> str:
    """Text from outside as code, in a cell too."""
    line = " ".join(text.split()).replace("`", "'").replace("|", "\\|")
    return f"`{line}`" if line else NOTHING


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = ()) -> str:
    """A Markdown table: numbers to the right; the first column and those in `left` to the left."""
    sides = ["left" if column in (0, *left) else "right" for column in range(len(header))]
    return tabulate(rows, list(header), "pipe", disable_numparse=True, colalign=sides)
