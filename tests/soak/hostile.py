"""`python -m tests.soak --hostile`: wrong words, damaged files and kills, by the hundred.

Whatever is tried must end in one of four ways: refused in a line that names what is wrong, taken and
done as it was said, gone on with bit for bit, or gone on with what is missing said. What ends
otherwise is silently wrong, a traceback or a hang, and is kept with its command.
"""

import json
import os
import random
import re
import shlex
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from cli.config import register_schema
from tests.soak.runs import (
    ROOT,
    RUN,
    STEPS,
    TINY,
    Nursery,
    Process,
    ending,
    ending_of,
    run_directory,
    wait_for_line,
)
from tracking import checkpoint

REFUSED, TAKEN = "refused, and named", "taken as said"
SURVIVED, SAID = "survived bit for bit", "gone on, and said so"
WRONG, UNNAMED, TRACEBACK, HANG = "silently wrong", "refused unnamed", "traceback", "hang"
GOOD, BAD = (REFUSED, TAKEN, SURVIVED, SAID), (WRONG, UNNAMED, TRACEBACK, HANG)
LIMIT_S, SWEEP_LIMIT_S = 60.0, 300.0  # a sweep starts its jobs as processes of their own

VALUES = (
    *("null", "true", "-1", "0", "7", "0.5", "1e308", "-1e308", "1e-320", "nan", "inf", "-inf"),
    *("''", "x", "[]", "{}", "[1,2]", "{a:{b:1}}", "../../x", "x" * 300, "'<script>'", "1" * 31),
    *("'a b'", "${oc.env:HOME}", "${nowhere}"),
)
# Left alone: places (a value is a directory that would be made), and what takes a minute.
PLACES = ("runs_dir", "data.cache_dir", "compile", "tracker", "hydra")
LONG = {("steps", "1" * 31)}  # a run of so many steps is a wish that can be begun

# Command lines, and what has to be said of each.
LINES = {
    "row=published/learned dropout=none": "row|dropout",
    "table=published dropout=none": "row|dropout",
    "table=/etc/x": "table",
    "table=../../x": "table",
    "row=..": "row",
    "row_name=..": "row_name",
    "row_name=a/b": "row_name",
    "table_name=../../x": "table_name",
    "scale=/etc/passwd": "scale",
    "dropout=../../x": "dropout",
    "+dropout.pp=0.3": "pp",
    "+evil=1": "evil",
    "schedule.min_lr=10": "min_lr",
    "optimizer.lr=1e12 schedule.warmup_steps=0 eval_every=1": "not finite|step",
    "batch_size=1000000000000 micro_batch_size=7": "micro_batch_size|batch_size",
    "model.n_layer=10000000": "n_layer|memory",
    "model.n_embd=100000000": "n_embd|memory",
    "model.mlp_ratio=0.001": "mlp_ratio|hidden",
    "model.vocab_size=2": "vocab",
    "runs_dir=/dev/null": "/dev/null",
    "dropout.mlp_output._target_=os.system": "_target_",
    "optimizer._target_=subprocess.Popen": "_target_",
    "hydra.launcher._target_=os.system": "hydra|launcher",
    "+hydra.callbacks.x._target_=os.system": "hydra|callbacks",
    "learning_rate=1": "optimizer.lr",
    "dropout.p=0.2": "p",
    "data.paths=/dev/zero": "/dev/zero",
    "data.paths=[]": "paths",
    "init_from=/etc": "init_from|config.yaml",
    "seed=1,2": "seed",
    "steps": "steps",
    "=": "=",
    "--nonsense": "nonsense",
}


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
    while _alive(process.pid):
        if time.monotonic() > deadline:
            process.send(signal.SIGKILL)
            process.wait()
            return None
        time.sleep(0.01)
    return process.wait()


def _alive(pid: int) -> bool:
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


# --- words ---


def keys() -> list[str]:
    """Every key of the config that a person can set."""
    register_schema()
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        cfg = compose("train", overrides=[*TINY, "data.paths=x"])
    return [key for key in _leaves(OmegaConf.to_container(cfg)) if not key.startswith(PLACES)]


def _leaves(node: Any, at: str = "") -> Iterator[str]:
    for key, value in node.items():
        path = f"{at}.{key}" if at else key
        if isinstance(value, dict) and value:
            yield from _leaves(value, path)
        else:
            yield path


def words(nursery: Nursery, place: Path, chance: random.Random, tries: int, tally: Tally) -> None:
    """Command lines: those of the list, then values and misspelt keys by chance."""
    for n, (line, names) in enumerate(LINES.items()):
        process = nursery.start(place / f"line{n}", *line.split(" "))
        outcome = refusal(wait_at_most(process), process.said, names) or WRONG
        tally.add("command lines of the list", outcome, line, process.said)
    every = keys()
    for n in range(tries):
        key, value = chance.choice(every), chance.choice(VALUES)
        if (key, value) not in LONG:
            try_value(nursery, place / f"value{n}", key, value, tally)
        key = chance.choice(every)
        wrong = chance.choice((f"{key}x=1", f"+{key}x=1", f"{key[:-1]}=1", f"x{key}=1"))
        process = nursery.start(place / f"key{n}", "steps=1", wrong)
        parts = map(re.escape, wrong.partition("=")[0].lstrip("+").split("."))
        outcome = refusal(wait_at_most(process), process.said, "|".join(parts)) or WRONG
        tally.add("misspelt keys", outcome, wrong, process.said)
        shutil.rmtree(place, ignore_errors=True)


def try_value(nursery: Nursery, place: Path, key: str, value: str, tally: Tally) -> None:
    """A value is refused by its key's name, or stands in the config of the run that was made."""
    process = nursery.start(place, "steps=2", f"{key}={value}")
    last = re.escape(key.rpartition(".")[2])
    outcome = refusal(wait_at_most(process), process.said, f"{last}|not finite")
    if outcome is None:
        configs = list(place.glob(f"{RUN}/config.yaml"))
        taken = len(configs) == 1 and _stands(configs[0], key, value)
        outcome = TAKEN if taken else WRONG
    tally.add("values", outcome, f"{key}={value}", process.said)


def _stands(config: Path, key: str, value: str) -> bool:
    found = OmegaConf.select(OmegaConf.load(config), key)
    try:
        wanted = OverridesParser.create().parse_override(f"{key}={value}").value()
    except HydraException:
        return False
    if OmegaConf.is_config(found):
        found = OmegaConf.to_container(found)
    if isinstance(found, int | float) and isinstance(wanted, int | float):
        return float(found) == float(wanted)
    return str(found) == str(wanted).strip("'")


# --- files ---


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


# --- kills ---


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
    for pid in filter(_alive, jobs):
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


# --- all ---


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
