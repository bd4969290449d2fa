"""A search of real, tiny runs: killed, it goes on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel to tell the child"),
]

REPOSITORY = Path(__file__).parents[2]
PATIENCE_S = 600
TINY = (
    "tracker=none", "device=cpu", "dtype=float32", "data.vocab_size=512", "steps=60", "log_every=10",
    "data.max_train_tokens=20000", "batch_size=4", "micro_batch_size=4", "save_every=20",
    "eval_every=10", "model.n_layer=1", "model.n_embd=16", "model.n_head=2", "model.block_size=16",
    "evaluate.windows=4", "evaluate.final_windows=4", "evaluate.batch_size=4",
)  # fmt: skip


SPACE = """\
title: One seed
overrides: [dropout=none]
seeds: [1]
parameters:
  optimizer.lr: {low: 0.001, high: 0.01, log: true}
"""


def start(place: Path) -> subprocess.Popen[str]:
    (space := place.with_name("space.yaml")).write_text(SPACE)
    command = [sys.executable, "-m", "search", str(space), "--trials", "3", "--runs", str(place)]
    return subprocess.Popen(
        [*command, *TINY],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=PATIENCE_S)
    print(output)
    return output


def until(ready: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not ready():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def runs(place: Path) -> set[str]:
    return {str(file.parent.relative_to(place)) for file in place.rglob("summary.json")}


def test_a_search_that_is_killed_goes_on_and_ends_as_one_that_was_not(tmp_path):
    undisturbed = start(tmp_path / "undisturbed")
    output = ended(undisturbed)
    assert undisturbed.returncode == 0
    assert "Trials: 3 complete." in output

    place = tmp_path / "killed"
    killed = start(place)
    until(lambda: any(file.stat().st_size for file in place.rglob("metrics.jsonl")))
    os.kill(killed.pid, signal.SIGKILL)
    ended(killed)
    # Its run hears of it, saves and lets go of its directory.
    until(lambda: all('"interrupted"' in f.read_text() for f in place.rglob("record.json")))
    again = start(place)
    output = ended(again)
    assert again.returncode == 0
    assert "Trials: 3 complete." in output
    assert "going on from step" in (place / "searches/space/logs/trial0-seed1.log").read_text()
    assert runs(place) == runs(tmp_path / "undisturbed")
    pages = [(p / "searches/space/study.md").read_text() for p in (place, tmp_path / "undisturbed")]
    best = [page.split("## Best trials")[1] for page in pages]
    assert best[0] == best[1]
