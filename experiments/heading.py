"""The head of a table's page: what was run, on what, by which code."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from experiments.formats import code, count, folded, markdown, plain, seed_list
from experiments.mixing import common_code, config_differences
from experiments.records import Finished
from experiments.runs import Table

SHORT = 12  # characters of a hash that are shown
COMMON = {
    "batch_size": "windows a step",
    "model.block_size": "block",
    "optimizer.lr": "learning rate",
    "optimizer.weight_decay": "weight decay",
    "schedule.warmup_steps": "warm-up steps",
    "schedule.decay_steps": "decay steps",
}
MOST = 6  # values, or records that have one, that are named


def head(table: Table, command: str) -> str:
    """Title, question, one line that says it all, and the rest folded away."""
    finished = table.finished
    parts = [
        f"# {plain(table.spec.title)}",
        plain(table.spec.question, most=2000),
        plain(table.spec.setting, most=2000),
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
        facts = [f"scale {plain(str(finished[0].scale))}"]
        facts += [f"data {_values(finished, 'data.source')}", f"{plain(finished[0].dtype)} on"]
        text += f"{', '.join(facts)} {plain(finished[0].device.kind.upper())}; "
        text += f"code {_short(common_code(finished))}"
        commits = {_short(record.code.commit) for record in finished}
        text += f" of {len(commits)} commits" if len(commits) > 1 else f" of commit {min(commits)}"
    dirty = [record for record in finished if record.code.dirty]
    warning = f" **{len(dirty)} of them from a tree with uncommitted changes.**" if dirty else ""
    return f"{text}.{warning}"


def _details(table: Table, finished: list[Finished], command: str) -> str:
    first = finished[0]
    data, words = first.data, first.data.tokenizer
    source = _values(finished, "data.source")
    source += f", revision {plain(data.revision)}" if data.revision else ""
    made = f" from the records of {code(table.spec.command)}" if table.spec.command else ""
    lines = [
        ["made by", code(command) + made],
        ["commit", _values(finished, "code.commit", _short)],
        ["uncommitted changes", _values(finished, "code.dirty", _yes)],
        ["code that all runs used", code(common_code(finished))],
        ["data", source],
        ["data fingerprint", code(data.fingerprint)],
        ["tokens to train, validate", f"{count(data.train_tokens)}, {count(data.val_tokens)}"],
        ["windows of train, val", _windows(finished)],
        [
            "tokenizer",
            f"{plain(words.name)}, {count(words.vocab_size)} tokens, {code(words.sha256)}",
        ],
        ["scale", plain(str(first.scale))],
        ["steps", _values(finished, "steps", count)],
        *_common_settings(finished),
        ["dtype, compile", f"{plain(first.dtype)}, {_values(finished, 'compile', _word)}"],
        ["device", _values(finished, "device.name")],
        ["threads", _values(finished, "device.threads")],
        *_kernels(finished),
        ["python, torch", f"{_version(finished, 'python')}, {_version(finished, 'torch')}"],
        *_taken(finished),
        ["rows also differ in", _other_settings(table)],
    ]
    if table.strangers:
        names = ", ".join(record.name for record in table.strangers)
        lines.append(["left out, no such row", plain(names)])
    return folded("Code, data, device and settings", markdown(["", ""], lines, left=(1,)))


def _common_settings(finished: list[Finished]) -> list[list[str]]:
    """Those of COMMON that all runs share."""
    said = []
    for path, name in COMMON.items():
        values = {str(_configured(record, path)) for record in finished}
        if len(values) == 1 and values != {"None"}:
            said.append(f"{name} {plain(values.pop())}")
    return [["all rows", ", ".join(said)]] if said else []


def _configured(record: Finished, path: str) -> Any:
    value: Any = record.config
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _kernels(finished: list[Finished]) -> list[list[str]]:
    """Whether the runs on a CPU had this project's compiled kernels; no line on a GPU."""
    if not any(record.device.kind == "cpu" for record in finished):
        return []
    return [["compiled kernels", _values(finished, "device.compiled_kernels", _yes)]]


def _taken(finished: list[Finished]) -> list[list[str]]:
    """How many runs are those of another table, where any is."""
    origins = Counter(record.taken_from.split("/")[0] for record in finished if record.taken_from)
    said = [f"{n} from {plain(table)}" for table, n in origins.items()]
    return [["runs of other tables, of the very same rows", ", ".join(said)]] if said else []


def _windows(finished: list[Finished]) -> str:
    train, val = (
        _values(finished, f"metrics.{split}_windows", count) for split in ("train", "val")
    )
    return f"{train}, {val}"


def _short(value: str | None) -> str:
    return code(value[:SHORT]) if value else "unknown"


def _yes(value: bool | None) -> str:
    return {True: "yes", False: "no", None: "unknown"}[value]


def _word(value: bool) -> str:
    return "compiled" if value else "eager"


def _safe(value: Any) -> str:
    return plain(str(value))


def _values(records: list[Finished], path: str, show: Callable[[Any], str] = _safe) -> str:
    """The value that all records have, or each with the records that have it."""
    return _grouped([(record, show(record.get(path))) for record in records])


def _version(records: list[Finished], package: str) -> str:
    return _grouped([(record, _safe(record.versions.get(package))) for record in records])


def _grouped(shown: list[tuple[Finished, str]]) -> str:
    groups: dict[str, list[str]] = {}
    for record, value in shown:
        groups.setdefault(value, []).append(plain(record.name))
    if len(groups) == 1:
        return next(iter(groups))
    most = max(groups, key=lambda value: len(groups[value]))
    rest = [(value, names) for value, names in groups.items() if value != most]
    said = [f"{value}: {_some(names)}" for value, names in rest[:MOST]]
    said += [f"and {len(rest) - MOST} more"] * (len(rest) > MOST)
    return f"{most}; {'; '.join(said)}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
    return f"{', '.join(names[:MOST])}{more}"


def _other_settings(table: Table) -> str:
    """Settings that differ and are not what the rows are about: where unfairness would hide."""
    firsts = [runs.finished[0] for runs in table.rows.values() if runs.finished]
    said = []
    for setting, groups in config_differences(firsts):
        if setting.split(".")[0] in table.spec.varies:
            continue
        values = sorted(groups, key=lambda value: -len(groups[value]))
        odd = [f"{plain(value)} in {_labels(table, groups[value])}" for value in values[1:]]
        said.append(f"{code(setting)}: {plain(values[0])}, but {', '.join(odd)}")
    more = f"; and {len(said) - 2 * MOST} more" if len(said) > 2 * MOST else ""
    return "; ".join(said[: 2 * MOST]) + more or "nothing"


def _labels(table: Table, records: list[Finished]) -> str:
    return ", ".join(table.rows[record.row].row.label for record in records)
