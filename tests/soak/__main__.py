"""`python -m tests.soak --minutes 10`: faults of every sort at random, and a summary of what was lost.

Each trial starts a small run, injects a fault, gives the same command again, and compares the end
with that of an undisturbed run, to the last bit. `--write FILE` keeps the summary. `--hostile` tries
wrong words, damaged files and kills of runs, ranks and sweeps instead, `--tries` of each sort.
"""

import argparse
import os
import platform
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch

from tests.soak import hostile
from tests.soak.faults import TOO_LATE, Trial, killed_at_random, sorts
from tests.soak.runs import Nursery, ending, training_s
from tracking import provenance

LOST = "lost"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--kills", type=int, default=50, help="random kills, at least")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path, help="a file for the summary")
    parser.add_argument("--hostile", action="store_true", help="what a hostile user would try")
    parser.add_argument("--tries", type=int, default=50, help="of each sort, with --hostile")
    options = parser.parse_args()
    if options.hostile:
        return try_hostile(options)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak-") as place:
        counts, lost = soak(Path(place), options.minutes * 60, options.kills, options.seed)
    summary = summarize(counts, lost, time.monotonic() - began, options.seed)
    print(summary)
    if options.write:
        options.write.write_text(summary)
    return 1 if lost else 0


def try_hostile(options: argparse.Namespace) -> int:
    """Print and write the counts; 1 where anything ended badly."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hostile-") as place:
        tally = hostile.attack(Path(place), options.seed, options.tries)
    command = f"python -m tests.soak --hostile --seed {options.seed} --tries {options.tries}"
    summary = hostile.summarize(tally, time.monotonic() - began, command, machine())
    print(summary)
    if options.write:
        options.write.write_text(summary)
    return 1 if tally.bad else 0


def machine() -> str:
    """What ran: versions, cores and code."""
    code = provenance.code_facts()
    return (
        f"torch {torch.__version__}, Python {platform.python_version()}, "
        f"{os.cpu_count()} CPU cores, commit {str(code['commit'])[:8]}"
    )


def soak(
    place: Path, duration_s: float, least_kills: int, seed: int
) -> tuple[Counter[str], list[str]]:
    """Every second trial is a kill at a random moment, the others take turns through the sorts.

    Returns counts of faults, and what was lost, once each sort has had its turn, enough kills were
    made and the time is over.
    """
    chance = random.Random(seed)
    counts, lost = Counter[str](), list[str]()
    turns = sorts(chance)
    with Nursery(place) as nursery:
        began = time.monotonic()
        nursery.run(place / "undisturbed")
        undisturbed = place / "undisturbed"
        trial = Trial(nursery, place, chance, ending(undisturbed), training_s(undisturbed))
        while (n := counts.total()) < 2 * len(turns) or (
            time.monotonic() - began < duration_s or kills(counts) < least_kills
        ):
            inject = killed_at_random if n % 2 else turns[n // 2 % len(turns)]
            try:
                fault = inject(replace(trial, place=place / f"run{n:05d}"))
            except (AssertionError, ValueError, OSError):
                fault = LOST
                lost.append(traceback.format_exc())
                print(lost[-1], file=sys.stderr)
            counts[fault] += 1
            print(f"{n:5d}  {fault}", file=sys.stderr, flush=True)
            shutil.rmtree(place / f"run{n:05d}", ignore_errors=True)
    return counts, lost


def kills(counts: Counter[str]) -> int:
    return sum(n for fault, n in counts.items() if fault.startswith("SIGKILL at a random"))


def summarize(counts: Counter[str], lost: list[str], duration_s: float, seed: int) -> str:
    counts = Counter({fault: n for fault, n in counts.items() if fault not in (LOST, TOO_LATE)})
    injected = counts.total() + len(lost)
    rows = [f"| {fault} | {n} |" for fault, n in sorted(counts.items())]
    outcome = (
        "Nothing was lost: after every fault the same command ended with the weights, optimizer "
        "state, metrics, best checkpoint and samples of the undisturbed run, bit for bit."
        if not lost
        else f"{len(lost)} of {injected} trials lost something:\n\n" + "\n".join(lost)
    )
    return "\n".join(
        [
            "# Soak",
            "",
            f"`python -m tests.soak --seed {seed}`: {injected} faults in {duration_s / 60:.1f} "
            "minutes, in runs with learned dropout, stochastic rounding and accumulation "
            f"({machine()}).",
            "",
            "| fault | injected |",
            "|---|--:|",
            *rows,
            "",
            outcome,
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
