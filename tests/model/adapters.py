"""Adapters of every kind, on which the tests of one layer and of a model agree."""

from functools import partial

import pytest
from torch import nn

from dropout.multiplicative import MultiplicativeDropout
from model.adapters import LoRADropAdapter, OrthogonalAdapter

ADAPTERS = {
    "lora": partial(LoRADropAdapter, rank=4, dropout_rate=0.0),
    "lora_drop": partial(LoRADropAdapter, rank=4, dropout_rate=0.3, alpha=8),
    "lora_drop of ranks": partial(LoRADropAdapter, rank=4, dropout_rate=0.3, component="rank"),
    "lora_drop, evaluation unscaled": partial(
        LoRADropAdapter, rank=4, dropout_rate=0.3, scale_in_evaluation=False
    ),
    "oft": partial(OrthogonalAdapter, block_size=4),
    "oft, odd blocks": partial(OrthogonalAdapter, block_size=3),
    "boft": partial(OrthogonalAdapter, block_size=2, n_butterfly_factor=3),
    "oft with dropout": partial(
        OrthogonalAdapter, block_size=4, module_dropout=MultiplicativeDropout(0.5)
    ),
}
every_adapter = pytest.mark.parametrize("factory", ADAPTERS.values(), ids=ADAPTERS.keys())


def trained(adapter: nn.Module) -> nn.Module:
    """The adapter with random values in all that trains: as if it had learned something."""
    for parameter in adapter.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.5)
    return adapter
