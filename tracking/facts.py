"""What is known of a run before its first step, as its record has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from data.prepare import TokenData
from model.flops import training_flops_per_token
from tracking import provenance

# `train` needs these only later; here, so that the files that a run uses are known before it begins.
from training import evaluate, sample, step  # noqa: F401
from training.state import TrainState


def run_facts(
    state: TrainState, base: Mapping[str, Any] | None, overrides: Sequence[str]
) -> dict[str, Any]:
    """Code, machine, data and size; the base's identity; the overrides that asked for it."""
    return {
        "code": provenance.code_facts(),
        "versions": provenance.versions(),
        "device": provenance.device_facts(state.machine.device, state.machine.ranks.size),
        "dtype": state.machine.dtype_name,
        "compile": bool(state.cfg.compile),
        "data": data_facts(state.data),
        "base": base,
        "overrides": list(overrides),
        "parameters": state.model.n_parameters(),
        "parameters_trainable": sum(p.numel() for p in state.model.parameters() if p.requires_grad),
        "flops_per_token": training_flops_per_token(state.model),
    }


def data_facts(data: TokenData) -> dict[str, Any]:
    """Where a run's tokens come from, and how many there are."""
    manifest, source = data.manifest, data.manifest.recipe.source.model_dump()
    facts = {
        "fingerprint": data.fingerprint,
        "source": source.get("repo", source["kind"]),
        "revision": source.get("revision") or source.get("package"),
        "origin": source,
        "files": {split: facts.sha256 for split, facts in manifest.splits.items()},
        "tokenizer": manifest.recipe.tokenizer.model_dump(),
    }
    for split in ("train", "val"):
        facts |= {f"{split}_tokens": data.n_tokens(split), f"{split}_bytes": data.n_bytes(split)}
    return facts
