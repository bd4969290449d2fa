"""A run, loaded, with the texts that its masks are looked at on."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from common.errors import UserError
from data.batches import Batches
from data.prepare import prepare
from data.tokenizers import open_tokenizer
from inspection.observe import observe
from model.gpt import GPT
from tracking.load import load_run
from training.device import Machine


@dataclass(frozen=True)
class Subject:
    """A trained model and what to look at.

    `windows` and `targets` are (B, T) of the validation split, `passage` (1, T) one text and
    `passage_text` what each of its tokens reads as. `module` is the key of the dropout that is looked
    at alone. `metrics` are the lines of the run's metrics.jsonl.
    """

    model: GPT
    machine: Machine
    step: int
    dropout_name: str
    module: str
    windows: Tensor
    targets: Tensor
    passage: Tensor
    passage_text: list[str]
    metrics: list[Mapping[str, float]]
    lr: float
    weight_decay: float


def load_subject(
    directory: Path,
    *,
    which: Literal["best", "last"] = "best",
    module: str | None = None,
    text: str | None = None,
    n_window: int = 64,
    device: str = "auto",
) -> Subject:
    """Load a run; the passage is `text`, or the beginning of the validation split.

    ValueError where the directory is no run's, no dropout of it has a mask, `module` is none of those
    that have, there are fewer than two windows to compare or fewer than two tokens of text.
    """
    run = load_run(directory, which, device)
    cfg, machine, model = run.cfg, run.machine, run.model
    if n_window < 2:
        raise UserError(f"windows={n_window} must be at least 2: masks of two texts are compared")
    data = prepare(cfg.data, cfg.model.block_size)
    tokenizer = open_tokenizer(cfg.data.tokenizer, cfg.data.vocab_size)
    validation = data.tokens("val")
    tokens = (
        validation[: cfg.model.block_size] if text is None else tokenizer.encode(text)
    ).tolist()
    if len(tokens) < 2:
        raise UserError(f"text={text!r} has {len(tokens)} tokens: give at least two")
    tokens = tokens[: cfg.model.block_size]
    batches = Batches(validation, cfg.model.block_size, machine.device)
    windows, targets = batches.gather(batches.window_starts(n_window, cfg.seed, "inspect"))
    passage = torch.tensor([tokens], device=machine.device)
    return Subject(
        model=model,
        machine=machine,
        step=run.step,
        dropout_name=cfg.dropout.name,
        module=choose_module(model, passage, machine, module),
        windows=windows,
        targets=targets,
        passage=passage,
        passage_text=[tokenizer.decode([t]) for t in tokens],
        metrics=read_metrics(directory),
        lr=cfg.optimizer.lr,
        weight_decay=cfg.optimizer.weight_decay,
    )


def choose_module(model: GPT, tokens: Tensor, machine: Machine, module: str | None) -> str:
    """`module` if it has a mask; without one, the last that has."""
    having = observe(model, tokens, machine, training=True)
    if not having:
        raise UserError(
            "this run has no dropout with a mask to look at: train one, for example with "
            "dropout=standard or dropout=learned"
        )
    if module is not None and module not in having:
        raise UserError(f"module={module} has no mask: take one of {', '.join(having)}")
    return module or list(having)[-1]


def read_metrics(directory: Path) -> list[Mapping[str, float]]:
    """The lines of a run's metrics.jsonl; none where the run has written none."""
    path = directory / "metrics.jsonl"
    if not path.is_file():
        return []
    lines = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise UserError(f"{path} is damaged: line {number} is not JSON") from error
    return lines
