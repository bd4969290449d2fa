"""What decays, and what is in the optimizer at all."""

import pytest
import torch
from torch import nn

from common.errors import UserError
from training.optimizer import AdamW, Muon
from training.torch_optimizer import TorchOptimizer


def test_only_matrices_decay() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Embedding(5, 4))
    decayed, kept = AdamW(model, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1).param_groups
    assert [p.dim() for p in decayed["params"]] == [2, 2] and decayed["weight_decay"] == 0.1
    assert [p.dim() for p in kept["params"]] == [1, 1, 1] and kept["weight_decay"] == 0
    assert decayed["betas"] == (0.9, 0.95)


def test_frozen_parameters_stay_out() -> None:
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 2, bias=False))
    model[0].requires_grad_(False)
    (group,) = AdamW(model, lr=1.0, betas=(0.9, 0.95), weight_decay=0.1).param_groups
    assert len(group["params"]) == 1 and group["params"][0] is model[1].weight


def test_a_step_is_adamw_as_published() -> None:
    layer = nn.Linear(2, 2, bias=False)
    before = layer.weight.detach().clone()
    optimizer = AdamW(layer, lr=0.01, betas=(0.9, 0.95), weight_decay=0.1)
    layer.weight.grad = torch.tensor([[1.0, -2.0], [3.0, -4.0]])
    optimizer.step()
    expected = before * (1 - 0.01 * 0.1) - 0.01 * layer.weight.grad.sign()
    torch.testing.assert_close(layer.weight.detach(), expected)


def test_muon_moves_a_matrix_orthogonally_and_leaves_the_rest_to_adamw() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"embedding": nn.Embedding(6, 4), "linear": nn.Linear(8, 4)})
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = Muon(model, lr=0.01, betas=(0.9, 0.95), weight_decay=0.0)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    moved = {name: p.detach() - before[name] for name, p in model.named_parameters()}
    singular = torch.linalg.svdvals(moved["linear.weight"]) / (0.01 * 0.2 * 8**0.5)
    assert (
        (singular > 0.6) & (singular < 1.3)
    ).all()  # five Newton-Schulz steps come this near to 1
    for name in ("embedding.weight", "linear.bias"):
        expected = pytest.approx([0.01] * moved[name].numel(), rel=1e-3)
        assert moved[name].abs().flatten().tolist() == expected
    assert set(optimizer.state) == set(model.parameters())


def test_any_optimizer_of_torch_comes_by_its_name() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    own = TorchOptimizer(ours, name="SGD", lr=0.1, weight_decay=0.5, momentum=0.9)
    groups = [
        {"params": [theirs.weight], "weight_decay": 0.5},
        {"params": [theirs.bias], "weight_decay": 0.0},
    ]
    plain = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    for _ in range(3):
        inputs = torch.randn(4, 3)
        for layer, optimizer in ((ours, own), (theirs, plain)):
            layer(inputs).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert torch.equal(ours.weight, theirs.weight) and torch.equal(ours.bias, theirs.bias)
    assert set(own.state) == set(ours.parameters())


@pytest.mark.parametrize(
    ("name", "options"), [("SDG", {}), ("Optimizer", {}), ("SGD", {"betas": 1})]
)
def test_what_torch_has_not_is_refused(name: str, options: dict[str, int]) -> None:
    with pytest.raises(UserError, match=f"optimizer.name={name} (must be|does not take)"):
        TorchOptimizer(nn.Linear(2, 2), name=name, lr=0.1, weight_decay=0.0, **options)
