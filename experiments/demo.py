"""`make demo`: one picture of three small runs, and one sentence that says what is seen."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import UserError
from experiments.command import answer
from experiments.spec import RUNS

if TYPE_CHECKING:
    from experiments.runs import RowRuns, Table


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the curves and say what they show; 0, or 2 for an error that a person can put right."""
    options = argparse.ArgumentParser(prog="python -m experiments.demo", description=__doc__)
    options.add_argument("--runs", type=Path, default=RUNS / "demo_nano", metavar="DIR")
    options.add_argument("--out", type=Path, default=RUNS / "figures", metavar="DIR")
    arguments = options.parse_args(argv)

    def make() -> int:
        import matplotlib as mpl

        from experiments.figures import draw
        from experiments.runs import own_table

        mpl.use("agg")
        table = own_table(arguments.runs)
        if not table.finished:
            raise UserError(f"runs={arguments.runs} holds no finished run: `make demo` makes them")
        pictures = draw(table, arguments.out, names=["curves"])  # none of too many rows
        print(sentence(table), *(f"picture: {path}" for path in pictures), sep="\n")
        return 0

    return answer(make)


def sentence(table: "Table") -> str:
    """How val loss ended in each row, lowest first, and how far it had risen by then."""
    from experiments.statistics import MIN_SEEDS

    rows = [runs for runs in table.rows.values() if runs.finished]
    ends = ", ".join(_end(runs) for runs in sorted(rows, key=lambda runs: _curve(runs)[-1][1]))
    n = min(len(runs.finished) for runs in rows)
    worth = ", which supports no order of them" if n < MIN_SEEDS else ""
    return (
        f"On the curve's windows val loss, in nats a token, ends at {ends}: n = {n} for each row"
        f"{worth}; `make compare` runs the comparison."
    )


def _end(runs: "RowRuns") -> str:
    curve = _curve(runs)
    (step, lowest), (_, last) = min(curve, key=lambda point: point[1]), curve[-1]
    rise = round(last - lowest, 2)
    said = f"{rise:.2f} above its lowest, at step {step}" if rise else "its lowest"
    return f"{last:.2f} with {runs.row.label} ({said})"


def _curve(runs: "RowRuns") -> list[tuple[int, float]]:
    """Step and val loss, the mean over seeds, where every seed has it."""
    from experiments.figures import mean_curve

    means = mean_curve(runs)["mean"]
    return list(zip(means.index.tolist(), means.tolist(), strict=True))


if __name__ == "__main__":
    sys.exit(main())
