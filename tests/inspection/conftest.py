"""Small models whose dropouts have masks, and a run directory of one."""

from functools import partial

import pytest
import torch

from dropout.learned import LearnedDropout
from dropout.penalties import MaskPenalty
from dropout.rounding import StochasticRounding
from dropout.standard import StandardDropout
from model.gpt import GPT, GPTConfig
from training.device import Machine

LEARNED = partial(
    LearnedDropout, rounding=StochasticRounding(), penalty=MaskPenalty(squared=1.0), shift_init=1.5
)


def small_gpt(**dropouts) -> GPT:
    """Random weights large enough for masks to depend on the input."""
    torch.manual_seed(0)
    config = GPTConfig(vocab_size=40, block_size=16, n_layer=2, n_head=2, n_embd=12)
    model = GPT(config, dropouts)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()


@pytest.fixture
def learned():
    return small_gpt(mlp_output=LEARNED)


@pytest.fixture
def standard():
    return small_gpt(mlp_output=partial(StandardDropout, p=0.4))


@pytest.fixture
def machine():
    return Machine(torch.device("cpu"), torch.float32)


@pytest.fixture
def windows():
    return torch.randint(40, (12, 16), generator=torch.Generator().manual_seed(1))
