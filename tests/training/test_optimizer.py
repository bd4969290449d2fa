"""What decays, and what is in the optimizer at all."""

import torch
from torch import nn

from training.optimizer import build_optimizer


def test_only_matrices_decay() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Embedding(5, 4))
    decayed, kept = build_optimizer(
        model, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1
    ).param_groups
    assert [p.dim() for p in decayed["params"]] == [2, 2] and decayed["weight_decay"] == 0.1
    assert [p.dim() for p in kept["params"]] == [1, 1, 1] and kept["weight_decay"] == 0
    assert decayed["betas"] == (0.9, 0.95)


def test_frozen_parameters_stay_out() -> None:
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False))
    model[0].requires_grad_(False)
    (group,) = build_optimizer(model, lr=1.0, betas=(0.9, 0.95), weight_decay=0.1).param_groups
    assert len(group["params"]) == 1 and group["params"][0] is model[1].weight


def test_a_step_is_adamw_as_published() -> None:
    layer = nn.Linear(2, 2, bias=False)
    before = layer.weight.detach().clone()
    optimizer = build_optimizer(layer, lr=0.01, betas=(0.9, 0.95), weight_decay=0.1)
    layer.weight.grad = torch.tensor([[1.0, -2.0], [3.0, -4.0]])
    optimizer.step()
    expected = before * (1 - 0.01 * 0.1) - 0.01 * layer.weight.grad.sign()
    torch.testing.assert_close(layer.weight.detach(), expected)
