"""Code written anew that computes the same: `python -m experiments.same_code published_nano`.

Trains runs of a table again, by the commands in their records and the code that lies here, and compares
every evaluation with the records', bit by bit. Where all are equal, `results/same_code.json` says
that the files which differ compute the same: their records go on sharing tables with new runs. It
takes the machine, the threads and the versions that the records are of.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from common import equal_code
from common.errors import INTERRUPTED, UserError
from common.files import to_json, write_atomically
from experiments.command import answer
from experiments.records import Finished, read_records
from experiments.spec import RESULTS, load_spec, table_names

ROOT = RESULTS.parent
# What a clock or a crowded machine decides.
TIMINGS = frozenset({"time_s", "tokens_per_s", "memory_bytes"})
POLL_S = 0.2


@dataclass(frozen=True)
class Rerun:
    """A record, and what the same command came to by the code that lies here."""

    record: Finished
    again: Mapping[str, Any]

    def difference(self) -> str | None:
        """The first number in which the two differ; None where every bit is equal."""
        old = self.record.content
        for then, now in zip_longest(old["curve"], self.again["curve"]):
            if now is None:  # as far as the rerun went
                break
            if then != now:
                return f"{_name(self.record)} at step {now['step']}: {_told(then or {}, now)}"
        if self.again["status"] == "finished":
            for part in ("metrics", "best"):
                then, now = ({k: v for k, v in side[part].items() if k not in TIMINGS}
                             for side in (old, self.again))  # fmt: skip
                if then != now:
                    return f"{_name(self.record)} at its end: {_told(then, now)}"
        return None

    def changed(self) -> dict[str, list[str]]:
        """The files that both used and that have another digest: {name: [then, now]}."""
        then, now = self.record.content["code"]["files"], self.again["code"]["files"]
        both = sorted(then.keys() & now.keys())
        return {
            name: [then[name], now[name]]
            for name in both
            if equal_code.oldest(name, then[name]) != equal_code.oldest(name, now[name])
        }


def _name(record: Finished) -> str:
    return f"{record.row} seed {record.seed}"


def _told(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {then.get(name)} then, {now.get(name)} now"
        for name in sorted(then.keys() | now.keys())
        if then.get(name) != now.get(name)
    )


def rerun(record: Finished, until: int | None, more: Sequence[str]) -> Rerun:
    """Train the record's run again, to its end or to the first evaluation at or behind `until`.

    Raises UserError where the run fails, with the last line that it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        own = [o for o in record.overrides if not o.startswith("tracker=")]
        command = [sys.executable, "train.py", *own, *more, "tracker=none", "hydra.mode=RUN"]
        log = Path(folder, "log.txt")
        with log.open("w") as said:
            process = subprocess.Popen(
                [*command, f"runs_dir={folder}"],
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": str(record.device.threads)},
                stdout=said,
                stderr=said,
            )
        try:
            while process.poll() is None:
                time.sleep(POLL_S)
                if until is not None and any(step >= until for step in _evaluated(Path(folder))):
                    process.send_signal(signal.SIGTERM)
                    break
            code = process.wait()
        finally:
            process.kill()
        if code not in (0, INTERRUPTED):
            lines = log.read_text(errors="replace").split("\n")
            reason = next((line for line in reversed(lines) if line.strip()), "")
            raise UserError(f"{_name(record)} could not be run again ({code}): {reason}")
        (path,) = Path(folder).glob("*/*/*/record.json")
        return Rerun(record, json.loads(path.read_text(encoding="utf-8")))


def _evaluated(folder: Path) -> Iterator[int]:
    for path in folder.glob("*/*/*/metrics.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n") and "val/loss_nats" in (values := json.loads(line)):
                yield values["step"]


def show(
    records: Sequence[Finished], until: int | None, more: Sequence[str] = ()
) -> dict[str, Any]:
    """Rerun the records, the first to its end; the entry that says what was shown.

    Raises UserError for the first number that differs, and where no file does.
    """
    files: dict[str, list[str]] = {}
    for record in records:
        done = rerun(record, None if record is records[0] else until, more)
        if (difference := done.difference()) is not None:
            raise UserError(f"the code here computes something else: {difference}")
        print(
            f"{_name(record)}: every bit equal, {len(done.again['curve'])} evaluations", flush=True
        )
        files |= done.changed()
    if not files:
        raise UserError("every file that these runs used is as it was: there is nothing to show")
    return {
        "files": dict(sorted(files.items())),
        "runs": [f"{record.table}/{record.row}/seed{record.seed}" for record in records],
        "until": until,
        "commit": done.again["code"]["commit"],
    }


def check_committed() -> None:
    """Raise UserError where the tree has changes that no commit has: nobody could look them up."""
    status = ["git", "status", "--porcelain", "--untracked-files=no", "--", ".", ":!results"]
    done = subprocess.run(status, cwd=ROOT, capture_output=True, text=True)
    if done.returncode or done.stdout:
        raise UserError(
            "the tree must be a git checkout without uncommitted changes: commit the code first, so "
            "that what is shown has a name"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Show it and write it down; 0, or 2 where a number differs or a run cannot be made again."""
    options = argparse.ArgumentParser(
        prog="python -m experiments.same_code",
        description="Show by reruns that changed code computes what a table's records hold.",
    )
    options.add_argument("table", help=f"one of {', '.join(table_names())}")
    options.add_argument("--seed", type=int, default=1, help="whose runs are made again (1)")
    options.add_argument("--rows", help="these alone, as none,learned; the first runs to its end")
    options.add_argument(
        "--until", type=int, metavar="STEP", help="stop the others once evaluated there"
    )
    options.add_argument("overrides", nargs="*", help="what the records left out: init_from=DIR")
    arguments = options.parse_args(argv)

    def make() -> int:
        spec = load_spec(arguments.table)
        own = [r for r in read_records(RESULTS / "runs" / spec.name) if isinstance(r, Finished)]
        rows = arguments.rows.split(",") if arguments.rows else [row.name for row in spec.rows]
        found = {r.row: r for r in own if r.seed == arguments.seed}
        if missing := [row for row in rows if row not in found]:
            raise UserError(
                f"rows={','.join(missing)} have no record of seed {arguments.seed}: "
                f"there are {', '.join(found) or 'none'}"
            )
        check_committed()
        entry = show([found[row] for row in rows], arguments.until, arguments.overrides)
        text = to_json([*equal_code.read(), entry], indent=1)
        write_atomically(equal_code.PATH, text + "\n")
        print(f"{equal_code.PATH}: {', '.join(entry['files'])}")
        return 0

    return answer(make)


if __name__ == "__main__":
    sys.exit(main())
