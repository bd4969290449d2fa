"""One trial of each sort: a run, a fault, the same command again, and an end equal to the last bit.

Each takes a `Trial` and returns what was injected, for the summary. AssertionError: something was
lost, or not said.
"""

import json
import math
import random
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.soak.runs import (
    STEPS,
    Nursery,
    Plant,
    Process,
    ending,
    run_directory,
    wait_for_line,
)
from tracking.checkpoint import FACTS, MANIFEST, TENSORS, latest_checkpoint

INTERRUPTED, IN_USE, NON_FINITE, USER_ERROR, MACHINE_ERROR = 75, 69, 3, 2, 1
TOO_LATE = "SIGKILL that came too late"
PARAMETER = "blocks.1.mlp.expand.weight"


@dataclass
class Trial:
    """A place for a run, chance, and how the undisturbed run ended and how long it trained."""

    nursery: Nursery
    place: Path
    chance: random.Random
    expected: dict[str, Any]
    training_s: float

    def start(self, *plant: Plant) -> Process:
        return self.nursery.start(self.place, plant=plant)

    def stop(self, *plant: Plant, code: int, says: str = "") -> Process:
        """Run into the planted fault; it must end with `code` and say `says`."""
        process = self.start(*plant)
        assert process.wait() == code, process.said
        assert re.search(says, process.said), (says, process.said)
        return process

    def go_on(self) -> Process:
        """The same command again ends as if nothing had been."""
        process = self.nursery.run(self.place)
        assert ending(self.place) == self.expected, process.said
        return process

    @property
    def checkpoints(self) -> Path:
        return run_directory(self.place) / "checkpoints"


def killed_at_random(trial: Trial) -> str:
    """SIGKILL at a moment that nobody chose; one in five hits the start-up, most likely."""
    phase_file = trial.place.with_suffix(".phase")
    process = trial.start(("note_phases", [str(phase_file)]))
    if trial.chance.random() < 0.2:
        time.sleep(trial.chance.uniform(0, trial.training_s))
    else:
        wait_for_line(trial.place, process, trial.chance.randint(1, STEPS + 1))
        time.sleep(trial.chance.uniform(0, 2 * trial.training_s / STEPS))
    process.send(signal.SIGKILL)
    killed = process.wait() == -signal.SIGKILL
    phase = phase_file.read_text().strip() if phase_file.exists() else "starting"
    phase_file.unlink(missing_ok=True)
    trial.go_on()
    return f"SIGKILL at a random moment: {phase}" if killed else TOO_LATE


def killed_in_files(trial: Trial, nth: int | None = None) -> str:
    """SIGKILL before a write, fsync, rename or removal of the record, the metrics or a checkpoint."""
    nth = trial.chance.randrange(1, 120) if nth is None else nth
    trial.stop(("kill_in_files", [nth]), code=-signal.SIGKILL)
    trial.go_on()
    return "SIGKILL at a write, fsync, rename or removal"


def stopped(trial: Trial, phase: str, nth: int, name: str) -> str:
    """A signal: the step is finished and saved, and the command that goes on is printed."""
    said = rf"{name}: finishing this step and saving.*To go on: python \S*train.py tracker=none"
    trial.stop(("send_signal", [phase, nth, name]), code=INTERRUPTED, says=f"(?s){said}")
    record = json.loads((run_directory(trial.place) / "record.json").read_text())
    assert record["status"] == "interrupted"
    trial.go_on()
    return f"{name} in a phase: {phase}"


def stopped_twice(trial: Trial, phase: str, nth: int, name: str) -> str:
    """The second signal ends the run at once."""
    code = 128 + signal.Signals[name]
    trial.stop(("send_signal", [phase, nth, name, name]), code=code, says=f"{name} again")
    trial.go_on()
    return f"{name} twice"


def handed_on(trial: Trial, nth: int, name: str) -> str:
    """A signal that somebody handled before, as submitit does: that handler is called once saved."""
    trial.stop(
        ("own_handler", [name, str(trial.place), 33]),
        ("send_signal", ["step", nth, name]),
        code=33,
        says=f"handed on: {name}, interrupted, saved at step {nth}\n",
    )
    trial.go_on()
    return f"{name} handed on"


