"""This project's training beside a plain implementation, on a GPU: one command, at most 8 minutes.

    python -m benchmarks.gpu              # prints one table, writes benchmarks/results/gpu.json
    python -m benchmarks.gpu --dry-run    # the same path with tiny shapes on a CPU

Both sides compiled, in bfloat16, in one run and in turns. What the time limit leaves no room for is
named in the table as skipped.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import roofline
from benchmarks.contender import Contender, Spec, compose_config
from benchmarks.measure import WARM_UP_STEPS, Result, machine, markdown, race

RESULTS = Path(__file__).parent / "results" / "gpu.json"
LIMIT_S = 420  # after this no further part begins
HEADER = ["work", "dropout", "ours", "plain", "ratio", "bar", "peak memory", "of roofline"]
TINY = ("model.n_layer=1", "model.n_embd=16", "model.n_head=2", "model.block_size=8")
TINY_STEP = ("model.vocab_size=96", "batch_size=4", "micro_batch_size=2")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes on a CPU")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args(arguments)
    report = measure("cpu" if options.dry_run else "cuda")
    print(f"{report['machine']['name']}, torch {report['machine']['torch']}")
    print(report["table"])
    out = options.out or (None if options.dry_run else RESULTS)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report, indent=1) + "\n")


def measure(device: str) -> dict[str, Any]:
    """Every part that the time allows, in the order of what matters most."""
    start = time.perf_counter()
    parts: dict[str, Callable[[], tuple[list[list[str]], list[Result]]]] = {
        "published, none": partial(published, device, "none"),
        "published, learned": partial(published, device, "learned"),
        "small, one row": partial(small, device),
        "small, several at once": partial(at_once, device),
    }
    rows, results = [], []
    for name, part in parts.items():
        if time.perf_counter() - start > LIMIT_S:
            rows.append([name, "", "skipped: no time left", *[""] * (len(HEADER) - 3)])
            continue
        gone_s = time.perf_counter() - start
        print(f"[{gone_s:.0f} s of at most 480] {name}", file=sys.stderr, flush=True)
        new_rows, new_results = part()
        rows += new_rows
        results += [result.as_dict() for result in new_results]
    return {"machine": machine(device), "table": markdown(HEADER, rows), "results": results}


def published(device: str, dropout: str) -> tuple[list[list[str]], list[Result]]:
    """The published step, 160,000 tokens, beside plain with large micro-batches."""
    overrides = shape("published", device, f"dropout={dropout}")
    ours, plain = race(
        [
            spec("ours", overrides, device),
            spec("plain", overrides, device, vocab_multiple=64),
        ],
        rounds=2 if device == "cpu" else 10,
    )
    cfg = compose_config(ours.spec)
    size = {"cpu": 128, "cuda": 8192}[device]
    limit = roofline.measure(cfg, device, ours.facts["dtype"], size)
    gigabytes = [f"{r.working_bytes / 1e9:.2f} GB" for r in (ours, plain)]
    row = [
        f"published, {ours.facts['tokens_per_step']:,} tokens a step",
        dropout,
        f"{ours.tokens_per_s:,.0f} tokens/s",
        f"{plain.tokens_per_s:,.0f} tokens/s",
        f"{plain.step_s / ours.step_s:.2f}",
        "2.00",
        " / ".join(gigabytes),
        f"{ours.tokens_per_s / limit['tokens_per_s']:.0%}",
    ]
    return [row], [ours, plain]


def small(device: str) -> tuple[list[list[str]], list[Result]]:
    """How long one row of the `small` table takes: its steps at the measured pace."""
    (ours,) = race(
        [spec("ours", shape("small", device), device)], rounds=5 if device == "cpu" else 30
    )
    seconds = compose_config(ours.spec).steps * ours.step_s
    cells = [f"{ours.tokens_per_s:,.0f} tokens/s", "", f"{seconds:.0f} s a row", "60 s"]
    memory = f"{ours.working_bytes / 1e9:.2f} GB"
    return [["small", ours.spec.overrides[-1].split("=")[1], *cells, memory, ""]], [ours]


def at_once(device: str) -> tuple[list[list[str]], list[Result]]:
    """Whether several `small` runs on one GPU together do more than one after the other."""
    one = spec("ours", shape("small", device), device)
    counts, steps = ((1, 2), 2) if device == "cpu" else ((1, 2, 4), 30)
    paces = dict(together(one, counts, steps))
    rows = [
        [f"small, {n} at once", "learned", f"{pace:,.0f} tokens/s", "", f"{pace / paces[1]:.2f}"]
        + [""] * (len(HEADER) - 5)
        for n, pace in paces.items()
    ]
    return rows, []


def together(one: Spec, counts: Sequence[int], steps: int) -> Iterator[tuple[int, float]]:
    """(n, tokens a second of all together) for each n in `counts`."""
    with ExitStack() as stack:
        runs = [stack.enter_context(Contender(one)) for _ in range(max(counts))]
        for run in runs:
            run.steps(WARM_UP_STEPS)
        for n in counts:
            start = time.perf_counter()
            with ThreadPoolExecutor(n) as pool:
                list(pool.map(lambda run: run.steps(steps), runs[:n]))
            seconds = time.perf_counter() - start
            yield n, n * steps * runs[0].facts["tokens_per_step"] / seconds


def shape(scale: str, device: str, dropout: str = "dropout=learned") -> tuple[str, ...]:
    """The scale's overrides; tiny ones in a dry run."""
    return (f"scale={scale}", *((*TINY, *TINY_STEP) if device == "cpu" else ()), dropout)


def spec(kind: str, overrides: tuple[str, ...], device: str, vocab_multiple: int = 1) -> Spec:
    dtype = "float32" if device == "cpu" else "bfloat16"
    return Spec(kind, overrides, dtype, device == "cuda", device, vocab_multiple)


if __name__ == "__main__":
    main()
