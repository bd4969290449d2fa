"""Runs that another table has: of the very same row, with seeds that are missing here."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from common.door import build
from common.errors import UserError
from experiments.formats import loss
from experiments.records import Finished, Record, read_records
from experiments.spec import RESULTS, load_spec

RECORDS = RESULTS / "runs"


def same_result(one: Finished, other: Finished) -> bool:
    """Whether both ended with the same weights, as far as the losses of all windows can tell."""
    return one.run_hash == other.run_hash and all(
        one.metric(name) == other.metric(name) for name in ("train", "val", "best_val", "best_step")
    )


def taken(
    table: str, there: Mapping[tuple[str, int], Record], others: Sequence[str]
) -> list[Finished]:
    """The seeds that rows of `there` lack and the committed records of `others` have.

    A row is the same where a seed that both have is: of equal configuration, and ended in the same
    losses. Raises UserError where the configuration is equal and the losses are not.
    """
    found: dict[tuple[str, int], Finished] = {}
    for other in others:
        theirs = [
            r for r in read_records(RECORDS / load_spec(other).name) if isinstance(r, Finished)
        ]
        same = dict(_same_rows(there, theirs, other))
        for record in theirs:
            key = same.get(record.row, ""), record.seed
            if key[0] and key not in there and key not in found:
                found[key] = _renamed(record, table, key[0], other)
    return [found[key] for key in sorted(found)]


def _same_rows(
    there: Mapping[tuple[str, int], Record], theirs: Sequence[Finished], other: str
) -> Iterator[tuple[str, str]]:
    """Each row of the other table that is one of ours, and which."""
    ours = {record.run_hash: record for record in there.values() if isinstance(record, Finished)}
    for record in theirs:
        own = ours.get(record.run_hash)
        if own is None:
            continue
        if not same_result(own, record):
            raise UserError(
                f"{own.name} and {other}'s {record.name} have one configuration and ended otherwise "
                f"(val {loss(own.metric('val'))}, {loss(record.metric('val'))}): no run of {other} can "
                "stand for one of this table"
            )
        yield record.row, own.row


def _renamed(record: Finished, table: str, row: str, other: str) -> Finished:
    """The record as one of this table, which says where it is from."""
    config = {**record.config, "table_name": table, "row_name": row}
    origin = record.content.get("taken_from") or f"{other}/{record.name}"
    content: dict[str, Any] = {
        **record.content, "table": table, "row": row, "config": config, "taken_from": origin
    }  # fmt: skip
    name = f"{row}/seed{record.seed}.json"
    said = {**content, "name": name, "path": record.path, "content": content}
    return build(Finished, said, record.path)
