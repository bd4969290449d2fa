"""SIGKILL of a run, of a rank of two, of a sweep or a job of it."""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.soak.runs import RUN, STEPS, Nursery, Process, ending, ending_of, wait_for_line
from tests.soak.tally import (
    HANG,
    SURVIVED,
    SWEEP_LIMIT_S,
    TRACEBACK,
    WRONG,
    Tally,
    is_alive,
    wait_at_most,
)


def kills(nursery: Nursery, place: Path, chance: random.Random, tries: int, tally: Tally) -> None:
    """SIGKILL of a run, of a rank of two, of a sweep or a job of it, at a moment that chance sets."""
    place.mkdir()
    nursery.run(place / "whole")
    expected = ending(place / "whole")
    join(nursery.start_ranks(2, place / "ranks"))
    of_ranks = ending(place / "ranks")
    sweep = ("hydra.mode=MULTIRUN", "seed=1,2", "hydra.launcher.workers=2")
    nursery.run(place / "sweep", *sweep)
    of_sweep = endings(place / "sweep")
    for n in range(tries):
        start = partial(_start, nursery, place / f"run{n}")
        _kill_somewhere(start, place / f"run{n}", chance)
        _again("a run killed", start, place / f"run{n}", expected, ending, tally)
        if n % 2 == 0:
            start = partial(nursery.start_ranks, 2, place / f"ranks{n}")
            _kill_somewhere(start, place / f"ranks{n}", chance)
            _again("a rank of two killed", start, place / f"ranks{n}", of_ranks, ending, tally)
        if n % 5 == 0:
            start = partial(_start, nursery, place / f"sweep{n}", *sweep)
            sort = kill_of_sweep(start, place / f"sweep{n}", chance)
            _again(sort, start, place / f"sweep{n}", of_sweep, endings, tally)


Start = Callable[[], list[Process]]


def _start(nursery: Nursery, own: Path, *arguments: str) -> list[Process]:
    return [nursery.start(own, *arguments)]


def join(processes: list[Process]) -> list[int | None]:
    return [wait_at_most(process, SWEEP_LIMIT_S) for process in processes]


def endings(runs_dir: Path) -> dict[str, Any]:
    """The endings of a sweep's runs."""
    found = sorted(path.parent for path in runs_dir.glob(f"{RUN}/config.yaml"))
    return {path.name: ending_of(path) for path in found}


def _kill_somewhere(start: Start, own: Path, chance: random.Random) -> None:
    processes = start()
    wait_for_line(own, processes[0], chance.randint(1, STEPS))
    time.sleep(chance.uniform(0, 0.1))
    chance.choice(processes).send(signal.SIGKILL)
    join(processes)


def kill_of_sweep(start: Start, own: Path, chance: random.Random) -> str:
    """Kill one of its jobs, or the sweep with all its jobs, as when the machine loses its power."""
    (process,) = start()
    wait_for_line(own, process, chance.randint(1, 2 * STEPS))
    jobs = _children(process.pid)
    if jobs and chance.random() < 0.5:
        os.kill(chance.choice(jobs), signal.SIGKILL)
        wait_at_most(process)
        return "a job of a sweep killed"
    process.send(signal.SIGKILL)
    for pid in filter(is_alive, jobs):
        os.kill(pid, signal.SIGKILL)
    process.wait()
    return "a sweep and its jobs killed"


def _children(pid: int) -> list[int]:
    try:
        return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _again(
    sort: str,
    start: Start,
    own: Path,
    expected: dict[str, Any],
    end: Callable[[Path], dict[str, Any]],
    tally: Tally,
) -> None:
    """The same command again ends as if nothing had been."""
    processes = start()
    codes = join(processes)
    said = "\n".join(process.said for process in processes)
    if None in codes:
        outcome = HANG
    elif "Traceback" in said:
        outcome = TRACEBACK
    else:
        outcome = SURVIVED if not any(codes) and end(own) == expected else WRONG
    tally.add(sort, outcome, own.name, said)
    shutil.rmtree(own)
