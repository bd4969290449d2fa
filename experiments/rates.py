"""Which rate: what a fixed one, or a rule, loses to the best that ran.

The rule, the smallest rate at which val loss no longer turns up before the end, was read off the
surface and is tried on every kind that has several rates elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.formats import NOTHING, loss, markdown
from experiments.pairs import Point, rate_of
from experiments.runs import RowRuns

# What val may have risen from its lowest by the end, in nats.
RISE = 0.07
ALWAYS = (0.0, 0.05, 0.1, 0.2, 0.3)
READ_OFF = "surface_"  # tables of this name were looked at for it


@dataclass(frozen=True)
class Choice:
    """A kind's rates in one setting, none as rate 0: what each gains, and how far val rose with it."""

    setting: str
    kind: str
    seeds: tuple[int, int]  # fewest and most of a rate
    gains: dict[float, float]
    rises: dict[float, float]

    @property
    def chosen(self) -> float:
        """The rule's rate; the largest where val rises too far with all."""
        mild = (rate for rate in sorted(self.rises) if self.rises[rate] <= RISE)
        return next(mild, max(self.rises))

    @property
    def best(self) -> float:
        """The rate of the lowest val loss at the end."""
        return min(self.gains, key=self.gains.__getitem__)

    def lost(self, rate: float) -> float | None:
        """What a rate loses to the best one, in nats; None where it did not run."""
        return self.gains[rate] - self.gains[self.best] if rate in self.gains else None


def rise(runs: RowRuns) -> float:
    """How far val loss stands above its lowest at the end, in the mean over seeds, on the curves."""
    curves = [[point.val for point in record.curve] for record in runs.finished]
    return sum(curve[-1] - min(curve) for curve in curves) / len(curves)


def choices(found: Sequence[Point]) -> list[Choice]:
    """Every setting and kind of two rates or more."""
    groups: dict[tuple[str, str], list[Point]] = {}
    for point in found:
        kind, rate = rate_of(point.kind)
        if rate is not None:
            groups.setdefault((point.setting, kind), []).append(point)
    return [_choice(kind, own) for (_, kind), own in groups.items() if len(own) > 1]


def _choice(kind: str, own: Sequence[Point]) -> Choice:
    most = max(own, key=lambda point: point.n)
    gains, rises = {0.0: 0.0}, {0.0: rise(most.none)}
    for point in own:
        _, rate = rate_of(point.kind)
        assert rate is not None
        gains[rate], rises[rate] = point.gains["val"].interval.mean, rise(point.row)
    seeds = [point.n for point in own]
    name = f"{most.table}, {most.none.row.label}"
    return Choice(name, kind, (min(seeds), max(seeds)), gains, rises)


def which_rate(found: Sequence[Point]) -> str:
    """The section: what a rule and fixed rates lose to the best rate that ran; empty if none did."""
    every = choices(found)
    tried = [one for one in every if not one.setting.startswith(READ_OFF)]
    if not tried:
        return ""
    hits = sum(one.chosen == one.best for one in tried)
    verdict = "holds" if 3 * hits >= 2 * len(tried) else "fails"
    rules = {f"always {rate:g}": rate for rate in ALWAYS} | {"the rule": None}
    regrets = [_regrets(name, rate, tried) for name, rate in rules.items()]
    text = (
        "What a rate loses in val at the last step to the best of those that ran, in the settings and "
        "kinds outside the surface that have two or more; of each rate those where it ran, and the "
        f"rule beside it over the same ones. The rule: the smallest rate with which val ends no more "
        f"than {RISE} above its lowest, none being rate 0, and the largest if none is so mild. Read "
        f"off the surface and written in the log before it was tried, it was to find the best rate in "
        f"two settings of three, and **{verdict}**: it finds {hits} of {len(tried)}. "
        "Most rates have one seed."
    )
    header = ["", "settings", "loses, mean", "loses, most", "the rule there, mean"]
    lines = ["setting", "kind", "seeds", "rates", "rule", "best", "rule loses", "always 0.1 loses"]
    rows = [
        [
            one.setting, one.kind, "–".join(dict.fromkeys(map(str, one.seeds))),
            ", ".join(f"{rate:g}" for rate in sorted(one.gains)), f"{one.chosen:g}",
            f"{one.best:g}", loss(one.lost(one.chosen)), loss(one.lost(0.1)),
        ]
        for one in every
    ]  # fmt: skip
    tables = markdown(header, regrets), markdown(lines, rows, left=(1, 3))
    return "\n\n".join(["## Which rate", text, *tables])


def _regrets(name: str, always: float | None, tried: Sequence[Choice]) -> list[str]:
    """The line of one way to choose: always a rate, or by the rule."""
    own = [one for one in tried if always is None or always in one.gains]
    rule = [one.gains[one.chosen] - one.gains[one.best] for one in own]
    lost = rule if always is None else [one.gains[always] - one.gains[one.best] for one in own]
    means = [loss(sum(side) / len(side)) if side else NOTHING for side in (lost, rule)]
    return [name, str(len(own)), means[0], loss(max(lost, default=None)), means[1]]
