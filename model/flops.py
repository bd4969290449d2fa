"""How much arithmetic a model does for a token."""

import copy

import torch
from torch.utils.flop_counter import FlopCounterMode

from model.attention import CausalSelfAttention
from model.gpt import GPT
from ops import native


def training_flops_per_token(model: GPT) -> float:
    """Floating-point operations of forward and backward for each token of a full block.

    Counted, not estimated: every matrix product of one training pass, whichever module does it (a
    learned dropout's attention too), with two operations a multiply-add and the whole T x T of
    attention although half of it is masked. So a frozen weight's gradient does not count, nor that of
    an input on which no trainable weight stands. Loss and penalty are taken as sums here, which
    changes no product.
    """
    twin, shape = copy.deepcopy(model).train(), model.cfg
    for module in twin.modules():
        if isinstance(module, CausalSelfAttention):
            module.fused = False  # the counter does not know every fused kernel
    device = model.head_weight.device
    tokens = torch.zeros(1, shape.block_size, dtype=torch.long, device=device)
    undisturbed = torch.random.fork_rng([device] if device.type == "cuda" else [])
    with undisturbed, native.without_kernels(), FlopCounterMode(display=False) as counter:
        out = twin(tokens)
        total = (out.hidden @ twin.head_weight.T).sum()
        if out.penalty is not None:
            total = total + out.penalty
        if total.requires_grad:
            total.backward()
    return counter.get_total_flops() / shape.block_size
