"""What a run tells of itself on the terminal: a line while it goes, and a summary at its end."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from tracking.curve import draw_curve
from tracking.directory import RunDirectory
from training.state import TrainState

console = Console(stderr=True)


def announce(state: TrainState, facts: Mapping[str, Any]) -> None:
    """What is about to be trained, on which text, and how much of it there is to do."""
    cfg, data = state.cfg, facts["data"]
    tokens = cfg.batch_size * cfg.model.block_size
    epochs = cfg.steps * tokens / data["train_tokens"]
    work = cfg.steps * tokens * facts["flops_per_token"]
    console.print(
        f"scale={cfg.scale}: {facts['parameters']:,} parameters, {cfg.steps:,} steps of {tokens:,} "
        f"tokens, {epochs:,.1f} epochs over {data['train_tokens']:,} tokens of {data['source']}, "
        f"{work:.1e} FLOP on {facts['device']['name'] or facts['device']['kind']}",
        highlight=False,
        soft_wrap=True,
    )
    if _is_unpenalised(cfg):
        console.print(
            "note: learned masks without a penalty, since dropout.penalty_weight is not set: "
            "+dropout.penalty_weight.max=0.1 sets it",
            highlight=False,
            soft_wrap=True,
        )
    if not _is_text_of_scale(cfg):
        console.print(
            f"warning: scale={cfg.scale} is meant for data={cfg.scale_text}, and this trains on "
            f"{data['source']}: its epochs and losses compare with nothing at that scale",
            highlight=False,
            soft_wrap=True,
        )


def _is_unpenalised(cfg: DictConfig) -> bool:
    """Whether a learned kind stands in a preset that says nothing of penalties."""
    slots = [slot for slot in cfg.dropout.values() if isinstance(slot, DictConfig)]
    return "penalty_weight" not in cfg.dropout and any("penalty" in slot for slot in slots)


def _is_text_of_scale(cfg: DictConfig) -> bool:
    text = cfg.data.repo.rpartition("/")[2] if cfg.data.source == "hub" else cfg.data.source
    return bool(text == cfg.scale_text)


class StepsBar:
    """A progress bar over the steps, with the latest losses; used as `with StepsBar(...) as bar`."""

    def __init__(self, step: int, steps: int, *, shown: bool = True) -> None:
        self._bar = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[shown]}"),
            console=console,
            refresh_per_second=4,
            disable=not shown,
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
        if values and not console.is_terminal and not self._bar.disable:
            console.print(f"step {step}: {text}", highlight=False)


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
        *_curve(run, record),
        f"more text: python sample.py --run {shlex.quote(str(run.path))} --prompt 'The'",
        f"a table: {_table_command(run)}",
    ):
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _curve(run: RunDirectory, record: Mapping[str, Any]) -> list[str]:
    """Where the curve's picture lies; the run is done, and whatever fails here fails nothing."""
    try:
        path = draw_curve(record, run.path)
    except Exception as error:
        return [f"curve: not drawn, {type(error).__name__}: {error}"]
    return [f"curve: {path}"] if path else []


def _loss(metrics: Mapping[str, float | None], split: str) -> str:
    stderr = metrics[f"{split}/loss_stderr"]  # one window has none
    return f"{metrics[f'{split}/loss_nats']:.3f} nats" + (f" ± {stderr:.3f}" if stderr else "")


def _speed(metrics: Mapping[str, float]) -> str:
    rate = metrics.get("tokens_per_s")  # a run of one step has none
    return (f"{rate:,.0f} tokens/s, " if rate else "") + f"{metrics['time_s']:.0f} s in all"


def _ones(metrics: Mapping[str, float]) -> str:
    if None in (metrics.get("train/ones"), metrics.get("eval/ones")):
        return ""
    return f"{metrics['train/ones']:.3f} while training, {metrics['eval/ones']:.3f} in evaluation"


def _table_command(run: RunDirectory) -> str:
    return shlex.join(["python", "-m", "experiments.table", "--runs", str(run.path.parent.parent)])
