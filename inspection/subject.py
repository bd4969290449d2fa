"""A run, loaded, with the texts that its masks are looked at on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from omegaconf import DictConfig
from torch import Tensor

from common.errors import UserError
from data.tokenizers import open_tokenizer
from inspection.observe import observe
from model.gpt import GPT
from tracking.lines import read_lines
from tracking.load import load_run
from training.bundle import Bundle
from training.device import Machine


@dataclass(frozen=True)
class Subject:
    """A loaded run and what to look at.

    `windows` and `targets` are (B, T) of the validation split, `passage` (1, T) one text and
    `passage_text` what each of its tokens reads as. `module` is the key of the dropout that is looked
    at alone. `metrics` are the lines of the run's metrics.jsonl.
    """

    run: Bundle
    step: int
    module: str
    windows: Tensor
    targets: Tensor
    passage: Tensor
    passage_text: list[str]
    metrics: Sequence[Mapping[str, Any]]

    @property
    def cfg(self) -> DictConfig:
        return self.run.cfg

    @property
    def model(self) -> GPT:
        return self.run.model

    @property
    def machine(self) -> Machine:
        return self.run.machine


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
    size = run.cfg.model.block_size
    if n_window < 2:
        raise UserError(f"windows={n_window} must be at least 2: masks of two texts are compared")
    tokenizer = open_tokenizer(run.cfg.data.tokenizer, run.cfg.data.vocab_size)
    tokens = (run.data.tokens("val")[:size] if text is None else tokenizer.encode(text)).tolist()
    if len(tokens) < 2:
        raise UserError(f"text={text!r} has {len(tokens)} tokens: give at least two")
    tokens = tokens[:size]
    batches = run.batches["val"]
    windows, targets = batches.gather(batches.window_starts(n_window, run.cfg.seed, "inspect"))
    passage = torch.tensor([tokens], device=run.machine.device)
    return Subject(
        run=run,
        step=run.checkpoint.step,
        module=choose_module(run.model, passage, run.machine, module),
        windows=windows,
        targets=targets,
        passage=passage,
        passage_text=[tokenizer.decode([t]) for t in tokens],
        metrics=read_lines(directory / "metrics.jsonl"),
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
