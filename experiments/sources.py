"""Records from W&B: of the runs of a project, or of offline runs on a disk.

A run's record is its file `record.json`, which the tracker keeps there (`tracking/wandb.py`).
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from common.door import MAX_RECORD_BYTES, as_name
from common.errors import UserError
from common.wandb_places import RECORD, has_wandb_key
from experiments.records import Record, read_lone_record

TIMEOUT_S = 30


def from_wandb(table: str, project: str, entity: str | None) -> list[Record]:
    """The records of a table's runs in a project. Raises UserError where W&B does not give them."""
    need_key(f"reading the project {project!r}")
    with TemporaryDirectory() as folder:
        return _of_table(table, _download(table, project, entity, Path(folder)), project)


def from_offline(table: str, folder: Path) -> list[Record]:
    """The records of a table's offline runs at any depth under `folder`.

    Of several copies of one run the newest counts.
    """
    found = {}
    for path in sorted(folder.rglob(f"offline-run-*/files/{RECORD}"), key=lambda p: p.parts[-3]):
        # offline-run-20260102_030405-<id>: the time, so the newest comes last
        found[path.parts[-3].split("-", 3)[-1]] = path
    return _of_table(table, iter(found.items()), str(folder))


def need_key(what: str) -> None:
    """Refuse what W&B would stop and ask for on the terminal."""
    if not has_wandb_key():
        raise UserError(
            f"{what} needs a W&B key, and there is none: run `wandb login` or set WANDB_API_KEY"
        )


def _download(
    table: str, project: str, entity: str | None, folder: Path
) -> Iterator[tuple[str, Path]]:
    import wandb  # half a second

    path = project if entity is None else f"{entity}/{project}"
    try:
        api = wandb.Api(timeout=TIMEOUT_S)
        for run in api.runs(path, filters={"config.table_name": table}, order="+created_at"):
            files = list(run.files(names=[RECORD]))
            if not files:
                print(
                    f"warning: run {run.id} has no {RECORD} and is left out: send it again with "
                    "`python -m tracking.send --run DIR`",
                    file=sys.stderr,
                )
            for file in files:
                if file.size > MAX_RECORD_BYTES:
                    raise UserError(
                        f"{RECORD} of run {run.id} has {file.size:,} bytes, and a record has at "
                        f"most {MAX_RECORD_BYTES:,}: delete the run, it is none of this project's"
                    )
                own = folder / f"run-{as_name(run.id)}"
                file.download(root=str(own)).close()
                yield run.id, own / RECORD
    except UserError:
        raise
    except Exception as error:  # W&B's own, its transport's, and ValueError for no such project
        raise UserError(f"W&B did not give the runs of {path}: {error}") from error


def _of_table(table: str, found: Iterator[tuple[str, Path]], where: str) -> list[Record]:
    """The table's own records; UserError where two runs are of one row and seed."""
    records: dict[tuple[str, int], tuple[str, Record]] = {}
    for identity, path in found:
        record = read_lone_record(path)
        if record.table != table:
            continue
        twin, _ = records.setdefault((record.row, record.seed), (identity, record))
        if twin != identity:
            raise UserError(
                f"runs {twin} and {identity} in {where} are both row {record.row!r}, seed "
                f"{record.seed}: a table takes one run of each; delete one, or move it away"
            )
    if not records:
        raise UserError(
            f"{where} has no run of table {table!r} with its record: train with tracker=wandb, or "
            "send finished runs with `python -m tracking.send --run DIR`"
        )
    return [record for _, (_, record) in sorted(records.items())]
