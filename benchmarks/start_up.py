"""How long a command takes before it does its work."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from typing import Any

from benchmarks.contender import REPOSITORY
from benchmarks.measure import markdown

ROW = "start_up_benchmark"  # of the run that is made for this, and removed
COMMANDS = {
    "train.py --help": (["--help"], 1.0),
    "train.py --cfg job": (["--cfg", "job"], 1.0),
    "one step of nano, no compile, tokens cached": (
        [
            f"row_name={ROW}",
            "steps=1",
            "tracker=none",
            "evaluate.windows=2",
            "evaluate.final_windows=2",
        ],
        6.0,
    ),
}


def measure(repeats: int = 3) -> dict[str, Any]:
    """The best of some runs of each command, from its start to its end.

    The whole one-step run stands for "command to first step", though it also evaluates and saves.
    """
    rows, results = [], {}
    for name, (arguments, bar) in COMMANDS.items():
        results[name] = min(run(arguments) for _ in range(repeats))
        rows.append([name, f"{results[name]:.2f} s", f"{bar:.0f} s"])
    return {"table": markdown(["command", "time", "bar"], rows), "times_s": results}


def run(arguments: list[str]) -> float:
    """Seconds of one command. RuntimeError, with its output, where it fails."""
    shutil.rmtree(REPOSITORY / "runs" / "nano" / ROW, ignore_errors=True)
    command = [sys.executable, "train.py", *arguments]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    shutil.rmtree(REPOSITORY / "runs" / "nano" / ROW, ignore_errors=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
    return seconds
