"""The shape of a run's config: its keys, their types, and what their values may be.

The values themselves stand in `configs/`; here every one is MISSING, so there is one place to look
for a default. Composing refuses a key or a type that is not here, `check_config` a value that
cannot work; both before torch is imported. Data, dropout, adapter and tracker are chosen objects of
any shape: their constructors check them.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from cli.overrides import check_overrides
from common.errors import UserError


@dataclass
class ModelConfig:
    """The GPT (`configs/model/`)."""

    vocab_size: int = MISSING
    block_size: int = MISSING
    n_layer: int = MISSING
    n_head: int = MISSING
    n_embd: int = MISSING
    mlp_ratio: float = MISSING
    activation: str = MISSING
    attention: str = MISSING


@dataclass
class OptimizerConfig:
    """AdamW (`configs/optimizer/`); no clipping where `grad_clip` is null."""

    lr: float = MISSING
    betas: list[float] = MISSING
    weight_decay: float = MISSING
    grad_clip: float | None = MISSING


@dataclass
class ScheduleConfig:
    """The learning rate over the steps (`configs/schedule/`)."""

    warmup_steps: int = MISSING
    decay_steps: int | None = MISSING
    min_lr: float = MISSING


@dataclass
class EvaluateConfig:
    """The fixed windows of each split that every evaluation sees (`configs/evaluate/`)."""

    windows: int = MISSING
    final_windows: int = MISSING
    batch_size: int = MISSING
    attention_dropout: bool = MISSING


@dataclass
class Config:
    """A run."""

    seed: int = MISSING
    steps: int = MISSING
    batch_size: int = MISSING
    micro_batch_size: int = MISSING
    device: str = MISSING
    dtype: str = MISSING
    compile: bool = MISSING
    eval_every: int = MISSING
    log_every: int = MISSING
    save_every: int = MISSING
    fresh: bool = MISSING
    table_name: str | None = MISSING
    row_name: str = MISSING
    scale: str = MISSING
    init_from: str | None = MISSING
    runs_dir: str = MISSING
    results_dir: str = MISSING
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    data: Any = MISSING
    adapter: Any = MISSING
    dropout: Any = MISSING
    tracker: Any = MISSING


CHOICES = {
    "device": ("auto", "cpu", "cuda"),
    "dtype": ("auto", "float32", "bfloat16"),
    "model.activation": ("gelu", "selu"),
    "model.attention": ("auto", "plain", "fused"),
}

AT_LEAST = {
    "seed": 0,
    "steps": 1,
    "batch_size": 1,
    "micro_batch_size": 1,
    "eval_every": 1,
    "log_every": 1,
    "save_every": 1,
    "model.vocab_size": 2,
    "model.block_size": 1,
    "model.n_layer": 1,
    "model.n_head": 1,
    "model.n_embd": 1,
    "optimizer.weight_decay": 0,
    "schedule.warmup_steps": 0,
    "schedule.decay_steps": 1,
    "schedule.min_lr": 0,
    "evaluate.windows": 1,
    "evaluate.final_windows": 1,
    "evaluate.batch_size": 1,
}

ABOVE_ZERO = ("model.mlp_ratio", "optimizer.lr", "optimizer.grad_clip")


def register_schema() -> None:
    """Make `schema` known to a defaults list. It goes first there, so that all else is held to it."""
    ConfigStore.instance().store(name="schema", node=Config)


def check_config(cfg: DictConfig) -> None:
    """Raise ValueError, with the key's name, at the first value that cannot work."""
    check_overrides(cfg)
    _check_complete(cfg)
    for key, choices in CHOICES.items():
        _check(cfg, key, _value(cfg, key) in choices, "one of " + ", ".join(choices))
    for key, least in AT_LEAST.items():
        value = _value(cfg, key)
        _check(cfg, key, value is None or least <= value < math.inf, f"at least {least}")
    for key in ABOVE_ZERO:
        value = _value(cfg, key)
        _check(cfg, key, value is None or 0 < value < math.inf, "above 0, and finite")
    betas = _value(cfg, "optimizer.betas")
    fits = len(betas) == 2 and all(0 <= beta < 1 for beta in betas)
    _check(cfg, "optimizer.betas", fits, "two numbers in [0, 1): AdamW's decay rates")
    _check_divides(cfg, "micro_batch_size", "batch_size", "a step is whole micro-batches")
    _check_divides(cfg, "model.n_head", "model.n_embd", "heads share the width evenly")


def _check_complete(cfg: DictConfig) -> None:
    lacking = [key for key in _keys(Config) if not _has(cfg, key)]
    for key in [*lacking, *sorted(OmegaConf.missing_keys(cfg))]:
        raise UserError(f"{key} has no value: give it one, {key}=...")


def _keys(schema: Any, prefix: str = "") -> Iterator[str]:
    for entry in fields(schema):
        if is_dataclass(entry.type):
            yield from _keys(entry.type, f"{prefix}{entry.name}.")
        else:
            yield prefix + entry.name


def _has(cfg: DictConfig, key: str) -> bool:
    group, _, name = key.rpartition(".")
    node = OmegaConf.select(cfg, group) if group else cfg
    return node is not None and name in node


def _check_divides(cfg: DictConfig, divisor: str, key: str, why: str) -> None:
    whole = _value(cfg, key)
    near = max(n for n in _divisors(whole) if n <= _value(cfg, divisor))
    fits = whole % _value(cfg, divisor) == 0
    _check(cfg, divisor, fits, f"a divisor of {key}={whole}: {why}; {divisor}={near} is one")


def _check(cfg: DictConfig, key: str, fits: bool, rule: str) -> None:
    if not fits:
        raise UserError(f"{key}={_value(cfg, key)} must be {rule}")


def _value(cfg: DictConfig, key: str) -> Any:
    return OmegaConf.select(cfg, key)


def _divisors(n: int) -> Iterable[int]:
    return (d for d in range(1, n + 1) if n % d == 0)
