"""This project's training beside a plain implementation, on a CPU.

    python -m benchmarks                  # all of it, half an hour, mostly compiling plain
    python -m benchmarks --quick          # a look: eager modes, few steps, no memory; nothing written
    python -m benchmarks --only nano --only start

Prints the tables and writes benchmarks/results/cpu.json, part by part; on stderr it says what it does
and how long that will take. Ratios are taken in one run and in turns; absolute figures hold for this
machine under its load.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import preparation, start_up
from benchmarks.contender import Spec
from benchmarks.measure import (
    Progress,
    Result,
    expected_s,
    machine,
    markdown,
    matrix_peak,
    race,
)

RESULTS = Path(__file__).parent / "results" / "cpu.json"
SCALES = {
    "published": ("scale=published", "batch_size=8", "micro_batch_size=8"),
    "nano": ("scale=nano",),
}
WORK = {"published": "published, 8 windows of 200", "nano": "nano as shipped"}
BARS = {"published": 3.0, "nano": 2.5}
STANDARD_BAR, LEARNED_BAR, MEMORY_BAR = 1.05, 1.10, 0.25
# Plain has nn.Dropout where `standard` has its own: embeddings, attention, both branches' outputs.
DROPOUTS = ("none", "standard", "learned")
DTYPES = ("bfloat16", "float32")
# Guesses, for the time left: twelve large products; four contenders in turns; six that take three
# steps of 50 windows.
PEAKS_S, RACE_S, MEMORY_S = 10.0, 75.0, 180.0
SAYS = {"start": "how long commands take to start", "data": "preparing text, beside tiktoken"}
SPEED_HEADER = [
    *("work", "dropout", "ours", "peak", "ours without g++"),
    *("plain with our allocator", "ratio", "plain", "ratio", "bar"),
]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a look: eager modes alone, few steps")
    parser.add_argument("--only", choices=(*SCALES, "memory", "start", "data"), action="append")
    parser.add_argument("--corpus", help="a file of articles for the data part; else the sample")
    parser.add_argument("--out", type=Path, help="else results/cpu.json, and nowhere with --quick")
    options = parser.parse_args(arguments)
    out = options.out or (None if options.quick else RESULTS)
    expected = {scale: speed_s(options.quick) for scale in SCALES}
    expected |= {"memory": MEMORY_S, "start": 60.0, "data": 30.0}
    chosen = options.only or [name for name in expected if not (options.quick and name == "memory")]
    progress = Progress(sum(expected[name] for name in chosen))
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        **{scale: partial(speed, scale, options.quick, progress) for scale in SCALES},
        "memory": lambda: memory(progress),
        "start": start_up.measure,
        "data": lambda: preparation.measure(options.corpus),
    }
    report: dict[str, Any] = {}
    if out is not None and out.exists():  # a part measured alone leaves the others as they were
        known = json.loads(out.read_text())
        report = {name: known[name] for name in parts if name in known}
    for name in chosen:
        if name in SAYS:
            progress.begin(SAYS[name], expected[name])
        report[name] = {"machine": machine("cpu"), **parts[name]()}
        print(report[name]["table"] + "\n", flush=True)
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(report, indent=1) + "\n")


def speed(scale: str, quick: bool, progress: Progress) -> dict[str, Any]:
    """Steps of ours and of plain's fastest settings at a scale, every dropout, in turns.

    Plain runs as one writes it; and again with this project's setting of the C library's allocator,
    which leaves the difference that the training code itself makes. Ours runs as it does, and again
    without its compiled kernels.
    """
    progress.begin("the machine's matrix products", PEAKS_S)
    peaks = {dtype: matrix_peak("cpu", dtype) for dtype in DTYPES}
    rounds, work, overrides = 3 if quick else 15, WORK[scale], SCALES[scale]
    rows, results = [], []
    for dropout in DROPOUTS:
        own, name = (*overrides, f"dropout={dropout}"), f"{work}, {dropout}"
        rivals = [fastest(own, quick, keeps, name, progress) for keeps in (False, True)]
        specs = [Spec("ours", own), Spec("ours", own, kernels=False), *rivals]
        progress.begin(f"{name}: ours and plain's fastest in turns", RACE_S)
        ours, uncompiled, plain, keeping = race(specs, rounds, steps=2)
        results += [ours, uncompiled, plain, keeping]
        cells = compared(ours, uncompiled, plain, keeping, peaks)
        rows.append([work, dropout, *cells, f"{BARS[scale]:.2f}"])
    progress.begin(f"{work}: ours with {', '.join(DROPOUTS)} in turns", RACE_S)
    specs = [Spec("ours", (*overrides, f"dropout={dropout}")) for dropout in DROPOUTS]
    none, standard, learned = race(specs, rounds, steps=2)
    rows.append([work, "standard / none", *time_ratio(standard, none)])
    rows.append([work, "learned / none", *ratio_by_flops(learned, none)])
    table = markdown(SPEED_HEADER, rows)
    note = "\nours and plain in tokens/s; peak: ours, of the measured matrix product in its dtype"
    return {
        "table": table + note,
        "matrix_peak_flops_per_s": peaks,
        "results": [result.as_dict() for result in results],
    }


def speed_s(quick: bool) -> float:
    """A guess at the seconds of `speed`, for one scale."""
    alone = 2 * sum(expected_s(spec) for spec in plain_settings((), quick, keeps_memory=False))
    return PEAKS_S + len(DROPOUTS) * (alone + RACE_S) + RACE_S


def fastest(
    overrides: tuple[str, ...], quick: bool, keeps_memory: bool, name: str, progress: Progress
) -> Spec:
    """The quickest of plain's settings, each alone in memory."""
    results = []
    for spec in plain_settings(overrides, quick, keeps_memory):
        allocator = " with our allocator" if keeps_memory else ""
        progress.begin(f"{name}: plain {spec.settings}{allocator}", expected_s(spec))
        results += race([spec], rounds=3)
    return min(results, key=lambda result: result.step_s).spec


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


