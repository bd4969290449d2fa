"""A table's own runs to results/runs: `python -m experiments.publish published_nano`.

The one command that writes there. It takes finished runs of the table's own rows and settings,
names every run that it does not take, and publishes the others; it then exits with 1.
"""

import argparse
import shlex
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.door import read_yaml
from common.errors import FAILED, UserError
from common.files import explained, to_json, write_atomically
from common.settings import KEEPING
from experiments.command import answer
from experiments.formats import loss
from experiments.mixing import check_comparable
from experiments.records import (
    Finished,
    Record,
    find_records,
    read_record,
    read_records,
    rebuilt,
    with_later,
)
from experiments.spec import RESULTS, RUNS, TableSpec, load_spec, table_names
from experiments.taken import same_losses, taken

# Overrides that change no number of a row, or that say which row, seed and base it is.
FREE = (
    KEEPING
    | {"seed", "row", "table", "scale", "device", "dtype", "compile", "init_from"}
    | {"data.cache_dir", "data.num_proc"}
)
FREE_GROUPS = ("tracker", "hydra")
TABLES = RESULTS.parent / "configs" / "table"
# Keys that hold paths: of no meaning elsewhere, and nobody else's business.
PATHS = frozenset({"runs_dir", "init_from", "data.cache_dir", "data.paths"})
PLACES = frozenset({"data.paths"})  # a path on one machine: the text is held by its hash


@dataclass(frozen=True)
class Refused:
    """A run that is not published, and why."""

    name: str
    why: str


def publish(
    spec: TableSpec, runs: Path, target: Path, replace: bool = False, also: Sequence[str] = ()
) -> tuple[list[Path], list[Refused]]:
    """Write the records of the table's own runs under `target`; the paths, and what was refused.

    The tables `also` give what they have of the very same rows: seeds, and what was measured later.
    Nothing is written where the table could then not be made, because its records would not mix.
    """
    found, refused = _own_runs(spec, runs, may_be_none=bool(also))
    there = {(record.row, record.seed): record for record in read_records(target)}
    accepted = {}
    for record in found:
        old = there.get((record.row, record.seed))
        why = None if replace else _why_not_replace(old, record)
        if why is None:
            accepted[record.row, record.seed] = _with_later_parts(record, old)
        else:
            refused.append(Refused(record.name, why))
    for table in also:
        accepted |= taken(spec.name, {**there, **accepted}, table)
    there |= accepted
    check_comparable([there[key] for key in sorted(there)], spec.scale)
    _check_rows_differ([r for r in there.values() if isinstance(r, Finished)])
    written = []
    for (row, seed), record in sorted(accepted.items()):
        path = target / row / f"seed{seed}.json"
        with explained(path, "--out DIR"):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, to_json(without_places(record.content), indent=1) + "\n")
        written.append(path)
    return written, refused


def _check_rows_differ(records: Sequence[Finished]) -> None:
    """Refuse two rows of one and the same run: something undid what was to tell them apart."""
    first: dict[str, Finished] = {}
    for record in records:
        twin = first.setdefault(record.run_hash, record)
        if twin.row != record.row:
            raise UserError(
                f"{twin.name} and {record.name} are one run under two rows' names, of equal "
                "configuration: see what undoes the difference in configs/, and run one again"
            )


def _own_runs(
    spec: TableSpec, runs: Path, may_be_none: bool
) -> tuple[list[Finished], list[Refused]]:
    """The runs that may be published, one of each row and seed, and the others."""
    places = list(find_records(runs))
    if not places and not may_be_none:
        raise UserError(
            f"runs={runs} holds no record: make them with `{spec.command}`, or say with --runs "
            "where they are"
        )
    candidates: dict[tuple[str, int], list[Finished]] = defaultdict(list)
    refused = []
    for path, name in places:
        try:
            record = read_record(path, name)
        except UserError as error:
            refused.append(Refused(str(name), str(error)))
            continue
        why = why_not(spec, record)
        if why is None and isinstance(record, Finished):
            candidates[record.row, record.seed].append(record)
        else:
            refused.append(Refused(record.name, why or record.status))
    own = []
    for twins in candidates.values():
        if len(twins) == 1:
            own += twins
        else:
            names = ", ".join(record.name for record in twins)
            why = f"one of several runs of its row and seed ({names}): move the others away"
            refused += [Refused(record.name, why) for record in twins]
    return own, refused


