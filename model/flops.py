"""How much arithmetic a model does for a token."""

import copy

import torch
from torch.utils.flop_counter import FlopCounterMode

from model.attention import CausalSelfAttention
from model.gpt import GPT
from ops import native


def training_flops_per_token(model: GPT) -> float:
    """Floating-point operations of forward and backward for each token of a full block.

    Counted, not estimated: every matrix product of one forward pass, whichever module does it (a
    learned dropout's attention too), with two operations a multiply-add and the whole T x T of
    attention although half of it is masked; the head is added, and the backward pass taken as twice
    the forward.
    """
    shape, plain = model.cfg, copy.deepcopy(model).eval()
    for module in plain.modules():
        if isinstance(module, CausalSelfAttention):
            module.fused = False  # the counter does not know every fused kernel
    tokens = torch.zeros(1, shape.block_size, dtype=torch.long, device=model.head_weight.device)
    with native.without_kernels(), FlopCounterMode(display=False) as counter, torch.no_grad():
        plain(tokens)
    head = 2 * shape.vocab_size * shape.n_embd
    return 3 * (counter.get_total_flops() / shape.block_size + head)
