"""The ensemble of several runs: the probabilities that they give each token, averaged.

Nothing is trained for it. Each run's loss of every token is enough, since the ensemble's is
-log(mean over runs of exp(-loss)).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from ops.head import token_losses
from tracking.directory import RunDirectory, open_finished, read_record
from tracking.load import LoadedRun, load_run
from tracking.record import add_to_record
from tracking.show import show_to_its_own
from training.average import weights_of
from training.evaluate import set_mode, window_starts
from training.state import averaged_weights

Losses = dict[str, Tensor]  # by weights: final, best and, where a run averages, ema


def evaluate_ensemble(
    directories: Sequence[Path], split: str, device: str = "auto"
) -> dict[str, Any]:
    """Mean loss of the ensemble and of its members, by weights.

    UserError where there are fewer than two runs, or they do not read the same tokens.
    """
    losses = _losses(directories, split, device)
    return {
        weights: {
            "loss_nats": ensemble_loss(list(of_runs.values())),
            "members_nats": [tokens.mean().item() for tokens in of_runs.values()],
        }
        for weights, of_runs in losses.items()
    }


def record_ensemble(directories: Sequence[Path], split: str) -> dict[str, Any]:
    """The ensemble of one row's finished runs, put into the record of each; what was put there.

    A record has the ensemble's loss, and its loss without that run: how far one seed moves it. Runs
    are evaluated on the kind of device and in the dtype that they were trained with, and only by
    the code that trained them.
    """
    _check_one_row([read_record(path) for path in directories])
    with ExitStack() as stack:
        runs = [stack.enter_context(open_finished(path)) for path in directories]
        records = [run.read_record() for run in runs]
        members = {str(record["seed"]): record["run_hash"] for record in records}
        losses = _losses(directories, split, records[0]["device"]["kind"])
        for run, record, path in zip(runs, records, directories, strict=True):
            known = record.get("ensemble") or {}
            kept = known if known.get("members") == members else {"members": members}
            _add(run, {**kept, split: _with_and_without(losses, path)})
        loss = {weights: ensemble_loss(list(of.values())) for weights, of in losses.items()}
        return {"members": members, split: loss}


def ensemble_loss(losses: Sequence[Tensor]) -> float:
    """-log of the mean over runs of exp(-loss), in the mean over tokens; in nats, shapes alike."""
    joint = torch.logsumexp(-torch.stack(list(losses)), 0) - math.log(len(losses))
    return -joint.mean().item()


def losses_of_tokens(run: LoadedRun, split: str) -> Tensor:
    """The loss of each token of the closing evaluation's windows (windows, block_size), float64."""
    found = []
    with set_mode(run.model, False, False), torch.no_grad(), run.machine.autocast():
        for starts in window_starts(run, split, "closing").split(run.cfg.evaluate.batch_size):
            tokens, targets = run.batches[split].gather(starts)
            hidden = run.forward(tokens).hidden.flatten(0, 1)
            losses = token_losses(hidden, run.model.head_weight, targets.flatten())
            found.append(losses.view_as(targets).double().cpu())
    return torch.cat(found)


def _losses(directories: Sequence[Path], split: str, device: str) -> dict[str, dict[Path, Tensor]]:
    """By weights and run, the loss of every token; weights that all runs have."""
    if len(directories) < 2:
        raise UserError(
            f"an ensemble of {len(directories)} run must have at least two: --run DIR DIR..."
        )
    read: dict[Path, Losses] = {}
    texts = set()
    for path in directories:
        last = load_run(path, "last", device)
        texts.add(last.data.fingerprint)
        read[path] = _of_weights(last, load_run(path, "best", device), split)
    shapes = {losses["final"].shape for losses in read.values()}
    if len(texts) > 1 or len(shapes) > 1:
        raise UserError(
            "the runs of an ensemble must read the same windows of the same tokens: these differ in "
            "data, model.block_size or evaluate.final_windows"
        )
    shared = [
        weights for weights in ("final", "best", "ema") if all(weights in r for r in read.values())
    ]
    return {weights: {path: losses[weights] for path, losses in read.items()} for weights in shared}


def _of_weights(last: LoadedRun, best: LoadedRun, split: str) -> Losses:
    losses = {"final": losses_of_tokens(last, split), "best": losses_of_tokens(best, split)}
    if averaged := averaged_weights(last.checkpoint.tensors):
        with weights_of(last.model, averaged):
            losses["ema"] = losses_of_tokens(last, split)
    return losses


def _with_and_without(losses: dict[str, dict[Path, Tensor]], path: Path) -> dict[str, Any]:
    found = {}
    for weights, of in losses.items():
        others = [tokens for other, tokens in of.items() if other != path]
        found[weights] = {
            "loss_nats": ensemble_loss(list(of.values())),
            "without_nats": ensemble_loss(others),
        }
    return found


def _check_one_row(records: Sequence[Mapping[str, Any]]) -> None:
    runs = [(record.get("table"), record.get("row"), record.get("seed")) for record in records]
    if len(set(runs)) < len(runs) or len({run[:2] for run in runs}) > 1:
        said = ", ".join(f"{row} seed {seed}" for _, row, seed in runs)
        raise UserError(
            f"the ensemble of a record must be of one row's runs, each of another seed: {said}"
        )


def _add(run: RunDirectory, ensemble: Mapping[str, Any]) -> None:
    add_to_record(run, ensemble=ensemble)
    show_to_its_own(run)
