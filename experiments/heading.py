"""The head of a table's page: what was run, on what, by which code."""

from collections.abc import Callable
from typing import Any

from experiments.formats import cell, count, markdown, seed_list
from experiments.mixing import config_differences
from experiments.records import Record
from experiments.runs import Table

SHORT = 12  # characters of a hash that are shown


def head(table: Table, command: str) -> str:
    """Title, question, one line that says it all, and the rest folded away."""
    finished = table.finished
    parts = [
        f"# {table.spec.title}",
        table.spec.question,
        _summary(table),
        *([_details(table, finished, command)] if finished else []),
    ]
    return "\n\n".join(part for part in parts if part)


def _summary(table: Table) -> str:
    finished = table.finished
    with_runs = sum(bool(runs.finished) for runs in table.rows.values())
    text = f"{len(finished)} finished run{'s' * (len(finished) != 1)}"
    text += f", {with_runs} of {len(table.rows)} rows"
    if finished:
        seeds = {record.seed for record in finished}
        text += f", seed{'s' * (len(seeds) > 1)} {seed_list(seeds)}; "
        facts = [f"scale {finished[0].get('config.scale')}"]
        facts += [f"data {_values(finished, 'data.source')}", f"{finished[0].get('dtype')} on"]
        text += f"{', '.join(facts)} {finished[0].get('device.kind').upper()}; "
        text += f"code {_short(finished[0].get('code.code_hash'))}"
    dirty = sorted(record.name for record in finished if record.get("code.dirty"))
    warning = f" **{len(dirty)} of them from a tree with uncommitted changes.**" if dirty else ""
    return f"{text}.{warning}"


def _details(table: Table, finished: list[Record], command: str) -> str:
    first = finished[0]
    data, words = first.get("data"), first.get("data.tokenizer")
    revision = data.get("revision")
    lines = [
        ["made by", f"`{command}` from the records of `{table.spec.command}`"],
        ["commit", _values(finished, "code.commit", _short)],
        ["uncommitted changes", _values(finished, "code.dirty", _yes)],
        ["code hash", f"`{first.get('code.code_hash')}`"],
        ["data", _values(finished, "data.source") + (f", revision {revision}" if revision else "")],
        ["data fingerprint", f"`{data['fingerprint']}`"],
        [
            "tokens to train, validate",
            f"{count(data['train_tokens'])}, {count(data['val_tokens'])}",
        ],
        ["tokenizer", f"{words['name']}, {count(words['vocab_size'])} tokens, `{words['sha256']}`"],
        ["scale", str(first.get("config.scale"))],
        ["steps", _values(finished, "steps", count)],
        ["dtype, compile", f"{first.get('dtype')}, {_values(finished, 'compile', _word)}"],
        ["device", _values(finished, "device.name")],
        ["threads", _values(finished, "device.threads")],
        *_kernels(finished),
        ["python, torch", f"{_versions(finished, 'python')}, {_versions(finished, 'torch')}"],
        ["rows also differ in", _other_settings(table)],
    ]
    if table.strangers:
        names = ", ".join(record.name for record in table.strangers)
        lines.append(["left out, no such row", cell(names)])
    return (
        "<details>\n<summary>Code, data, device and settings</summary>\n\n"
        f"{markdown(['', ''], lines, left=(1,))}\n\n</details>"
    )


def _kernels(finished: list[Record]) -> list[list[str]]:
    """Whether the runs on a CPU had this project's compiled kernels; no line on a GPU."""
    if not any(record.get("device.kind") == "cpu" for record in finished):
        return []
    return [["compiled kernels", _values(finished, "device.compiled_kernels", _yes)]]


def _short(value: Any) -> str:
    return f"`{str(value)[:SHORT]}`" if value else "unknown"


def _yes(value: bool | None) -> str:
    return {True: "yes", False: "no", None: "unknown"}[value]


def _word(value: bool) -> str:
    return "compiled" if value else "eager"


def _values(records: list[Record], path: str, show: Callable[[Any], str] = str) -> str:
    """The value that all records have, or each with the records that have it."""
    groups: dict[str, list[str]] = {}
    for record in records:
        groups.setdefault(show(record.get(path)), []).append(record.name)
    if len(groups) == 1:
        return cell(next(iter(groups)))
    most = max(groups, key=lambda value: len(groups[value]))
    rest = [f"{value}: {', '.join(names)}" for value, names in groups.items() if value != most]
    return cell(f"{most}; {'; '.join(rest)}", most=400)


def _versions(records: list[Record], package: str) -> str:
    return _values(records, f"versions.{package}")


def _other_settings(table: Table) -> str:
    """Settings that differ and are not what the rows are about: where unfairness would hide."""
    firsts = [runs.finished[0] for runs in table.rows.values() if runs.finished]
    said = []
    for setting, groups in config_differences(firsts):
        if setting.split(".")[0] in table.spec.varies:
            continue
        values = sorted(groups, key=lambda value: -len(groups[value]))
        odd = [f"{value} in {_labels(table, groups[value])}" for value in values[1:]]
        said.append(f"`{setting}`: {values[0]}, but {', '.join(odd)}")
    return cell("; ".join(said), most=1000) or "nothing"


def _labels(table: Table, records: list[Record]) -> str:
    return ", ".join(table.rows[record.row].row.label for record in records)
