"""A table for a paper: LaTeX (booktabs) with intervals and n, and CSV with every digit."""

import csv as csv_module
from io import StringIO

from experiments.formats import bounds, loss, share, signed
from experiments.records import METRICS
from experiments.runs import Compared, RowRuns, Table, compared_with
from experiments.sections import PERCENT, has
from experiments.spec import Comparison

_ESCAPES = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "\\": "\\textbackslash{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "π": "$\\pi$",
    "−": "$-$",
    "–": "--",
}
_HEADERS = {
    "val": "val",
    "best_val": "val, best",
    "test": "test",
    "best_test": "test, best",
}


def latex(table: Table, command: str) -> str:
    r"""One booktabs table: losses with their intervals, n, and differences from the reference.

    A difference is bold only where it is resolved: three seeds, an interval without zero, and a
    corrected p below 0.05. It needs \usepackage{booktabs}.
    """
    metrics = [metric for metric in _HEADERS if has(table, metric)]
    against = next((c for c in table.spec.comparisons if c.against), None)
    found = _differences(table, against)
    header = ["row", "$n$", "train", *(_HEADERS[metric] for metric in metrics)]
    header += ["ones"] * has(table, "ones")
    if against is not None and against.against is not None:
        header.append(f"val minus {_tex(table.rows[against.against].row.label)}")
    lines = [" & ".join(header) + r" \\", r"\midrule"]
    for name, runs in table.rows.items():
        cells = [_tex(runs.row.label), str(len(runs.finished)), loss(runs.mean("train"))]
        cells += [_with_interval(runs, metric) for metric in metrics]
        cells += [share(runs.mean("ones"))] * has(table, "ones")
        cells += [_difference(found.get(name))] * (against is not None)
        lines.append(" & ".join(cell.replace("–", "--") for cell in cells) + r" \\")
    columns = "lr" + "r" * (len(header) - 2)
    caption = (
        f"{_tex(table.spec.title)}. Loss in nats a token, means over $n$ seeds with "
        f"{_tex(PERCENT)} intervals (Student's $t$); differences are paired by seed, bold where "
        "resolved after Holm's correction."
    )
    return "\n".join(
        [
            f"% {command}".replace("\n", " "),
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def csv(table: Table) -> str:
    """A line for each row: mean, interval, spread and n of every metric, and paired differences."""
    against = next((c for c in table.spec.comparisons if c.against), None)
    found = _differences(table, against)
    metrics = [metric for metric in METRICS if has(table, metric)]
    parts = ("mean", "low", "high", "sd", "n")
    compared = ("difference", "low", "high", "p_holm", "n", "verdict")
    header = ["row", "label", "state"]
    header += [f"{metric}_{part}" for metric in metrics for part in parts]
    if against is not None:
        header += [f"val_minus_{against.against}_{part}" for part in compared]
    text = StringIO()
    writer = csv_module.writer(text, lineterminator="\n")
    writer.writerow(header)
    for name, runs in table.rows.items():
        cells: list[object] = [name, runs.row.label, runs.state]
        for metric in metrics:
            interval = runs.interval(metric)
            cells += [None if interval is None else getattr(interval, part) for part in parts]
        if against is not None:
            cells += _csv_difference(found.get(name))
        writer.writerow([_harmless(cell) for cell in cells])
    return text.getvalue()


def _differences(table: Table, against: Comparison | None) -> dict[str, Compared]:
    if against is None:
        return {}
    return {one.row.row.name: one for one in compared_with(table, against, "val", "val")[1]}


def _with_interval(runs: RowRuns, metric: str) -> str:
    interval = runs.interval(metric)
    text = loss(None if interval is None else interval.mean)
    return text if interval is None or interval.low is None else f"{text} {_tex(bounds(interval))}"


def _difference(one: Compared | None) -> str:
    if one is None or one.difference is None:
        return "--"
    interval = one.difference.interval
    text = signed(interval.mean)
    text += "" if interval.low is None else f" {bounds(interval)}"
    text = _tex(text)
    return rf"\textbf{{{text}}}" if one.reading in ("lower", "higher") else text


def _csv_difference(one: Compared | None) -> list[object]:
    if one is None or one.difference is None:
        return [None, None, None, None, 0 if one else None, one.reading if one else None]
    interval = one.difference.interval
    return [interval.mean, interval.low, interval.high, one.p, interval.n, one.reading]


def _harmless(cell: object) -> object:
    """Text as a spreadsheet shows it: what begins like a formula is none."""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@") else cell


def _tex(text: str) -> str:
    return "".join(_ESCAPES.get(letter, letter) for letter in " ".join(text.split()))
