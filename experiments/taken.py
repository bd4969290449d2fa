"""Runs that another table has: of the very same row, with seeds that are missing here."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from common.door import build
from common.errors import UserError
from experiments.formats import loss
from experiments.records import Finished, Record, read_records, with_later
from experiments.spec import RESULTS, load_spec

RECORDS = RESULTS / "runs"


def same_losses(one: Finished, other: Finished) -> bool:
    """Whether both ended with the same weights, as far as the losses of all windows can tell."""
    return all(
        one.metric(name) == other.metric(name) for name in ("train", "val", "best_val", "best_step")
    )


def taken(
    table: str, there: Mapping[tuple[str, int], Record], others: Sequence[str]
) -> list[Finished]:
    """The seeds that rows of `there` lack and the committed records of `others` have.

    And those that both have, where something was measured later of the other table's alone. A row is
    the same where a seed that both have ended in the same losses, to the last digit; whether its
    settings are, too, is asked of all seeds of a row. Raises UserError where two runs of one
    configuration ended otherwise.
    """
    ours = [record for record in there.values() if isinstance(record, Finished)]
    found: dict[tuple[str, int], Finished] = {}
    for other in others:
        theirs = [
            r for r in read_records(RECORDS / load_spec(other).name) if isinstance(r, Finished)
        ]
        same = dict(_same_rows(ours, theirs, other))
        for record in theirs:
            own = same.get(record.row)
            if own is None:
                continue
            key = own.row, record.seed
            if key not in there:
                found.setdefault(key, _renamed(record, table, own, other))
            elif isinstance(twin := there[key], Finished) and same_losses(twin, record):
                content = with_later(twin.content, record.content)
                if content != twin.content:
                    found.setdefault(key, _built(content, twin))
    return [found[key] for key in sorted(found)]


def _same_rows(
    ours: Sequence[Finished], theirs: Sequence[Finished], other: str
) -> Iterator[tuple[str, Finished]]:
    """Each row of the other table that is one of ours, and a record of that."""
    for record in theirs:
        for own in ours:
            if own.seed == record.seed and same_losses(own, record):
                yield record.row, own
            elif own.run_hash == record.run_hash:
                losses = ", ".join(loss(one.metric("val")) for one in (own, record))
                raise UserError(
                    f"{own.name} and {other}'s {record.name} have one configuration and ended "
                    f"otherwise (val {losses}): no run of {other} can stand for one of this table"
                )


def _renamed(record: Finished, table: str, own: Finished, other: str) -> Finished:
    """The record as one of this table, which says where it is from."""
    dropout = {**record.config["dropout"], "name": own.config["dropout"]["name"]}
    names = {"table_name": table, "row_name": own.row, "dropout": dropout}
    content: dict[str, Any] = {
        **record.content,
        "table": table,
        "row": own.row,
        "config": {**record.config, **names},
        "taken_from": record.content.get("taken_from") or f"{other}/{record.name}",
    }
    return _built(content, record)


def _built(content: dict[str, Any], record: Finished) -> Finished:
    name = f"{content['row']}/seed{content['seed']}.json"
    said = {**content, "name": name, "path": record.path, "content": content}
    return build(Finished, said, record.path)
