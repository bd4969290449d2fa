"""Runs that another table has: of the very same row, with seeds that are missing here."""

from collections.abc import Mapping, Sequence
from typing import Any

from common.errors import UserError
from experiments.formats import loss
from experiments.mixing import config_differences, identity_differences
from experiments.records import Finished, Record, read_records, rebuilt, with_later
from experiments.spec import RESULTS, load_spec

RECORDS = RESULTS / "runs"
NAMES = frozenset({"dropout.name"})  # settings that are names, beside those that no table compares


def same_losses(one: Finished, other: Finished) -> bool:
    """Whether both ended with the same weights, as far as the losses of all windows can tell."""
    return all(
        one.metric(name) == other.metric(name) for name in ("train", "val", "best_val", "best_step")
    )


def taken(
    table: str, there: Mapping[tuple[str, int], Record], other: str
) -> dict[tuple[str, int], Finished]:
    """By row and seed what `table`, whose records are `there`, can take from the table `other`.

    A row is the same where all seeds that both have are of equal settings and ended in the same
    losses, to the last digit. Of it come the seeds that `table` lacks, and what `evaluate.py --record`
    measured of a run that both have. Raises UserError where equal settings ended otherwise, and where
    `other` has nothing to take: no records, no such row, or the table itself.
    """
    name = load_spec(other).name
    theirs = [r for r in read_records(RECORDS / name) if isinstance(r, Finished)]
    if name == table or not theirs:
        why = "the table itself" if name == table else "a table without records"
        raise UserError(f"--also {other} is {why}: it has nothing to take")
    own_rows = _same_rows(there, theirs, name)
    if not own_rows:
        raise UserError(
            f"--also {other}: no row of it is one of {table}'s, with a seed that both have"
        )
    found = {}
    for record in theirs:
        if (own := own_rows.get(record.row)) is None:
            continue
        here = there.get((own.row, record.seed))
        if here is None:
            found[own.row, record.seed] = _renamed(record, table, own, name)
        elif isinstance(here, Finished) and _same_run(here, record):
            content = with_later(here.content, record.content)
            if content != here.content:
                found[own.row, record.seed] = rebuilt(here, content)
    return found


def _same_rows(
    there: Mapping[tuple[str, int], Record], theirs: Sequence[Finished], other: str
) -> dict[str, Finished]:
    """For each row of the other table that is one of ours, a record of that."""
    found: dict[str, Finished] = {}
    for record in theirs:
        for own in there.values():
            if not isinstance(own, Finished) or own.seed != record.seed:
                continue
            if not _same_settings(own, record):
                continue
            if not same_losses(own, record):
                losses = ", ".join(loss(one.metric("val")) for one in (own, record))
                raise UserError(
                    f"{own.name} and {other}'s {record.name} have equal settings and ended otherwise "
                    f"(val {losses}): no run of {other} can stand for one of this table"
                )
            twin = found.setdefault(record.row, own)
            if twin.row != own.row:
                both = f"{twin.name} and {own.name}"
                raise UserError(f"{both} are both {other}'s row {record.row!r}: they must differ")
    return found


def _same_run(own: Finished, record: Finished) -> bool:
    """One run, or two that differ in a name and ended the same."""
    return _same_settings(own, record) and same_losses(own, record)


def _same_settings(own: Finished, record: Finished) -> bool:
    pair = [own, record]
    differing = {setting for setting, _ in config_differences(pair)} - NAMES
    return not differing and not any(identity_differences(pair))


def _renamed(record: Finished, table: str, own: Finished, other: str) -> Finished:
    """The record as one of this table, which says where it is from."""
    origin = record.taken_from or f"{other}/{record.name}"
    names: dict[str, Any] = {"table_name": table, "row_name": own.row}
    if "dropout" in record.config:
        names["dropout"] = {**record.config["dropout"], "name": own.config["dropout"].get("name")}
    content = {
        **record.content, "table": table, "row": own.row, "config": {**record.config, **names},
        "taken_from": None if origin.startswith(f"{table}/") else origin,
    }  # fmt: skip
    return rebuilt(record, content, name=f"{other}/{record.name}")
