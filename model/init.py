"""Initial weights from (seed, parameter name)."""

import math

import torch
from torch import nn

from common.streams import generator

STD = 0.02


def init_weights(model: nn.Module, seed: int, n_layer: int, activation: str = "gelu") -> None:
    """Draw every linear and embedding weight of `model` in place, as GPT-2 does.

    N(0, 0.02), and N(0, 0.02 / sqrt(2 n_layer)) for the two projections of a block that write to the
    residual stream (named `project`). With `activation="selu"` linear weights are LeCun-normal,
    N(0, 1 / sqrt(fan_in)), which self-normalising layers need (Klambauer et al. 2017).

    Biases are zero, norms the identity. Each weight has a random stream of its own, (seed, its name):
    the modules that one model has and another lacks do not shift the weights that they share.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            weight = module.weight
            std = STD
            if name.endswith(".project"):
                std = STD / math.sqrt(2 * n_layer)
            if activation == "selu" and isinstance(module, nn.Linear):
                std = weight.shape[1] ** -0.5
            with torch.no_grad():
                stream = generator(seed, f"initial weights {name}")
                weight.copy_(torch.empty(weight.shape).normal_(0, std, generator=stream))
                if isinstance(module, nn.Linear) and module.bias is not None:
                    module.bias.zero_()
