"""`python -m tests.soak --hostile`: wrong words, damaged files and kills, by the hundred.

Whatever is tried must end in one of four ways: refused in a line that names what is wrong, taken and
done as it was said, gone on with bit for bit, or gone on with what is missing said. What ends
otherwise is silently wrong, a traceback or a hang, and is kept with its command.
"""

import random
from pathlib import Path

from tests.soak.damage import files
from tests.soak.kills import kills
from tests.soak.runs import Nursery
from tests.soak.tally import BAD, GOOD, Tally
from tests.soak.words import words


def attack(place: Path, seed: int, tries: int) -> Tally:
    """Everything, with `tries` of each sort that goes by chance."""
    chance, tally = random.Random(seed), Tally()
    with Nursery(place) as nursery:
        for part in (words, files, kills):
            part(nursery, place / part.__name__, chance, tries, tally)
    return tally


def summarize(tally: Tally, seconds: float, command: str, where: str) -> str:
    """The counts as a page."""
    sorts = list(dict.fromkeys(sort for sort, _ in tally.ended))
    lines = [
        "# Hostile",
        "",
        f"`{command}`, {seconds / 60:.0f} minutes ({where}): "
        f"{tally.ended.total()} tried, "
        + ", ".join(f"{sum(tally.ended[s, o] for s in sorts)} {o}" for o in (*GOOD, *BAD))
        + ".",
        "",
        "| tried | n | " + " | ".join((*GOOD, *BAD)) + " |",
        "|---|" + "--:|" * (1 + len(GOOD) + len(BAD)),
    ]
    for sort in sorts:
        counts = [tally.ended[sort, outcome] for outcome in (*GOOD, *BAD)]
        lines.append(f"| {sort} | {sum(counts)} | " + " | ".join(map(str, counts)) + " |")
    for bad in tally.bad:
        lines += ["", "```", bad, "```"]
    return "\n".join(lines) + "\n"