def damaged(trial: Trial, name: str) -> str:
    """One bit of the newest checkpoint flips: named, and the one before it is used."""
    trial.stop(("send_signal", ["step", 7, "SIGTERM"]), code=INTERRUPTED)
    newest = latest_checkpoint(trial.checkpoints)
    assert newest is not None
    content = bytearray((newest.path / name).read_bytes())
    content[trial.chance.randrange(len(content))] ^= 1 << trial.chance.randrange(8)
    (newest.path / name).write_bytes(content)
    process = trial.go_on()
    told = process.said.replace("\n", "")
    assert "is damaged" in told or "cannot be read" in told, process.said
    assert newest.path.name in told, process.said
    assert re.search(r"going on from step 6 ", process.said), process.said
    return f"a flipped bit: {name}"


def not_finite(trial: Trial, kind: str, value: float) -> str:
    """A gradient or the loss is NaN or infinite: no update, step and parameter named, run failed."""
    process = trial.stop((f"spoil_{kind}", [6, PARAMETER, value]), code=NON_FINITE)
    assert "step 6" in process.said, process.said
    if kind == "gradient":
        assert PARAMETER in process.said, process.said
    record = json.loads((run_directory(trial.place) / "record.json").read_text())
    assert record["status"] == "failed"
    assert "step 6" in record["error"]
    last = latest_checkpoint(trial.checkpoints)
    assert last is not None
    assert last.facts["progress"]["step"] == 4
    trial.go_on()
    return f"{value} in a {kind}"


def out_of_memory(trial: Trial) -> str:
    said = "error: out of memory: a smaller micro_batch_size"
    trial.stop(("run_out_of_memory", [5]), code=MACHINE_ERROR, says=said)
    trial.go_on()
    return "out of memory"


def disk_full(trial: Trial, phase: str, nth: int, n_bytes: int) -> str:
    """No file may grow beyond some bytes: the metrics in a step, a checkpoint in a save."""
    said = r"error: cannot write \S+: the file size limit is reached.*runs_dir=DIR"
    process = trial.start(("limit_file_size", [phase, nth, n_bytes]))
    assert process.wait() in (USER_ERROR, MACHINE_ERROR), process.said
    assert re.search(said, process.said.replace("\n", " ")), process.said
    trial.go_on()
    return f"file size limit: {phase}"


def started_twice(trial: Trial) -> str:
    """A second process on the same run says who has it, and leaves it alone."""
    first = trial.start()
    wait_for_line(trial.place, first)
    first.send(signal.SIGSTOP)
    second = trial.start()
    code = second.wait()
    first.send(signal.SIGCONT)
    assert code == IN_USE, second.said
    assert f"is in use by process {first.pid}" in second.said.replace("\n", " "), second.said
    assert first.wait() == 0, first.said
    assert ending(trial.place) == trial.expected
    return "two processes on one run"


def sorts(chance: random.Random) -> list[Callable[[Trial], str]]:
    """Every sort but the random kill once, with moments and values by chance, in an order by chance."""
    name = chance.choice(["SIGTERM", "SIGINT"])
    other = {"SIGTERM": "SIGINT", "SIGINT": "SIGTERM"}[name]
    step, evaluation, save = (
        chance.randrange(1, STEPS),
        chance.randrange(1, 5),
        chance.randrange(1, 7),
    )
    phase = chance.choice(["step", "evaluation", "saving"])
    every: list[Callable[[Trial], str]] = [
        killed_in_files,
        killed_in_files,
        lambda trial: stopped(trial, "step", step, name),
        lambda trial: stopped(trial, "evaluation", evaluation, other),
        lambda trial: stopped(trial, "saving", save, name),
        lambda trial: handed_on(trial, step, "SIGUSR2"),
        lambda trial: stopped_twice(trial, phase, 3, name),
        lambda trial: stopped_twice(trial, phase, 3, other),
        lambda trial: damaged(trial, TENSORS),
        lambda trial: damaged(trial, FACTS),
        lambda trial: damaged(trial, MANIFEST),
        lambda trial: not_finite(trial, "gradient", math.nan),
        lambda trial: not_finite(trial, "gradient", math.inf),
        lambda trial: not_finite(trial, "weight", math.nan),
        out_of_memory,
        lambda trial: disk_full(trial, "step", 5, 8000),
        lambda trial: disk_full(trial, "saving", 2, 100_000),
        started_twice,
    ]
    chance.shuffle(every)
    return every
