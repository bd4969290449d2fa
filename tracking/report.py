"""What a run tells of itself: the facts in its record, a line while it goes, a summary at its end."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from data.prepare import TokenData
from data.tokenizer import load_tokenizer
from model.flops import training_flops_per_token
from tracking import provenance
from tracking.directory import RunDirectory
from training.sample import generate
from training.state import TrainState

console = Console(stderr=True)


def run_facts(state: TrainState) -> dict[str, Any]:
    """What is known of a run before its first step, as its record has it."""
    return {
        "code": provenance.code_facts(),
        "versions": provenance.versions(),
        "device": provenance.device_facts(state.machine.device),
        "dtype": state.machine.dtype_name,
        "compile": bool(state.cfg.compile),
        "data": data_facts(state.data),
        "parameters": state.model.n_parameters(),
        "parameters_trainable": sum(p.numel() for p in state.model.parameters() if p.requires_grad),
        "flops_per_token": training_flops_per_token(state.model),
    }


def data_facts(data: TokenData) -> dict[str, Any]:
    """Where a run's tokens come from, and how many there are."""
    manifest, source = data.manifest, data.manifest["source"]
    facts = {
        "fingerprint": data.fingerprint,
        "source": source.get("repo", source["kind"]),
        "revision": source.get("revision") or source.get("package"),
        "origin": source,
        "files": {split: facts["sha256"] for split, facts in manifest["splits"].items()},
        "tokenizer": manifest["tokenizer"],
    }
    for split in ("train", "val"):
        facts |= {f"{split}_tokens": data.n_tokens(split), f"{split}_bytes": data.n_bytes(split)}
    return facts


class StepsBar:
    """A progress bar over the steps, with the latest losses; used as `with StepsBar(...) as bar`."""

    def __init__(self, step: int, steps: int) -> None:
        self._bar = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[shown]}"),
            console=console,
            refresh_per_second=4,
        )
        self._task = self._bar.add_task("", total=steps, completed=step, shown="")
        self._shown: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def advance(self, step: int) -> None:
        self._bar.update(self._task, completed=step)

    def show(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Put an evaluation's losses beside the bar; on a log file, where no bar is drawn, a line."""
        names = {"train/loss_nats": "train", "val/loss_nats": "val", "eval/ones": "ones"}
        values = {short: metrics[name] for name, short in names.items() if name in metrics}
        text = " ".join(f"{short} {value:.3f}" for short, value in values.items())
        self._bar.update(self._task, completed=step, shown=text)
        if values and not console.is_terminal:
            console.print(f"step {step}: {text}", highlight=False)


def sample_text(state: TrainState, n_samples: int = 2, n_tokens: int = 100) -> list[str]:
    """Text that the model writes from nothing but an end of text, or a line break without one."""
    tokenizer = load_tokenizer(state.model.cfg.vocab_size)
    start = tokenizer.eot_token if state.cfg.data.end_of_text else tokenizer.encode("\n")[0]
    state.model.eval()
    return [
        tokenizer.decode(generate(state.model, state.machine, [start], n_tokens, seed=seed))
        for seed in range(n_samples)
    ]


def validation_masks(state: TrainState) -> dict[str, torch.Tensor]:
    """Soft masks of one batch of validation windows, in evaluation mode, by module."""
    batches, cfg = state.batches["val"], state.cfg
    starts = batches.window_starts(cfg.evaluate.batch_size, cfg.seed, "evaluate val")
    state.model.eval()
    with torch.no_grad(), state.machine.autocast():
        masks = state.model(batches.gather(starts)[0], return_masks=True).masks
    return {key: out.soft_mask for key, out in masks.items() if out.soft_mask is not None}


def print_summary(run: RunDirectory, record: Mapping[str, Any], samples: list[str]) -> None:
    """The closing words: losses, size, speed, and where everything lies."""
    metrics, best = record["metrics"], record["best"]
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in {
        "train loss": _loss(metrics, "train"),
        "val loss": f"{_loss(metrics, 'val')}, best {best['val/loss_nats']:.3f} at step {best['step']}",
        "ones": _ones(metrics),
        "parameters": f"{record['parameters']:,} without positions",
        "speed": _speed(metrics),
        "data": f"{metrics['epoch']:.1f} epochs over {record['data']['train_tokens']:,} tokens",
    }.items():
        if value:
            table.add_row(f"[bold]{name}[/]", value)
    console.print(table)
    for text in samples[:1]:
        console.print(Text("sample  ", style="bold"), Text(text.strip()))
    for line in (  # whole, however long: they are to be copied
        f"run: {run.path}",
        f"more text: python sample.py --run {shlex.quote(str(run.path))} --prompt 'The'",
        f"a table: {_table_command(run)}",
    ):
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _loss(metrics: Mapping[str, float | None], split: str) -> str:
    stderr = metrics[f"{split}/loss_stderr"]  # one window has none
    return f"{metrics[f'{split}/loss_nats']:.3f} nats" + (f" ± {stderr:.3f}" if stderr else "")


def _speed(metrics: Mapping[str, float]) -> str:
    rate = metrics.get("tokens_per_s")  # a run of one step has none
    return (f"{rate:,.0f} tokens/s, " if rate else "") + f"{metrics['time_s']:.0f} s in all"


def _ones(metrics: Mapping[str, float]) -> str:
    if "eval/ones" not in metrics:
        return ""
    return f"{metrics['train/ones']:.3f} while training, {metrics['eval/ones']:.3f} in evaluation"


def _table_command(run: RunDirectory) -> str:
    return shlex.join(["python", "-m", "experiments.table", "--runs", str(run.path.parent.parent)])
