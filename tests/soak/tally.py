"""How each thing that was tried ended, and how that is told from what a command said."""

import re
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.soak.runs import Process

REFUSED, TAKEN = "refused, and named", "taken as said"
SURVIVED, SAID = "survived bit for bit", "gone on, and said so"
WRONG, UNNAMED, TRACEBACK, HANG = "silently wrong", "refused unnamed", "traceback", "hang"
GOOD, BAD = (REFUSED, TAKEN, SURVIVED, SAID), (WRONG, UNNAMED, TRACEBACK, HANG)
LIMIT_S, SWEEP_LIMIT_S = 60.0, 300.0  # a sweep starts its jobs as processes of their own


@dataclass
class Tally:
    """What was tried, of which sort, how it ended, and the words of what ended badly."""

    ended: Counter[tuple[str, str]] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)

    def add(self, sort: str, outcome: str, what: str, said: str = "") -> None:
        self.ended[sort, outcome] += 1
        print(f"{self.ended.total():5d}  {sort}: {outcome}", file=sys.stderr, flush=True)
        if outcome in BAD:
            self.bad.append(f"{outcome}: {sort}: {what}\n{said[-1500:]}")
            print(self.bad[-1], file=sys.stderr, flush=True)


def wait_at_most(process: Process, limit_s: float = LIMIT_S) -> int | None:
    """Its exit code; None, and it is killed, where it takes longer."""
    deadline = time.monotonic() + limit_s
    while is_alive(process.pid):
        if time.monotonic() > deadline:
            process.send(signal.SIGKILL)
            process.wait()
            return None
        time.sleep(0.01)
    return process.wait()


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def refusal(code: int | None, said: str, names: str) -> str | None:
    """How a command ended that was refused, None for one that was taken."""
    if code is None:
        return HANG
    if "Traceback" in said:
        return TRACEBACK
    if code == 0:
        return None
    plain = " ".join(said.split())
    return REFUSED if code > 0 and re.search(names, plain) else UNNAMED
