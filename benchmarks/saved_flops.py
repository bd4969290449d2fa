"""What leaving out the rows that token masks drop saves on the clock, and what it costs in loss.

    python -m benchmarks.saved_flops --run runs/saved_flops_nano/*/seed1*    # trained: time and loss
    python -m benchmarks.saved_flops --scale published                       # masks by hand: time alone

A run of learned_token stands beside the one among the given that has its setting and no dropout: that
one dense, this one without its dropped rows. Times are of forward passes in evaluation, in turns; with
the head, whose logits of every position are part of evaluation, and without. "Masks applied" computes
all rows and, as every evaluation, the masks' statistics. Without runs a model of `--scale` is drawn at
random and its masks are made by hand.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.contender import Spec, compose_config
from benchmarks.measure import machine, markdown
from cli.arguments import positive
from common.errors import UserError
from model.gpt import GPT
from model.leaving_out import check_can_leave_out, known_masks, leave_out
from ops import native
from ops.head import token_losses
from tracking.provenance import code_facts
from training.device import Machine, choose_machine
from training.state import build_model

if TYPE_CHECKING:
    from tracking.load import LoadedRun

BAR_SPEED, BAR_LOSS = 1.3, 0.01
SHARES = (0.75, 0.5, 0.25, 0.0)
RESULTS = Path(__file__).parent / "results"
Masks = dict[str, Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--run", nargs="+", metavar="DIR", help="finished runs, with none's")
    what.add_argument("--scale", help="nano, small, published: no runs, masks made by hand")
    parser.add_argument("--windows", type=positive, default=32, help="in a timed pass")
    parser.add_argument("--rounds", type=positive, default=21, help="timed passes of each")
    options = parser.parse_args()
    settings = {"windows": options.windows, "rounds": options.rounds}
    report = (
        by_hand(options.scale, **settings) if options.scale else trained(options.run, **settings)
    )
    print(table(report["rows"]))
    report = {"machine": machine("cpu"), "commit": code_facts()["commit"], **settings} | report
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"saved_flops-{report['name']}.json").write_text(json.dumps(report, indent=1) + "\n")


@dataclass(frozen=True)
class Forward:
    """A timed pass: hidden states of `tokens`, and with `targets` the loss of every position."""

    model: GPT
    hidden: Callable[[GPT, Tensor], Tensor]
    tokens: Tensor
    targets: Tensor | None = None

    def __call__(self) -> None:
        hidden = self.hidden(self.model, self.tokens)
        if self.targets is not None:
            token_losses(hidden.flatten(0, 1), self.model.head_weight, self.targets.flatten())


def dense(model: GPT, tokens: Tensor) -> Tensor:
    """The model's own pass."""
    return model(tokens).hidden


@torch.no_grad()
def speed_ups(
    reference: Forward, others: Mapping[str, Forward], rounds: int, on: Machine
) -> dict[str, list[float]]:
    """How many times as fast as the reference each is, by passes in turns: quartiles over rounds."""
    ratios: dict[str, list[float]] = {name: [] for name in others}
    with on.autocast():
        for passes in (reference, *others.values()):
            passes()
        for _ in range(rounds):
            base = _seconds(reference)
            for name, other in others.items():
                ratios[name].append(base / _seconds(other))
    return {name: np.percentile(found, (25, 50, 75)).tolist() for name, found in ratios.items()}


