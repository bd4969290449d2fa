"""This project's training beside a plain implementation, on a CPU.

    python -m benchmarks                  # all of it, some 20 minutes, mostly compiling plain's model
    python -m benchmarks --quick          # eager modes alone, few steps
    python -m benchmarks --only speed

Prints the tables and writes benchmarks/results/cpu.json. Ratios are taken in one run and in turns;
absolute figures hold for this machine under its load.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import preparation, start_up
from benchmarks.contender import Spec
from benchmarks.measure import Result, fastest, machine, markdown, matrix_peak, race

RESULTS = Path(__file__).parent / "results" / "cpu.json"
SCALES = {
    "published, 8 windows of 200": ("scale=published", "batch_size=8", "micro_batch_size=8"),
    "nano as shipped": ("scale=nano",),
}
BARS = {"published, 8 windows of 200": 2.0, "nano as shipped": 1.5}
DROPOUTS = ("none", "learned")
DTYPES = ("bfloat16", "float32")
SPEED_HEADER = [
    *("work", "dropout", "ours", "peak", "ours without g++"),
    *("plain with our allocator", "ratio", "plain", "ratio", "bar"),
]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="eager modes alone, few steps")
    parser.add_argument("--only", choices=("speed", "memory", "start", "data"), action="append")
    parser.add_argument("--corpus", help="a file of articles for the data part; else the sample")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    parts = {
        "speed": lambda: speed(options.quick),
        "memory": memory,
        "start": start_up.measure,
        "data": lambda: preparation.measure(options.corpus),
    }
    report: dict[str, Any] = {"machine": machine("cpu")}
    if options.out.exists():  # a part measured alone leaves the others as they were
        report = json.loads(options.out.read_text()) | report
    for name in options.only or parts:
        section = parts[name]()
        report[name] = section
        print(section["table"] + "\n", flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n")


def speed(quick: bool) -> dict[str, Any]:
    """Steps of ours and of plain's fastest settings, baseline and learned, in turns.

    Plain runs as one writes it; and again with this project's setting of the C library's allocator,
    which leaves the difference that the training code itself makes. Ours runs as it does, and again
    without its compiled kernels.
    """
    peaks = {dtype: matrix_peak("cpu", dtype) for dtype in DTYPES}
    rows, results = [], []
    for scale, overrides in SCALES.items():
        races = []
        for dropout in DROPOUTS:
            own = (*overrides, f"dropout={dropout}")
            rivals = [fastest(plain_settings(own, quick, keeps), 3).spec for keeps in (False, True)]
            ways = [Spec("ours", own), Spec("ours", own, kernels=False)]
            races.append(race([*ways, *rivals], rounds=5 if quick else 15, steps=2))
        for dropout, (ours, uncompiled, plain, keeping) in zip(DROPOUTS, races, strict=True):
            results += [ours, uncompiled, plain, keeping]
            cells = compared(ours, uncompiled, plain, keeping, peaks)
            rows.append([scale, dropout, *cells, f"{BARS[scale]:.1f}"])
        both = race([Spec("ours", (*overrides, f"dropout={d}")) for d in DROPOUTS], 15, steps=2)
        rows.append([scale, "learned / none", *relative(both[1], both[0])])
    table = markdown(SPEED_HEADER, rows)
    note = "\nours and plain in tokens/s; peak: ours, of the measured matrix product in its dtype"
    return {
        "table": table + note,
        "matrix_peak_flops_per_s": peaks,
        "results": [result.as_dict() for result in results],
    }


def plain_settings(overrides: tuple[str, ...], quick: bool, keeps_memory: bool) -> list[Spec]:
    """Every way that plain may be run."""
    modes = (False,) if quick else (False, True)
    return [
        Spec("plain", overrides, dtype, mode, keeps_memory=keeps_memory)
        for dtype in DTYPES
        for mode in modes
    ]


def compared(
    ours: Result, uncompiled: Result, plain: Result, keeping: Result, peaks: dict[str, float]
) -> tuple[str, ...]:
    """Cells: ours, its share of the peak, without kernels; plain, settings, ratio, once and again."""
    share = ours.flops_per_s / peaks[ours.facts["dtype"]]
    cells = [f"{ours.tokens_per_s:,.0f}", f"{share:.1%}", f"{uncompiled.tokens_per_s:,.0f}"]
    for rival in (keeping, plain):  # the ratio that the bar is for stands beside it
        cells += [
            f"{rival.tokens_per_s:,.0f} ({rival.spec.settings})",
            f"{rival.step_s / ours.step_s:.2f}",
        ]
    return tuple(cells)


def relative(learned: Result, none: Result) -> list[str]:
    """Cells of learned against baseline: ratio of times over ratio of FLOPs."""
    time = none.tokens_per_s / learned.tokens_per_s
    flops = learned.facts["flops_per_token"] / none.facts["flops_per_token"]
    cells = [f"time {time:.2f}", f"FLOPs {flops:.2f}"]
    return [*cells, *[""] * 4, f"{time / flops:.2f}", "1.10"]


def memory() -> dict[str, Any]:
    """Peak memory above parameters and optimizer at the published step's 50 windows."""
    windows = ("scale=published", "batch_size=50", "micro_batch_size=50")
    rows, results = [], []
    for dropout in DROPOUTS:
        own = (*windows, f"dropout={dropout}")
        ours, plain = (race([Spec(kind, own)], rounds=1)[0] for kind in ("ours", "plain"))
        results += [ours, plain]
        share = ours.working_bytes / plain.working_bytes
        cells = [f"{r.working_bytes / 1e9:.2f} GB" for r in (ours, plain)]
        rows.append(["published, 50 windows of 200", dropout, *cells, f"{share:.2f}", "0.25"])
    header = ["work", "dropout", "ours", "plain", "ratio", "bar"]
    table = markdown(header, rows) + "\npeak resident memory above parameters and optimizer, eager"
    return {"table": table, "results": [result.as_dict() for result in results]}


if __name__ == "__main__":
    main(sys.argv[1:])
