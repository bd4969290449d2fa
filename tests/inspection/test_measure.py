import pytest
import torch

from common.errors import UserError
from dropout.base import DropoutOutput
from inspection.measure import (
    Change,
    Mean,
    differing,
    expectation,
    input_dependence,
    ones_history,
    prefix_change,
    random_twin,
)
from inspection.observe import dropout_modules, observe


def test_differing_is_the_share_of_units():
    first = torch.tensor([[1.0, 0, 0, 1], [1, 1, 1, 1]])
    second = torch.tensor([[1.0, 1, 0, 0], [1, 1, 1, 1]])
    assert differing(first, second).tolist() == [0.5, 0.0]


def test_a_random_twin_keeps_each_unit_as_often_and_knows_nothing_else():
    mask = (torch.rand(200, 50, 4) < torch.tensor([0.0, 0.3, 0.8, 1.0])).float()
    twin = random_twin(mask, seed=0)
    rate = mask.mean((0, 1))
    sigma = (rate * (1 - rate) / 10_000).sqrt()
    assert torch.all((twin.mean((0, 1)) - rate).abs() <= 4 * sigma)
    agreement = (twin == mask).float().mean((0, 1))
    assert torch.allclose(agreement, rate**2 + (1 - rate) ** 2, atol=0.03)


def test_a_mean_over_windows_takes_windows_as_samples():
    values = torch.tensor([[1.0, 3.0], [2.0, 2.0], [0.0, 0.0], [4.0, 4.0]])
    mean = Mean.over_windows(values)
    assert mean.value == 2.0
    assert mean.stderr == pytest.approx((8 / 3) ** 0.5 / 2)


def test_learned_masks_depend_on_the_input_and_random_ones_do_not(learned, machine, windows):
    for modes in input_dependence(learned, windows, machine).values():
        evaluation, training, random = (modes[m] for m in ("evaluation", "training", "random"))
        assert evaluation.same_input.value == 0
        assert evaluation.due_to_input == evaluation.other_input.value > 0.05
        assert training.same_input.value > 0.05
        noise = 4 * (random.same_input.stderr + random.other_input.stderr)
        assert abs(random.due_to_input) < noise


def test_what_the_input_changes_is_the_difference_of_the_two():
    assert Change(Mean(0.2, 0.0), Mean(0.5, 0.0)).due_to_input == pytest.approx(0.3)


def test_masks_of_texts_with_one_beginning_agree_up_to_the_first_different_token(
    learned, machine, windows
):
    seen = prefix_change(learned, windows, machine)
    assert seen.n_changed_before == 0
    assert seen.n_compared_before == seen.n_pairs * 8 * 12 * 2
    for share in seen.learned.values():
        assert torch.all(share[seen.offset < 0] == 0)
        assert share[seen.offset >= 0].mean() > 0.05
    assert seen.random[seen.offset < 0].mean() > 0.05


def test_texts_with_one_middle_cannot_be_set_beside_each_other(learned, machine, windows):
    with pytest.raises(UserError, match=f"windows={len(windows)} .* more are needed"):
        prefix_change(learned, windows[:1].expand_as(windows), machine)


def test_masks_that_look_ahead_are_found_out(learned, machine, windows):
    module = dropout_modules(learned)["block1/mlp_output"]

    def look_ahead(hidden, mask_source=None, return_mask=False):
        mask = (hidden > hidden.mean(1, keepdim=True)).to(hidden.dtype)
        return DropoutOutput(hidden * mask, soft_mask=mask, mask=mask)

    module.forward = look_ahead
    assert prefix_change(learned, windows, machine).n_changed_before > 0


def test_the_mean_over_draws_is_the_input_for_inverted_dropout(standard, machine, windows):
    key = "block1/mlp_output"
    drawn = observe(standard, windows, machine, training=True)[key]
    seen = expectation(dropout_modules(standard)[key], drawn, n_draw=800)
    assert seen.soft_mask is None
    torch.testing.assert_close(seen.hidden, drawn.hidden[0, -1])
    assert torch.all((seen.output - seen.hidden).abs() < 4.5 * seen.stderr)
    torch.testing.assert_close(seen.masked, 0.6 * seen.output, rtol=1e-4, atol=1e-4)
    expected_error = seen.hidden.abs() * (0.4 / 0.6 / 800) ** 0.5
    torch.testing.assert_close(seen.stderr, expected_error, rtol=0.1, atol=0)
    assert not standard.training


def test_the_mean_over_draws_is_m_times_the_input_for_learned_dropout(learned, machine, windows):
    key = "block1/mlp_output"
    drawn = observe(learned, windows, machine, training=True)[key]
    seen = expectation(dropout_modules(learned)[key], drawn, n_draw=800)
    error, one_draw = (seen.output - seen.soft_mask * seen.hidden).abs(), seen.hidden.abs() / 800
    deviation = one_draw * (800 * seen.soft_mask * (1 - seen.soft_mask)) ** 0.5
    assert torch.all(error <= 4.5 * deviation + 2 * one_draw)
    often = 800 * seen.soft_mask * (1 - seen.soft_mask) > 20
    assert often.any()
    torch.testing.assert_close(seen.stderr[often], deviation[often], rtol=0.5, atol=0)


def test_a_history_has_one_entry_a_step_and_the_later_of_two():
    name = "modules/block0/mlp_output/eval/ones"
    lines = [{"step": 0, name: 1.0}, {"step": 1, "lr": 0.1}, {"step": 2, name: 0.5}]
    lines += [{"step": 2, name: 0.4}]
    assert ones_history(lines, "block0/mlp_output", "eval") == ([0, 2], [1.0, 0.4])
