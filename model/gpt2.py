"""GPT-2 as Hugging Face's `transformers` names it, and as it is here: shapes and weights, both ways.

Needs no `transformers`: a config is a mapping, weights are tensors by name.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from model.config import GPTConfig

# Ours and theirs; `.weight` or `.bias` follows. Their layers' weights are (in, out), as Conv1D's.
_LAYERS = {
    "attention.qkv": "attn.c_attn",
    "attention.project": "attn.c_proj",
    "mlp.expand": "mlp.c_fc",
    "mlp.project": "mlp.c_proj",
}
_NORMS = {"norm_attention": "ln_1", "norm_mlp": "ln_2"}
_OUTER = {"token_embedding": "wte", "position_embedding": "wpe", "norm": "ln_f"}
_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_new", "silu": "silu", "squared_relu": "relu2"}
_THEIR_ACTIVATIONS = {"gelu_pytorch_tanh": "gelu_tanh", "swish": "silu"}

# What a GPT2Config may hold beside its sizes.
_FIXED = {
    "model_type": "gpt2",
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}


def gpt2_config(shape: GPTConfig) -> dict[str, Any]:
    """The values of a `GPT2Config` for this shape. ValueError where GPT-2 has no such block."""
    for name, value in {"norm": "layer", "positions": "learned", "qk_norm": False}.items():
        if getattr(shape, name) != value:
            raise UserError(
                f"model.{name}={getattr(shape, name)} is no part of GPT-2, which has {name}={value}"
            )
    if shape.activation not in _ACTIVATIONS:
        raise UserError(
            f"model.activation={shape.activation} must be one of {', '.join(_ACTIVATIONS)}: "
            "transformers has no other of ours"
        )
    return {
        "vocab_size": shape.vocab_size,
        "n_positions": shape.block_size,
        "n_embd": shape.n_embd,
        "n_layer": shape.n_layer,
        "n_head": shape.n_head,
        "n_inner": shape.mlp_width,
        "activation_function": _ACTIVATIONS[shape.activation],
    }


def shape_of_gpt2(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a `GPTConfig` for the `config.json` of a GPT-2. ValueError for another model."""
    for name, value in _FIXED.items():
        if config.get(name, value) != value:
            raise UserError(f"{name}={config[name]} must be {value}: no other GPT-2 can be loaded")
    sizes = {"vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12}
    sizes |= {name: config[name] for name in sizes if name in config}
    theirs = config.get("activation_function", "gelu_new")
    activations = {name: ours for ours, name in _ACTIVATIONS.items()} | _THEIR_ACTIVATIONS
    if theirs not in activations:
        raise UserError(f"activation_function={theirs} must be one of {', '.join(activations)}")
    return {
        "vocab_size": sizes["vocab_size"],
        "block_size": sizes["n_positions"],
        "n_layer": sizes["n_layer"],
        "n_head": sizes["n_head"],
        "n_embd": sizes["n_embd"],
        "mlp_ratio": (config.get("n_inner") or 4 * sizes["n_embd"]) / sizes["n_embd"],
        "activation": activations[theirs],
        "bias": True,
        "norm": "layer",
        "positions": "learned",
        "qk_norm": False,
    }


def to_gpt2(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A `GPT2LMHeadModel`'s weights from a GPT's, without the head's, which is tied.

    Biases that ours lacks are zero there. Tensors of dropouts are left out.
    """
    found = {}
    for name, tensor in tensors.items():
        theirs, transposed = _renamed(name)
        if theirs is None:
            continue
        found[f"transformer.{theirs}"] = (tensor.T if transposed else tensor).contiguous()
        bias = re.sub(r"\.weight$", ".bias", name)
        if bias not in tensors and "embedding" not in name:
            found[f"transformer.{theirs}".replace(".weight", ".bias")] = tensor.new_zeros(
                len(tensor)
            )
    return found


def from_gpt2(tensors: Mapping[str, Tensor], names: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A GPT's weights from those of a `GPT2LMHeadModel` or `GPT2Model`: the tensors that `names` has.

    Those that GPT-2 has not, a dropout's, are left out. A block shorter than GPT-2's takes its first
    positions. ValueError where a tensor is missing.
    """
    theirs = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    found = {}
    for name, tensor in names.items():
        source, transposed = _renamed(name)
        if source is None:
            continue
        if source not in theirs:
            raise UserError(f"the weights have no {source}: they are not a GPT-2's")
        value = theirs[source].to(torch.float32)
        value = value.T if transposed else value
        found[name] = value[: len(tensor)] if name.startswith("position_embedding") else value
    return found


def _renamed(name: str) -> tuple[str | None, bool]:
    """Their name for a tensor of ours, None where they have none, and whether it is transposed."""
    outer, _, kind = name.rpartition(".")
    if outer in _OUTER:
        return f"{_OUTER[outer]}.{kind}", False
    if (block := re.fullmatch(r"blocks\.(\d+)\.(.+)", outer)) is None:
        return None, False
    layer, part = block.groups()
    theirs = (_LAYERS | _NORMS).get(part)
    transposed = part in _LAYERS and kind == "weight"
    return (None if theirs is None else f"h.{layer}.{theirs}.{kind}"), transposed
