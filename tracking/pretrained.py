"""GPT-2's weights from outside, as `transformers` saves them: `init_from=hf:PATH_OR_ID`."""

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from common.errors import UserError
from common.files import read_regular
from model.adapters import base_tensors
from model.gpt2 import from_gpt2, shape_of_gpt2
from training.finetune import Base
from training.state import build_model, design_model

HUB_TIMEOUT_S = 5.0
_FILES = ("config.json", "model*.safetensors")
_MAX_CONFIG_BYTES = 2**20


def read_pretrained(cfg: DictConfig) -> Base:
    """The GPT-2 of `cfg.init_from`, and the initial values of what the run has beside it.

    A dropout's own weights, those of learned masks, start as they would without it. ValueError where
    the hub does not answer, where the directory holds no GPT-2, and where the config's model is not it.
    """
    name = f"init_from={cfg.init_from}"
    directory = _find(name, cfg.init_from.removeprefix("hf:"))
    shape = _shape(name, directory)
    _check_shape(name, shape, cfg)
    with torch.device("meta"):
        names = base_tensors(design_model(cfg))
    tensors = from_gpt2(_tensors(name, directory), names)
    identity = {"run_hash": None, "checkpoint_sha256": _sha256(tensors)}
    if len(tensors) < len(names):
        tensors = base_tensors(build_model(cfg)) | tensors
    facts = {"adapter": {"layer": None}, "dropout": {"name": "none"}, "model": shape}
    return Base(name, OmegaConf.create(facts), tensors, identity)


def _find(name: str, place: str) -> Path:
    """The directory, or the hub's files in the cache of `huggingface_hub`, downloaded if need be."""
    if Path(place).is_dir():
        return Path(place)
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", place):
        raise UserError(f"{name} is no directory here, and no name on the hub: hf:OWNER/NAME")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    with contextlib.suppress(LocalEntryNotFoundError):
        cached = snapshot_download(place, allow_patterns=list(_FILES), local_files_only=True)
        if any(
            Path(cached).glob("model*.safetensors")
        ):  # else its config alone was asked for before
            return Path(cached)
    try:
        _check_hub(place)
        return Path(snapshot_download(place, allow_patterns=list(_FILES)))
    except Exception as error:
        if isinstance(error, OSError) and error.errno:  # the disk's, as where it is full
            raise
        raise UserError(f"{name}: no such directory, and {_problem(error, place)}") from error


def _check_hub(place: str) -> None:
    """Raise the hub's refusal, or TimeoutError within HUB_TIMEOUT_S where it doesn't answer.

    In a thread, since looking a host's name up can't be bounded otherwise. The download has
    `huggingface_hub`'s own time-outs and tries: some minute where the hub stalls in it.
    """
    from huggingface_hub import HfApi

    problems: list[Exception] = [TimeoutError(f"no answer within {HUB_TIMEOUT_S:g} s")]

    def ask() -> None:
        try:
            HfApi().model_info(place, timeout=HUB_TIMEOUT_S)
            problems.clear()
        except Exception as error:
            problems[0] = error

    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_TIMEOUT_S)
    if problems:
        raise problems[0]


def _problem(error: Exception, place: str) -> str:
    """Why the hub does not give the model, and the remedy."""
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{place}"
    log_in = "log in with `hf auth login`, or set HF_TOKEN"
    match error:
        case errors.GatedRepoError():
            return f"on the hub it is gated; ask for access at {page}, then {log_in}"
        case errors.RepositoryNotFoundError():
            return f"the hub has no such model, or a private one; check the name at {page}, or {log_in}"
    cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) else None
    line = f"{type(cause or error).__name__}: {cause or error}".splitlines()[0]
    return (
        f"the hub does not give it ({line}). Run the same command again later; or, where the hub can "
        f"be reached, `hf download {place} config.json model.safetensors --local-dir DIR`, then "
        "init_from=hf:DIR"
    )


def _shape(name: str, directory: Path) -> dict[str, Any]:
    path = directory / "config.json"
    if not path.is_file():
        raise UserError(f"{name} has no config.json: save the model there by save_pretrained")
    try:
        # In the hub's cache the files are links.
        return shape_of_gpt2(json.loads(read_regular(path.resolve(), _MAX_CONFIG_BYTES)))
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(f"{name}: {path} is no GPT-2's: {error}") from error


def _check_shape(name: str, shape: Mapping[str, Any], cfg: DictConfig) -> None:
    """ValueError, with the overrides that mend it, where the run's model is another."""
    ours = OmegaConf.to_container(cfg.model, resolve=True)
    assert isinstance(ours, dict)
    wanted = {f"model.{key}": value for key, value in shape.items() if ours[key] != value}
    if ours["block_size"] <= shape["block_size"]:  # the first positions are enough
        wanted.pop("model.block_size", None)
    if "model.vocab_size" in wanted:
        wanted["data.vocab_size"] = wanted.pop("model.vocab_size")
    if ours["mlp"].get("_target_") != "model.mlp.DenseMLP":
        wanted["model/mlp"] = "dense"
    if wanted:
        options = " ".join(f"{key}={_spelled(value)}" for key, value in wanted.items())
        raise UserError(f"{name} is another model than the run's: give it {options}")


def _spelled(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _tensors(name: str, directory: Path) -> dict[str, Tensor]:
    paths = sorted(directory.glob("model*.safetensors"))
    if not paths:
        raise UserError(f"{name} has no model.safetensors: save the model there by save_pretrained")
    try:
        return {key: tensor for path in paths for key, tensor in load_file(path).items()}
    except (SafetensorError, ValueError, OSError) as error:
        raise UserError(f"{name}: {paths[0].name} cannot be read: {error}") from error


def _sha256(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(tensors):
        tensor = tensors[key].contiguous()
        digest.update(f"{key} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()