def _seconds(function: Callable[[], None]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def trained(directories: Sequence[str], windows: int, rounds: int) -> dict[str, Any]:
    """Loss, arithmetic and speed of each run beside the dense one of its setting.

    Dense is the largest model without dropout of the same setting: all but dropout and model.
    ValueError where a run is no finished one, has no such partner, or has masks that cannot be left
    out.
    """
    from tracking.load import load_run

    by_setting: dict[str, list[LoadedRun]] = defaultdict(list)
    for directory in directories:
        run = load_run(directory, "last", "cpu")
        if run.checkpoint.step < run.cfg.steps:
            raise UserError(
                f"{run.directory} stands at step {run.checkpoint.step} of {run.cfg.steps}: finish it "
                "first"
            )
        by_setting[_setting(run)].append(run)
    rows = []
    for runs in by_setting.values():
        dense_ones = [run for run in runs if run.cfg.dropout.name == "none"]
        if not dense_ones:
            one = runs[0]
            raise UserError(
                f"{one.directory}: no run without dropout, but else of its setting (seed "
                f"{one.cfg.seed}, weight decay {one.cfg.optimizer.weight_decay}), was given: name that "
                "one too"
            )
        reference = max(dense_ones, key=lambda run: run.model.n_parameters())
        rows += [_beside(run, reference, windows, rounds) for run in runs if run is not reference]
    if not rows:
        raise UserError("nothing to set beside none: name runs of dropout=learned_token too")
    on = run.machine
    return {"name": run.cfg.table_name or "runs", "dtype": on.dtype_name, "rows": rows}


def _setting(run: LoadedRun) -> str:
    aside = ("dropout", "model", "row_name", "tracker")
    return str({key: value for key, value in run.cfg.items() if key not in aside})


def _beside(run: LoadedRun, other: LoadedRun, windows: int, rounds: int) -> dict[str, Any]:
    from training.evaluate import run_windows

    check_can_leave_out(run.model)
    batches = run.batches["val"]
    tokens, targets = batches.gather(batches.disjoint_starts(windows))
    loss, loss_dense = (run_windows(one, "val", "closing")[0].mean().item() for one in (run, other))
    return {
        "row": run.cfg.row_name,
        "seed": run.cfg.seed,
        "val_loss": loss,
        "val_loss_left_out": loss_of_left_out(run),
        "minus_none": loss - loss_dense,
        "products": products(run.model, leave_out, tokens) / products(other.model, dense, tokens),
        **_both_ways(other.model, run.model, tokens, targets, rounds, run.machine),
    }


def _both_ways(
    base: GPT,
    masked: GPT,
    tokens: Tensor,
    targets: Tensor,
    rounds: int,
    on: Machine,
    left_out: Callable[[GPT, Tensor], Tensor] = leave_out,
) -> dict[str, list[float]]:
    """Speed of the masked model beside the dense one, dense itself and without its dropped rows."""
    speed: dict[str, list[float]] = {}
    for name, asked in (("blocks", None), ("with_head", targets)):
        contenders = {
            f"{name}_masks_applied": Forward(masked, dense, tokens, asked),
            f"{name}_left_out": Forward(masked, left_out, tokens, asked),
        }
        speed |= speed_ups(Forward(base, dense, tokens, asked), contenders, rounds, on)
    return speed


@torch.no_grad()
def loss_of_left_out(run: LoadedRun) -> float:
    """Mean val loss in nats, over all windows, of the pass without the dropped rows."""
    batches, total = run.batches["val"], torch.zeros((), dtype=torch.float64)
    starts = batches.disjoint_starts(run.cfg.evaluate.final_windows)
    with run.machine.autocast():
        for part in starts.split(run.cfg.evaluate.batch_size):
            tokens, targets = batches.gather(part)
            hidden = leave_out(run.model, tokens).flatten(0, 1)
            total += token_losses(hidden, run.model.head_weight, targets.flatten()).double().sum()
    return total.item() / (len(starts) * run.cfg.model.block_size)


@torch.no_grad()
def products(model: GPT, hidden: Callable[[GPT, Tensor], Tensor], tokens: Tensor) -> int:
    """Floating-point operations of all matrix products of a pass without the head, counted."""
    with native.without_kernels(), FlopCounterMode(display=False) as counter:
        hidden(model, tokens)
    return counter.get_total_flops()


def by_hand(scale: str, windows: int, rounds: int) -> dict[str, Any]:
    """Speed of an untrained model whose masks keep a share of all tokens, or of all branches."""
    on = choose_machine("cpu")
    base, masked = (
        build_model(compose_config(Spec("ours", (f"scale={scale}", f"dropout={name}")))).eval()
        for name in ("none", "learned_token")
    )
    cfg = base.cfg
    tokens, targets = torch.randint(cfg.vocab_size, (2, windows, cfg.block_size)).unbind(0)
    dense_products, rows = products(base, dense, tokens), []
    for what, masks_of in PATTERNS.items():
        for share in SHARES:
            masks = masks_of(masked, share, tokens.shape)
            left_out = with_masks(masks)
            rows.append(
                {
                    "row": what,
                    "kept": torch.stack(list(masks.values())).float().mean().item(),
                    "products": products(masked, left_out, tokens) / dense_products,
                    **_both_ways(base, masked, tokens, targets, rounds, on, left_out),
                }
            )
    return {"name": scale, "dtype": on.dtype_name, "rows": rows}


def _some_tokens(slot: str, model: GPT, share: float, shape: torch.Size) -> Masks:
    """Every branch of this slot keeps a share of the tokens, drawn at random."""
    return {key: torch.rand(shape) < share for key in _keys(model, slot)}


def _some_branches(slot: str, model: GPT, share: float, shape: torch.Size) -> Masks:
    """The first branches of this slot keep all tokens, the others none."""
    keys = _keys(model, slot)
    return {key: torch.full(shape, i < share * len(keys)) for i, key in enumerate(keys)}


def _keys(model: GPT, slot: str) -> list[str]:
    branches = ("residual_attention", "residual_mlp") if slot == "both" else (slot,)
    return [f"block{i}/{branch}" for i in range(len(model.blocks)) for branch in branches]


PATTERNS: dict[str, Callable[[GPT, float, torch.Size], Masks]] = {
    "MLPs, some tokens": partial(_some_tokens, "residual_mlp"),
    "MLPs, whole ones": partial(_some_branches, "residual_mlp"),
    "all branches, some tokens": partial(_some_tokens, "both"),
    "all branches, whole ones": partial(_some_branches, "both"),
}


def with_masks(masks: Masks) -> Callable[[GPT, Tensor], Tensor]:
    """`leave_out` with these masks in the place of the model's own, which are made all the same."""

    def masks_of(model: GPT, source: Tensor) -> Masks:
        own = known_masks(model, source)
        return {key: masks.get(key, torch.ones_like(mask)) for key, mask in own.items()}

    return partial(leave_out, masks_of=masks_of)


HEADER = {
    "row": "row",
    "seed": "seed",
    "kept": "rows of these kept",
    "val_loss": "val",
    "minus_none": "minus none",
    "products": "products",
    "blocks_masks_applied": "blocks, masks applied",
    "blocks_left_out": "blocks, left out",
    "with_head_masks_applied": "with head, masks applied",
    "with_head_left_out": "with head, left out",
}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """What was measured, a line each; with losses, whether it meets the bar."""
    columns = [key for key in HEADER if key in rows[0]]
    header = [HEADER[key] for key in columns]
    lines = [[_cell(key, row[key]) for key in columns] for row in rows]
    said = (
        "products: matrix products computed, of none's; times as fast as none's dense pass, medians"
    )
    if "minus_none" in columns:
        header.append("bar")
        for line, row in zip(lines, rows, strict=True):
            met = row["with_head_left_out"][1] >= BAR_SPEED and row["minus_none"] <= BAR_LOSS
            line.append("met" if met else "-")
        said += f"; bar: {BAR_SPEED} times with the head, at no more than {BAR_LOSS} nats"
    return f"{markdown(header, lines)}\n{said}"


def _cell(key: str, value: Any) -> str:
    match key:
        case "row" | "seed":
            return str(value)
        case "kept" | "products":
            return f"{value:.0%}"
        case "val_loss":
            return f"{value:.3f}"
        case "minus_none":
            return f"{value:+.3f}"
    return f"{value[1]:.2f}"


if __name__ == "__main__":
    from cli.errors import run_cli

    run_cli(main)
