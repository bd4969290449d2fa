"""Damaged files of runs, gone on with and read, and checkpoints that are not the run's own."""

import json
import os
import random
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

from tests.soak.runs import Nursery, ending, run_directory
from tests.soak.tally import SAID, SURVIVED, TAKEN, WRONG, Tally, refusal, wait_at_most
from tracking import checkpoint


def files(nursery: Nursery, place: Path, chance: random.Random, tries: int, tally: Tally) -> None:
    """Runs whose files were damaged, gone on with or read; and checkpoints that are another's."""
    place.mkdir()
    nursery.run(place / "whole")
    expected = ending(place / "whole")
    stopped = nursery.start(place / "stopped", plant=(("send_signal", ["step", 7, "SIGTERM"]),))
    assert stopped.wait() == 75, stopped.said
    for n in range(tries):
        go_on_after_damage(nursery, place, n, chance, expected, tally)
        read_after_damage(nursery, place, n, chance, tally)
    others_checkpoint(nursery, place, expected, tally)
    forged_step(nursery, place, expected, tally)
    linked_lock(nursery, place, tally)


def _damage(directory: Path, chance: random.Random) -> str:
    """Damage one file of a run; its name."""
    every = sorted(p for p in directory.rglob("*") if p.is_file() and p.name != "lock")
    path = chance.choice(every)
    content = bytearray(path.read_bytes())
    at = chance.randrange(len(content)) if content else 0
    kind = chance.choice(
        ("cut", "insert", "garbage", "empty", "gone", "directory", "deep", "binary")
    )
    if kind == "cut":
        del content[at:]
    elif kind == "insert":
        content[at:at] = bytes(chance.randrange(256) for _ in range(4))
    elif kind == "garbage":
        content[at : at + 8] = b"\xff" * 8
    elif kind == "empty":
        content.clear()
    elif kind == "deep":
        content[:] = b'{"a":' * 5000
    elif kind == "binary":
        content[:] = os.urandom(200)
    path.unlink()
    if kind == "directory":
        path.mkdir()
    elif kind != "gone":
        path.write_bytes(content)
    return f"{path.relative_to(directory)} {kind}"


def _named(what: str) -> str:
    """A pattern for the file that was damaged, or for what it makes useless."""
    name = what.split()[0].rpartition("/")[2]
    return rf"{re.escape(name)}|checkpoint|seed\d+-"


def go_on_after_damage(
    nursery: Nursery,
    place: Path,
    n: int,
    chance: random.Random,
    expected: dict[str, Any],
    tally: Tally,
) -> None:
    """The same command, on an interrupted run with one file damaged."""
    own = place / f"stopped{n}"
    shutil.copytree(place / "stopped", own)
    what = _damage(run_directory(own), chance)
    process = nursery.start(own)
    code = wait_at_most(process)
    outcome = refusal(code, process.said, _named(what)) or _after(own, expected)
    tally.add("damaged files, gone on with", outcome, what, process.said)
    shutil.rmtree(own)


def _after(own: Path, expected: dict[str, Any]) -> str:
    try:
        found = ending(own)
    except (AssertionError, OSError, ValueError, KeyError):  # no end that can be compared
        return WRONG
    if found == expected:
        return SURVIVED
    record = json.loads((run_directory(own) / "record.json").read_text())
    log = (run_directory(own) / "log.txt").read_text()
    told = record["missing_evaluations"] or "media.jsonl has lost" in log
    lines = ("metrics", "curve", "samples", "best")  # what lines that were lost can change
    same = all(found[part] == expected[part] for part in expected if part not in lines)
    return SAID if told and same else WRONG


def read_after_damage(
    nursery: Nursery, place: Path, n: int, chance: random.Random, tally: Tally
) -> None:
    """The commands that read a finished run, on one with a file damaged."""
    own = place / f"whole{n}"
    shutil.copytree(place / "whole", own)
    run = run_directory(own)
    what = _damage(run, chance)
    script, *rest = chance.choice(
        (
            ["evaluate.py", "--run", str(run), "--split", "val"],
            ["evaluate.py", "--run", str(run), "--split", "test", "--record"],
            ["sample.py", "--run", str(run), "--prompt", "the", "--tokens", "4"],
            ["inspect_masks.py", "--run", str(run), "--windows", "8"],
            ["experiments.table", "--runs", str(run.parents[1])],
            ["train.py"],
        )
    )
    again = script == "train.py"
    process = nursery.start(own) if again else nursery.start_script(script, *rest)
    code = wait_at_most(process)
    outcome = refusal(code, process.said, _named(what)) or TAKEN
    tally.add("damaged files, read", outcome, f"{what}: {script} {shlex.join(rest)}", process.said)
    shutil.rmtree(own)


def others_checkpoint(
    nursery: Nursery, place: Path, expected: dict[str, Any], tally: Tally
) -> None:
    """Another seed's checkpoints in the place of one's own."""
    other = place / "other"
    stopped = nursery.start(other, "seed=2", plant=(("send_signal", ["step", 7, "SIGTERM"]),))
    assert stopped.wait() == 75, stopped.said
    own = place / "exchanged"
    shutil.copytree(place / "stopped", own)
    into = run_directory(own) / "checkpoints"
    shutil.rmtree(into)
    shutil.copytree(run_directory(other) / "checkpoints", into)
    _go_on("another run's checkpoint", own, nursery, expected, tally)


def forged_step(nursery: Nursery, place: Path, expected: dict[str, Any], tally: Tally) -> None:
    """A step of 10^9 in the newest checkpoint, with a manifest that agrees."""
    own = place / "forged"
    shutil.copytree(place / "stopped", own)
    newest = checkpoint.latest_checkpoint(run_directory(own) / "checkpoints")
    assert newest is not None
    facts = json.loads((newest.path / checkpoint.FACTS).read_text())
    facts["progress"]["step"] = 10**9
    (newest.path / checkpoint.FACTS).write_text(json.dumps(facts))
    (newest.path / checkpoint.MANIFEST).write_bytes(checkpoint._manifest(newest.path))
    _go_on("a forged step", own, nursery, expected, tally)


def _go_on(sort: str, own: Path, nursery: Nursery, expected: dict[str, Any], tally: Tally) -> None:
    process = nursery.start(own)
    outcome = refusal(wait_at_most(process), process.said, "checkpoint") or _after(own, expected)
    tally.add(sort, outcome, sort, process.said)


def linked_lock(nursery: Nursery, place: Path, tally: Tally) -> None:
    """A lock that is a link to somebody's file: neither followed nor emptied."""
    own, target = place / "linked", place / "precious"
    shutil.copytree(place / "stopped", own)
    target.write_text("precious")
    lock = run_directory(own) / "lock"
    lock.unlink(missing_ok=True)
    lock.symlink_to(target)
    process = nursery.start(own)
    outcome = refusal(wait_at_most(process), process.said, "lock") or WRONG
    if target.read_text() != "precious":
        outcome = WRONG
    tally.add("a linked lock", outcome, "lock", process.said)
