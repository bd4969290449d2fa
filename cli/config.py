"""The shape of a run's config: its keys, their types, and what their values may be.

The values themselves stand in `configs/`; here every one is MISSING, so there is one place to look
for a default. Composing refuses a key or a type that is not here, `check_config` a value that
cannot work; both before torch is imported. What is `Any` is a chosen object of any shape: its
constructor checks it, and `Shaped` the keys that every choice has.
"""

import os
from collections.abc import Container, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from math import isqrt
from typing import Annotated, Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf
from pydantic import ConfigDict, Strict

from cli.naming import Name
from cli.overrides import check_overrides
from cli.rules import (
    Count,
    CountFrom0,
    Flag,
    From0,
    Place,
    Positive,
    Shaped,
    Text,
    at_least,
    check_values,
    one_of,
    rule,
)
from common.errors import UserError
from common.settings import KEEPING

CLOSED, OPEN = ConfigDict(extra="forbid"), ConfigDict(extra="ignore")  # to keys beside these
BYTES_A_WEIGHT = 4  # float32
BYTES_A_PARAMETER = 16  # the weight, its gradient and AdamW's two moments
WHAT = {BYTES_A_WEIGHT: "weights", BYTES_A_PARAMETER: "weights, gradients and moments"}
TRIALS = 10**6
# A run of older code may lack these, and its weights do without.
OF_TRAINING = KEEPING | {"ema_decay", "decay_schedule", "sampling", "init_from"}


@dataclass
class ModelConfig:
    """The GPT (`configs/model/`)."""

    __pydantic_config__ = CLOSED

    vocab_size: Annotated[Count, at_least(2)] = MISSING
    block_size: Count = MISSING
    n_layer: Count = MISSING
    n_head: Count = MISSING
    n_embd: Count = MISSING
    mlp_ratio: Positive = MISSING
    activation: Annotated[Text, one_of("gelu", "gelu_tanh", "selu", "silu", "squared_relu")] = (
        MISSING
    )
    bias: Flag = MISSING
    norm: Annotated[Text, one_of("layer", "rms")] = MISSING
    positions: Annotated[Text, one_of("learned", "rotary")] = MISSING
    qk_norm: Flag = MISSING
    mlp: Any = MISSING
    attention: Annotated[Text, one_of("auto", "plain", "fused")] = MISSING


@dataclass
class OptimizerConfig:
    """AdamW (`configs/optimizer/`); no clipping where `grad_clip` is null."""

    __pydantic_config__ = OPEN

    lr: Positive
    betas: Annotated[
        list[float],
        rule(
            lambda betas: len(betas) == 2 and all(0 <= beta < 1 for beta in betas),
            "two numbers in [0, 1): AdamW's decay rates",
        ),
    ] = MISSING
    weight_decay: From0 = MISSING
    grad_clip: Positive | None = None


@dataclass
class ScheduleConfig:
    """The learning rate over the steps (`configs/schedule/`)."""

    __pydantic_config__ = OPEN

    warmup_steps: CountFrom0 = MISSING
    decay_steps: Count | None = None
    min_lr: From0 = MISSING


@dataclass
class EvaluateConfig:
    """The fixed windows of each split that every evaluation sees (`configs/evaluate/`)."""

    __pydantic_config__ = CLOSED

    windows: Count = MISSING
    final_windows: Count = MISSING
    batch_size: Count = MISSING
    attention_dropout: Flag = MISSING


@dataclass
class AdapterConfig:
    """What is put around which layers of a trained model (`configs/adapter/`)."""

    __pydantic_config__ = CLOSED

    name: Text = MISSING
    layer: Any = MISSING
    targets: list[str] = MISSING


@dataclass
class PenaltyWeightConfig:
    """The weight of the dropouts' penalty over the steps."""

    __pydantic_config__ = CLOSED

    max: From0
    min: From0 = 0.0
    rate: Positive | None = None


@dataclass
class DropoutConfig:
    """What every preset has beside its slots (`configs/dropout/`)."""

    __pydantic_config__ = OPEN

    name: Name
    penalty_weight: PenaltyWeightConfig = MISSING