def time_ratio(standard: Result, none: Result) -> list[str]:
    """Cells of standard against none: what its noise costs, since the products are the same."""
    ratio = f"{none.tokens_per_s / standard.tokens_per_s:.2f}"
    return [f"time {ratio}", *[""] * 5, ratio, f"{STANDARD_BAR:.2f}"]


def ratio_by_flops(learned: Result, none: Result) -> list[str]:
    """Cells of learned against none: ratio of times over ratio of FLOPs."""
    time = none.tokens_per_s / learned.tokens_per_s
    flops = learned.facts["flops_per_token"] / none.facts["flops_per_token"]
    cells = [f"time {time:.2f}", f"FLOPs {flops:.2f}"]
    return [*cells, *[""] * 4, f"{time / flops:.2f}", f"{LEARNED_BAR:.2f}"]


def memory(progress: Progress) -> dict[str, Any]:
    """Peak memory above parameters and optimizer at the published step's 50 windows."""
    rows, results = [], []
    for dropout in DROPOUTS:
        own = ("scale=published", "batch_size=50", "micro_batch_size=50", f"dropout={dropout}")
        sides = []
        for kind in ("ours", "plain"):
            progress.begin(f"memory at 50 windows, {dropout}: {kind}", MEMORY_S / 6)
            sides += race([Spec(kind, own)], rounds=1)
        ours, plain = sides
        results += sides
        share = ours.working_bytes / plain.working_bytes
        cells = [f"{r.working_bytes / 1e9:.2f} GB" for r in sides]
        bar = f"{MEMORY_BAR:.2f}"
        rows.append(["published, 50 windows of 200", dropout, *cells, f"{share:.2f}", bar])
    header = ["work", "dropout", "ours", "plain", "ratio", "bar"]
    table = markdown(header, rows) + "\npeak resident memory above parameters and optimizer, eager"
    return {"table": table, "results": [result.as_dict() for result in results]}


if __name__ == "__main__":
    main(sys.argv[1:])
