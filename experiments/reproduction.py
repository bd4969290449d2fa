"""The parts of a table's page that set our runs beside the published figures."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from experiments.formats import NOTHING, bounds, count, loss, markdown, plain, share, signed
from experiments.runs import Compared, Table, compare
from experiments.sections import PERCENT
from experiments.spec import Claim, Row
from experiments.statistics import MIN_SEEDS

MAIN_VERSION = "later"
FOOTNOTES = "¹²³⁴⁵⁶⁷⁸⁹"

# What a reading of (lower - higher) says about a published order, failures first.
CONTRADICTED, REPRODUCED = "contradicted", "reproduced"
_VERDICTS = {"higher": CONTRADICTED, "lower": REPRODUCED}
_ORDER = (CONTRADICTED, "not resolved", "too few seeds")


def reproduction(table: Table) -> str:
    """Which published orders our runs contradict, leave open or confirm, in this order."""
    judged = judge(table)
    if not judged:
        return ""
    counts = Counter(verdict for _, _, verdict in judged)
    contradicted = [_claim_text(table, claim) for claim, _, v in judged if v == CONTRADICTED]
    open_ones = len(judged) - counts[CONTRADICTED] - counts[REPRODUCED]
    failed = f" Contradicted: {'; '.join(contradicted)}." if contradicted else ""
    text = (
        f"Of {len(judged)} published orders, our runs contradict **{counts[CONTRADICTED]}**, leave "
        f"**{open_ones}** open and reproduce **{counts[REPRODUCED]}**.{failed}\n\n"
        f"An order is contradicted or reproduced only from {MIN_SEEDS} shared seeds on, where our "
        "interval leaves out zero and the p, Holm-corrected over this table, agrees. The published "
        "side is one seed and has no interval."
    )
    header = ["lower < higher", "in", "published", "our difference", f"{PERCENT} interval", "n"]
    lines = [_claim_cells(table, *judgement) for judgement in judged]
    claims = markdown([*header, "verdict"], lines, left=(1, 6))
    parts = ["## What did not reproduce, and what did", text, claims]
    return "\n\n".join([*parts, *_disputes(table), _orders(table)])


def judge(table: Table) -> list[tuple[Claim, Compared, str]]:
    """Each published order with our paired difference (lower - higher) and the verdict."""
    claims = table.spec.claims
    found = compare(table, [(claim.lower, claim.higher, claim.metric) for claim in claims])
    judged = [
        (claim, one, _VERDICTS.get(one.reading, one.reading))
        for claim, one in zip(claims, found, strict=True)
    ]
    last = len(_ORDER)

    def failures_first(judgement: tuple[Claim, Compared, str]) -> int:
        verdict = judgement[2]
        if verdict == REPRODUCED:
            return last + 1
        return _ORDER.index(verdict) if verdict in _ORDER else last

    return sorted(judged, key=failures_first)


def _claim_text(table: Table, claim: Claim) -> str:
    lower, higher = (table.rows[name].row.label for name in (claim.lower, claim.higher))
    return f"{lower} below {higher} in {claim.metric}"


def _figure(row: Row, metric: str, version: str) -> float | None:
    return next((getattr(p, metric) for p in row.published if p.version == version), None)


def _claim_cells(table: Table, claim: Claim, found: Compared, verdict: str) -> list[str]:
    lower, higher = found.row.row, found.other.row
    show = share if claim.metric == "ones" else loss
    figures = [show(_figure(row, claim.metric, MAIN_VERSION)) for row in (lower, higher)]
    cells = [f"{lower.label} < {higher.label}", claim.metric, " < ".join(figures)]
    if found.difference is None:
        return [*cells, NOTHING, NOTHING, "0", verdict]
    interval = found.difference.interval
    return [*cells, signed(interval.mean), bounds(interval), str(interval.n), verdict]


def _disputes(table: Table) -> list[str]:
    """Says where another version of the published figures has an order the other way round."""
    said = []
    for claim in table.spec.claims:
        lower, higher = (table.rows[name].row for name in (claim.lower, claim.higher))
        for version in (p.version for p in lower.published if p.version != MAIN_VERSION):
            below, above = (_figure(row, claim.metric, version) for row in (lower, higher))
            if below is not None and above is not None and below > above:
                show = share if claim.metric == "ones" else loss
                said.append(
                    f"in its {version} table {claim.metric} of {lower.label} is {show(below)}, "
                    f"above the {show(above)} of {higher.label}"
                )
    return [f"The document is not of one mind: {'; '.join(said)}."] if said else []


def _orders(table: Table) -> str:
    """The rows by val loss, as published and ours; ours has `<` only where it is supported."""
    published = [
        (value, runs.row.label)
        for runs in table.rows.values()
        if (value := _figure(runs.row, "val", MAIN_VERSION)) is not None
    ]
    means = {name: runs.mean("val") for name, runs in table.rows.items()}
    known = {name: mean for name, mean in means.items() if mean is not None}
    names = sorted(known, key=known.__getitem__)
    steps = compare(table, [(row, other, "val") for row, other in pairwise(names)])
    ours = table.rows[names[0]].row.label if names else NOTHING
    for step in steps:
        sign = "<" if step.reading == "lower" else "≈"
        ours += f" {sign} {step.other.row.label}"
    return (
        "By val loss, lowest first; ≈ stands where our runs do not separate two neighbours, which "
        "says nothing of rows further apart:\n\n"
        f"- published: {' < '.join(label for _, label in sorted(published))}\n"
        f"- ours: {ours}"
    )


def beside_published(table: Table) -> str:
    """Our means and the published figures, row by row; empty for a table that has none."""
    rows = [runs for runs in table.rows.values() if runs.row.published]
    if not rows:
        return ""
    marks = {key: _mark(index) for index, key in enumerate(table.spec.notes)}
    losses, sizes = [], []
    for runs in rows:
        notes = dict.fromkeys(p.note for p in runs.row.published if p.note)
        label = " ".join([runs.row.label, *(marks[note] for note in notes)])
        state = "" if runs.finished else runs.state
        losses.append([label, state or loss(runs.mean("train")), _published(runs.row, "train")])
        losses[-1] += [loss(runs.mean("val")), _published(runs.row, "val")]
        sizes.append([label, state or share(runs.mean("ones")), _published(runs.row, "ones")])
        sizes[-1] += [count(runs.mean("parameters")), _published(runs.row, "parameters")]
    notes_text = "\n".join(
        f"{marks[key]} {plain(text, 2000)}  " for key, text in table.spec.notes.items()
    )
    origin = plain(table.spec.source, 2000)
    header = ["row", "train", "published", "val", "published"]
    size_header = ["row", "ones", "published", "parameters", "published"]
    return (
        f"## Beside the published figures\n\n{origin}\n\n"
        f"{markdown(header, losses)}\n\n{markdown(size_header, sizes)}\n\n{notes_text}"
    ).rstrip()


def _mark(index: int) -> str:
    return FOOTNOTES[index] if index < len(FOOTNOTES) else f"({index + 1})"


def _published(row: Row, metric: str) -> str:
    """The figure of the main version; of another, behind its name."""
    show = {"ones": share, "parameters": count}.get(metric, loss)
    others: Sequence[str] = [
        f"({p.version}: {show(getattr(p, metric))})"
        for p in row.published
        if p.version != MAIN_VERSION and getattr(p, metric) is not None
    ]
    return " ".join([show(_figure(row, metric, MAIN_VERSION)), *others])