def why_not(spec: TableSpec, record: Record) -> str | None:
    """Why a run is none of the table's own; None for one that is."""
    if not isinstance(record, Finished):
        return f"status={record.status!r}: only a finished run is a result"
    names = [row.name for row in spec.rows]
    if spec.scale not in (None, record.scale):
        return f"scale={record.scale!r} is not the table's {spec.scale!r}"
    if record.table != spec.name:
        return f"table={record.table!r} is not {spec.name!r}"
    if record.row not in names:
        return (
            f"row={record.row!r} is not a row of the table ({', '.join(names)}): `python -m "
            f"experiments.table {spec.name} --add DIR` shows it beside them"
        )
    own = shlex.split(spec.command)
    own += swept(own)
    for override in record.overrides:
        if not _is_own(override, own):
            return (
                f"override {override!r} is not of the table's own settings (`{spec.command}`): "
                "a run with other settings needs a table of its own"
            )
    return None


def swept(command: Sequence[str]) -> list[str]:
    """The overrides that `table=NAME` in a command stands for: the values that its file sweeps over."""
    tables = [word.partition("=")[2] for word in command if word.startswith("table=")]
    overrides = []
    for path in (TABLES / f"{name}.yaml" for name in tables):
        content = read_yaml(path) if path.is_file() else {}
        params = content.get("hydra", {}).get("sweeper", {}).get("params", {})
        for key, values in params.items():
            overrides += [f"{key}={value.strip()}" for value in str(values).split(",")]
    return overrides


def _is_own(override: str, command: Sequence[str]) -> bool:
    key = override.partition("=")[0].lstrip("+~").partition("@")[0]
    if key in FREE or key.split(".")[0].split("/")[0] in FREE_GROUPS:
        return True
    if key in PLACES:
        return any(word.partition("=")[0] == key for word in command)
    return override in command


def _why_not_replace(old: Record | None, new: Finished) -> str | None:
    if not isinstance(old, Finished):
        return None
    if old.run_hash != new.run_hash:
        hashes = f"{old.run_hash[:8]} there, {new.run_hash[:8]} here"
        return f"its settings or data are not those of the published one ({hashes}): --replace takes it"
    if not _equal_weights(old, new):
        sides = f"{_losses(old)} there, {_losses(new)} here"
        return f"its result differs from the published one ({sides}): --replace takes it"
    if (new.finished or "") < (old.finished or ""):
        return f"it is older ({new.finished}) than the published one ({old.finished}): --replace"
    return None


def _equal_weights(old: Finished, new: Finished) -> bool:
    return old.run_hash == new.run_hash and same_losses(old, new)


def _losses(record: Finished) -> str:
    train, val = loss(record.metric("train")), loss(record.metric("val"))
    return f"train {train}, val {val} of run {record.run_hash[:8]}"


def without_places(content: Mapping[str, Any]) -> dict[str, Any]:
    """A record without paths of the machine that it was made on: the hashes say what lay there."""
    config = {key: value for key, value in content["config"].items() if key not in PATHS}
    if isinstance(data := config.get("data"), Mapping):
        config["data"] = {k: v for k, v in data.items() if f"data.{k}" not in PATHS}
    overrides = [o for o in content["overrides"] if o.lstrip("+~").partition("=")[0] not in PATHS]
    return {**content, "config": config, "overrides": overrides}


def _with_later_parts(new: Finished, old: Record | None) -> Finished:
    """The new record; with what was measured later of the old one, where its weights are the same."""
    if not isinstance(old, Finished) or not _equal_weights(old, new):
        return new
    return rebuilt(new, with_later(new.content, old.content))


def main(argv: Sequence[str] | None = None) -> int:
    """Publish; 0, 1 where a run was refused, 2 for an error that a person can put right."""
    options = argparse.ArgumentParser(
        prog="python -m experiments.publish",
        description="Write the records of a table's own finished runs to results/runs.",
    )
    options.add_argument("table", help=f"one of {', '.join(table_names())}, or a .yaml file")
    options.add_argument("--runs", type=Path, help="where the runs are (runs/TABLE)")
    options.add_argument("--out", type=Path, help="where records go (results/runs/TABLE)")
    options.add_argument(
        "--replace", action="store_true", help="take what differs, and what is older"
    )
    options.add_argument(
        "--also", metavar="TABLE", nargs="+", default=[],
        help="take what these have of the very same rows: seeds, and what was measured later",
    )  # fmt: skip
    arguments = options.parse_args(argv)

    def make() -> int:
        spec = load_spec(arguments.table)
        written, refused = publish(
            spec,
            arguments.runs or RUNS / spec.name,
            arguments.out or RESULTS / "runs" / spec.name,
            arguments.replace,
            arguments.also,
        )
        for path in written:
            print(path)
        for run in refused:
            print(f"not published: {run.name}: {run.why}", file=sys.stderr)
        print(f"{len(written)} published, {len(refused)} not", file=sys.stderr)
        return FAILED if refused else 0

    return answer(make)


if __name__ == "__main__":
    sys.exit(main())
