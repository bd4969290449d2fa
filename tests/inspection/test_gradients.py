import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dropout.base import Site
from dropout.standard import StandardDropout
from inspection.figures import draw_gradients
from inspection.gradients import UnitGradients, unit_gradients, updates

KEY = "block1/mlp_output"


@pytest.mark.parametrize("p", [0.0, 0.5])
def test_the_lectures_closed_form_is_autograds_gradient(p):
    """dL/dW1 = ((y_hat - y)^T W2 F') outer x^T for L = |y_hat - y|^2 / 2; F' takes the mask in."""
    torch.manual_seed(0)
    site = Site("mlp_hidden", 0, 1, 10, 10, 1, 1, "gelu")
    dropout = StandardDropout(site, p=p)
    first, second = nn.Linear(5, 10).double(), nn.Linear(10, 3).double()
    x, y = torch.randn(5).double(), torch.randn(3).double()
    before = first(x)
    out = dropout(torch.relu(before), None, True)
    y_hat = second(out.hidden)
    ((y_hat - y).square().sum() / 2).backward()
    slope = (before > 0) * out.mask / (1 - p)
    closed_form = torch.outer((y_hat - y) @ second.weight @ torch.diag(slope), x)
    torch.testing.assert_close(first.weight.grad, closed_form)
    assert torch.all(first.weight.grad[out.mask == 0] == 0)


def test_a_unit_dropped_in_all_samples_gets_no_gradient(standard, windows):
    seen = unit_gradients(standard, KEY, windows, windows.roll(-1, 1))
    assert seen.producer == "blocks.1.mlp.project"
    assert seen.mask.shape[1] == 12 and 0 < seen.dropped.sum() < 12
    assert torch.all(seen.gradient[seen.dropped] == 0)
    assert torch.all(seen.gradient[~seen.dropped].norm(dim=1) > 0)
    assert torch.equal(seen.gradient, seen.through_value)
    assert all(p.grad is None for p in standard.parameters())


def test_a_learned_mask_has_a_gradient_of_its_own(learned, windows):
    seen = unit_gradients(learned, KEY, windows, windows.roll(-1, 1))
    assert torch.all(seen.through_value[seen.dropped] == 0)
    assert torch.all(seen.gradient[seen.dropped].norm(dim=1) > 0)


def test_the_gradient_is_that_of_the_models_loss(standard, windows):
    seen = unit_gradients(standard, KEY, windows, windows.roll(-1, 1))
    n_sample = len(seen.mask)
    tokens, targets = windows[:n_sample, :1], windows.roll(-1, 1)[:n_sample, :1]
    loss = F.cross_entropy(
        standard.logits(standard(tokens).hidden).flatten(0, 1), targets.flatten()
    )
    loss.backward()
    torch.testing.assert_close(standard.blocks[1].mlp.project.weight.grad, seen.earlier)


def test_modules_without_a_trained_linear_layer_are_left_out(standard, windows):
    assert unit_gradients(standard, "embedding/embedding", windows, windows) is None
    standard.requires_grad_(False)
    assert unit_gradients(standard, KEY, windows, windows) is None


def test_a_layer_whose_units_are_all_dropped_can_be_drawn(recwarn):
    nothing = torch.zeros(4, 3)
    seen = UnitGradients("layer", torch.zeros(5, 4), torch.randn(4, 3), nothing, nothing, nothing)
    (ax,) = draw_gradients(seen).axes
    assert ax.get_ylim()[0] < 0 < ax.get_ylim()[1]
    assert not recwarn.list


def test_weight_decay_and_momentum_move_what_has_no_gradient():
    torch.manual_seed(0)
    gradient, weight = torch.randn(4, 3), torch.randn(4, 3)
    gradient[2] = 0
    mask = torch.ones(5, 4)
    mask[:, 2] = 0
    seen = UnitGradients("layer", mask, weight, gradient, gradient, torch.randn(4, 3))
    sgd, adam, adamw, warm = updates(seen, lr=0.01, weight_decay=0.1)
    assert sgd.dropped == adam.dropped == 0
    assert adamw.dropped == pytest.approx(0.01 * 0.1 * weight[2].abs().max().item(), rel=1e-3)
    assert warm.dropped > 1e-3
    assert sgd.kept == pytest.approx(0.01 * gradient.abs().max().item(), rel=1e-4)
    assert adam.kept == pytest.approx(0.01, rel=1e-3)