@dataclass
class Config:
    """A run."""

    __pydantic_config__ = CLOSED

    seed: CountFrom0 = MISSING
    steps: Count = MISSING
    batch_size: Count = MISSING
    micro_batch_size: Count = MISSING
    device: Annotated[Text, one_of("auto", "cpu", "cuda")] = MISSING
    dtype: Annotated[Text, one_of("auto", "float32", "bfloat16")] = MISSING
    compile: Flag = MISSING
    eval_every: Count = MISSING
    log_every: Count = MISSING
    save_every: Count = MISSING
    fresh: Flag = MISSING
    table_name: Name | None = MISSING
    row_name: Name = MISSING
    scale: Name = MISSING
    scale_text: Text = MISSING
    init_from: Text | None = MISSING
    runs_dir: Place = MISSING
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: Annotated[Any, Shaped(OptimizerConfig)] = MISSING
    schedule: Annotated[Any, Shaped(ScheduleConfig)] = MISSING
    decay_schedule: Any = MISSING
    ema_decay: Annotated[float, Strict(), rule(lambda d: 0 <= d < 1, "in [0, 1)")] | None = MISSING
    sampling: Any = MISSING
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    data: Any = MISSING
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    dropout: Annotated[Any, Shaped(DropoutConfig)] = MISSING
    tracker: Any = MISSING


def register_schema() -> None:
    """Make `schema` known to a defaults list. It goes first there, so that all else is held to it."""
    ConfigStore.instance().store(name="schema", node=Config)


def check_config(cfg: DictConfig) -> None:
    """Raise UserError, with the key's name, at the first value that cannot work."""
    check_overrides(cfg)
    _check_complete(cfg)
    values = _check_alone(cfg)
    _check_memory(values["model"], BYTES_A_PARAMETER)


def check_stored(cfg: DictConfig) -> None:
    """The same for the config of a run that is here, wherever it was, to use its weights alone."""
    here = cfg.copy()
    if "runs_dir" in here:
        here.runs_dir = "."
    _check_complete(here, but=OF_TRAINING)
    values = _check_alone(here)
    _check_memory(values["model"], BYTES_A_WEIGHT)


def _check_alone(cfg: DictConfig) -> dict[str, Any]:
    """The plain values of a config, each of which can be, and which go together."""
    values: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    check_values(Config, values)
    _check_divides(cfg, "micro_batch_size", "batch_size", "a step is whole micro-batches")
    _check_divides(cfg, "model.n_head", "model.n_embd", "heads share the width evenly")
    _check_rates(values["optimizer"], values["schedule"])
    _check_sizes(values["model"], values["data"])
    return values


def _check_complete(cfg: DictConfig, but: Container[str] = ()) -> None:
    lacking = [key for key in _keys(Config) if key not in but and not _has(cfg, key)]
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
    return name in node if isinstance(node, DictConfig) else node is not None


def _check_divides(cfg: DictConfig, divisor: str, key: str, why: str) -> None:
    whole, given = OmegaConf.select(cfg, key), OmegaConf.select(cfg, divisor)
    if whole % given:
        near = max(n for n in _divisors(whole) if n <= given)
        raise UserError(
            f"{divisor}={given} must be a divisor of {key}={whole}: {why}; {divisor}={near} is one"
        )


def _divisors(n: int) -> Iterator[int]:
    """Divisors of n; not all, where n is so large that finding them would take long."""
    for d in range(1, min(isqrt(n), TRIALS) + 1):
        if n % d == 0:
            yield from (d, n // d)


def _check_rates(optimizer: dict[str, Any], schedule: dict[str, Any]) -> None:
    lr, least = optimizer["lr"], schedule.get("min_lr", 0)
    if least > lr and schedule.get("decay_steps", 0) is not None:  # else the rate stays at lr
        raise UserError(
            f"schedule.min_lr={least} must be at most optimizer.lr={lr}: the rate falls to it"
        )


def _check_sizes(model: dict[str, Any], data: Any) -> None:
    if not isinstance(data, dict):
        raise UserError(f"data={data} must be a group of keys")
    tokens = data.get("vocab_size", model["vocab_size"])
    if model["vocab_size"] != tokens:
        raise UserError(
            f"model.vocab_size={model['vocab_size']} must be data.vocab_size={tokens}: the model "
            f"reads what the tokenizer writes; set data.vocab_size alone, and both change"
        )
    if model["mlp_ratio"] * model["n_embd"] <= 0.5:  # which rounds to 0
        raise UserError(
            f"model.mlp_ratio={model['mlp_ratio']} must be larger: the MLP is that many times "
            f"model.n_embd={model['n_embd']} wide, which is no column"
        )


def _check_memory(model: dict[str, Any], bytes_each: int) -> None:
    """What is kept for each parameter must fit the machine, whatever activations need."""
    width, rows = model["n_embd"], model["vocab_size"] + model["block_size"]
    layer = (4 + 2 * float(model["mlp_ratio"])) * width**2
    needed = bytes_each * (model["n_layer"] * layer + rows * width)
    if needed > (there := _memory_bytes()):
        raise UserError(
            f"model.n_layer={model['n_layer']} or model.n_embd={width} must be smaller: "
            f"{WHAT[bytes_each]} need {needed / 2**30:,.0f} GiB, and this machine has "
            f"{there / 2**30:,.0f}"
        )


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
