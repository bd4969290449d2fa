"""AdamW in two groups."""

from collections.abc import Sequence

import torch
from torch import nn


def build_optimizer(
    model: nn.Module, *, lr: float, betas: Sequence[float], weight_decay: float
) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019), fused; decay on tensors of two or more dimensions only.

    So embeddings and projections decay; norms, and the shift of a learned dropout, don't. Only
    parameters that want a gradient are in it.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=lr, betas=(betas[0], betas[1]), fused=True)
