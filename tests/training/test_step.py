"""The step: its gradient, its streams, and what it refuses to do."""

import re
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from common.errors import NonFiniteError
from common.streams import stream_seed
from ops.head import head_loss
from training.ranks import Ranks
from training.state import TrainState
from training.step import (
    REMEDY,
    accumulate_gradients,
    check_evaluation,
    check_finite,
    clip_gradients,
    describe_non_finite,
    skip_from_now_on,
    stop_if_skipped,
    train_step,
)

Build = Callable[..., TrainState]
EXACT = ("dtype=float32",)


def gradients(state: TrainState) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in state.model.named_parameters() if p.grad is not None}


def test_the_gradient_is_that_of_plain_cross_entropy_plus_the_weighted_penalty(
    tiny_state: Build,
) -> None:
    state = tiny_state(*EXACT, "dropout.shift_init=1", "dropout.mlp_output.rounding.slope=5",
                       "dropout/rounding@dropout.mlp_output.rounding=sigmoid")  # fmt: skip
    batches = state.batches["train"]
    tokens, targets = batches.gather(batches.window_starts(4, 1, "train", 1))
    out = state.model.train()(tokens)
    logits = state.model.logits(out.hidden)
    loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    (loss + 0.1 * out.penalty).backward()
    expected = gradients(state)
    state.optimizer.zero_grad()
    with torch.device("meta"):  # the default, and not the machine's
        found_loss, found_penalty = accumulate_gradients(state, 1, weight=0.1)
    torch.testing.assert_close(found_loss, loss.detach())
    torch.testing.assert_close(found_penalty, out.penalty.detach())
    torch.testing.assert_close(gradients(state), expected, rtol=1e-4, atol=1e-6)


RISING = ("dropout.penalty_weight.rate=0.1", "dropout.penalty_weight.max=10")


def test_a_step_says_its_losses_its_rate_and_the_penaltys_weight(tiny_state: Build) -> None:
    state, same = (tiny_state(*EXACT, *RISING, "dropout.shift_init=1.5") for _ in range(2))
    for step in (1, 2):
        weight = torch.expm1(torch.tensor(0.1 * (step - 1))).item()
        loss, penalty = accumulate_gradients(same, step, weight)
        norm = clip_gradients(same, None)
        same.optimizer.zero_grad()
        metrics = train_step(state)
        assert metrics.pop("train/penalty_weight") == pytest.approx(weight)
        assert metrics.pop("lr") == state.schedule(step - 1, state.cfg.optimizer.lr)
        expected = {"batch_loss_nats": loss, "penalty": penalty, "grad_norm": norm}
        torch.testing.assert_close(metrics, {f"train/{k}": v for k, v in expected.items()})
        same.model.load_state_dict(state.model.state_dict())
        assert state.progress.step == step
        assert all(p.grad is None for p in state.model.parameters())


def test_a_penalty_without_a_weight_has_none_and_no_penalty_says_nothing(tiny_state: Build) -> None:
    one = "dropout/slot@dropout.mlp_output=learned"
    assert train_step(tiny_state("dropout=standard", one))["train/penalty_weight"] == 0
    names = {"train/batch_loss_nats", "train/grad_norm", "lr"}
    assert train_step(tiny_state("dropout=none")).keys() == names


def test_the_rate_of_a_step_is_the_optimizers(tiny_state: Build) -> None:
    state = tiny_state("dropout=none", "optimizer.lr=0.01")
    lr = train_step(state)["lr"]
    assert {group["lr"] for group in state.optimizer.param_groups} == {lr} == {0.01 / 3}


def test_the_average_takes_in_every_step(tiny_state: Build) -> None:
    state = tiny_state("dropout=none", "ema_decay=0.9")
    before = {name: p.detach().clone() for name, p in state.model.named_parameters()}
    train_step(state)
    share = 1 - 2 / 11
    expected = {n: before[n].lerp(p.detach(), share) for n, p in state.model.named_parameters()}
    torch.testing.assert_close(dict(state.average.tensors), expected)


def test_what_the_mlps_add_counts_as_much_as_the_mean_of_the_micro_batches(
    tiny_state: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tiny_state(*EXACT, "dropout=none")
    weight, forward = state.model.norm.weight, state.forward
    accumulate_gradients(state, 1, 0.0)
    without = gradients(state)["norm.weight"]
    state.optimizer.zero_grad()

    def adding(tokens: torch.Tensor) -> object:
        return forward(tokens)._replace(added_loss=3 * weight.sum())

    monkeypatch.setattr(state, "forward", adding)
    accumulate_gradients(state, 1, 0.0)
    torch.testing.assert_close(gradients(state)["norm.weight"], without + 3)


@pytest.mark.parametrize("dropout", ["none", "learned"])
def test_ranks_add_up_the_loss_the_penalty_and_every_gradient(
    tiny_state: Build, monkeypatch: pytest.MonkeyPatch, dropout: str
) -> None:
    """Two ranks of equal sums: all that a step is of is doubled."""
    state = tiny_state(*EXACT, f"dropout={dropout}")

    def add_up(ranks: Ranks, tensors: list[torch.Tensor]) -> None:
        for tensor in tensors:
            tensor.mul_(2)

    loss, penalty = accumulate_gradients(state, 1, 0.5)
    expected = gradients(state)
    state.optimizer.zero_grad()
    monkeypatch.setattr(Ranks, "add_up", add_up)
    doubled, doubled_penalty = accumulate_gradients(state, 1, 0.5)
    assert doubled == 2 * loss
    assert doubled_penalty == (None if penalty is None else 2 * penalty)
    torch.testing.assert_close(gradients(state), {n: 2 * g for n, g in expected.items()})


def test_micro_batches_do_not_change_the_step(tiny_state: Build) -> None:
    weights = []
    for micro in (1, 2, 4):
        state = tiny_state(*EXACT, "dropout=none", f"micro_batch_size={micro}")
        train_step(state)
        weights.append(state.model.state_dict())
    for other in weights[1:]:
        torch.testing.assert_close(other, weights[0])


def test_one_seed_gives_every_row_the_same_batches_and_backbone(tiny_state: Build) -> None:
    rows = [
        tiny_state(f"dropout={d}") for d in ("none", "standard", "learned", "learned_precomputed")
    ]
    first = rows[0].model.state_dict()
    for state in rows[1:]:
        for step in (1, 5):
            a, b = (
                s.batches["train"].window_starts(4, s.cfg.seed, "train", step)
                for s in (rows[0], state)
            )
            assert torch.equal(a, b)
        theirs = state.model.state_dict()
        assert all(torch.equal(first[name], theirs[name]) for name in first)


def test_noise_depends_on_seed_and_step_alone(tiny_state: Build) -> None:
    losses = []
    for _ in range(2):
        state = tiny_state("dropout=standard")
        torch.rand(17)  # what was drawn before is of no account
        losses.append(accumulate_gradients(state, 1, 0.0)[0])
    assert losses[0] == losses[1]
    assert (
        accumulate_gradients(tiny_state("dropout=standard", "dropout.p=0.4"), 1, 0.0)[0]
        != losses[0]
    )


@pytest.mark.parametrize("where", ["weight", "gradient"])
def test_what_is_not_finite_stops_before_the_update_and_names_step_layer_and_windows(
    tiny_state: Build, where: str
) -> None:
    state = tiny_state("dropout=none")
    train_step(state)
    parameter = state.model.blocks[1].mlp.expand.weight
    if where == "weight":
        parameter.data[0, 0] = float("nan")
    else:
        parameter.register_hook(lambda g: g * float("inf"))
    before = {n: p.detach().clone() for n, p in state.model.named_parameters()}
    with pytest.raises(NonFiniteError, match="step 2") as raised:
        train_step(state)
    assert re.search(r"first (blocks\.1\.mlp\.expand|token_embedding)", str(raised.value))
    starts = state.batches["train"].window_starts(state.cfg.batch_size, 1, "train", step=2)
    assert f"{len(starts)} windows from training tokens {starts[0]}, " in str(raised.value)
    assert state.progress.step == 1
    for name, p in state.model.named_parameters():
        torch.testing.assert_close(p.detach(), before[name], equal_nan=True, rtol=0, atol=0)


def test_clipping_bounds_the_gradient_and_reports_it_unclipped(tiny_state: Build) -> None:
    free, clipped = (
        tiny_state("dropout=none"),
        tiny_state("dropout=none", "optimizer.grad_clip=1e-3"),
    )
    taken = []
    clipped.optimizer.register_step_pre_hook(lambda *_: taken.append(clip_gradients(clipped, None)))
    a, b = train_step(free)["train/grad_norm"], train_step(clipped)["train/grad_norm"]
    assert a == b > 1e-3 == pytest.approx(taken[0].item(), rel=1e-4)
    accumulate_gradients(free, 2, 0.0)
    expected = {name: g * 1e-3 for name, g in gradients(free).items()}
    norm = clip_gradients(free, 1e-3)
    torch.testing.assert_close(gradients(free), {n: g / norm for n, g in expected.items()})


class Operations(TorchDispatchMode):
    """Counts what is asked of torch: on a GPU, launches."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def test_clipping_takes_as_many_operations_however_deep_the_model(tiny_state: Build) -> None:
    counts = []
    for depth in (1, 3):
        state = tiny_state("dropout=none", f"model.n_layer={depth}")
        accumulate_gradients(state, 1, 0.0)
        with Operations() as operations:
            clip_gradients(state, 1e-3)
        counts.append(operations.count)
    assert counts[0] == counts[1] > 0


def test_the_penalty_reaches_the_mask_only_with_its_weight(tiny_state: Build) -> None:
    state = tiny_state(*EXACT, "dropout.shift_init=1")
    name = "blocks.0.mlp.mlp_output.dropout.shift"
    shift = []
    for weight in (0.0, 1.0):
        accumulate_gradients(state, 1, weight)
        shift.append(gradients(state)[name])
        state.optimizer.zero_grad()
    assert not torch.allclose(*shift)


def test_a_micro_batchs_noise_is_its_own(tiny_state: Build) -> None:
    """Whoever computes the second half of a step draws what one process draws for it."""
    whole, half = tiny_state(*EXACT, "dropout=standard"), tiny_state(*EXACT, "dropout=standard")
    batches = half.batches["train"]
    starts = batches.window_starts(4, half.cfg.seed, "train", 1)[2:]
    torch.manual_seed(stream_seed(half.cfg.seed, "dropout/1", 1))
    tokens, targets = batches.gather(starts)
    second = half.model.train()(tokens)
    part = head_loss(second.hidden.flatten(0, 1), half.model.head_weight, targets.flatten()) / 2
    (part).backward()
    first_alone = gradients(half)
    accumulate_gradients(whole, 1, 0.0)
    together = gradients(whole)
    whole.optimizer.zero_grad()
    torch.manual_seed(stream_seed(whole.cfg.seed, "dropout/0", 1))
    tokens, targets = batches.gather(batches.window_starts(4, 1, "train", 1)[:2])
    out = whole.model.train()(tokens)
    (head_loss(out.hidden.flatten(0, 1), whole.model.head_weight, targets.flatten()) / 2).backward()
    for name, gradient in gradients(whole).items():
        torch.testing.assert_close(gradient + first_alone[name], together[name])


def test_backward_is_outside_autocast(tiny_state: Build) -> None:
    state, seen = tiny_state("dtype=bfloat16", "dropout=none"), []
    state.model.norm.register_full_backward_hook(
        lambda *_: seen.append(torch.is_autocast_enabled("cpu"))
    )
    train_step(state)
    assert seen == [False, False]


def test_a_fused_optimizer_skips_a_broken_update_and_all_later_ones(tiny_state: Build) -> None:
    """What happens on a GPU, where nothing is read back; the CPU's fused AdamW obeys too."""
    state = tiny_state("dropout=none")
    train_step(state)
    parameter = next(state.model.parameters())
    for bad in (False, True, False):
        before = parameter.detach().clone()
        parameter.grad = torch.full_like(parameter, float("nan") if bad else 1.0)
        skip_from_now_on(state.optimizer, torch.tensor(bad))
        state.optimizer.step()
        assert torch.equal(parameter, before) == (state.optimizer.found_inf.item() == 1)
    assert torch.isfinite(parameter).all()
    with pytest.raises(NonFiniteError, match="at or before step 1; no weight was updated since"):
        stop_if_skipped(state)


def test_on_a_gpu_nothing_is_read_back(tiny_state: Build) -> None:
    state, fine, bad = tiny_state("dropout=none"), torch.tensor(1.0), torch.tensor(float("nan"))
    state.machine = SimpleNamespace(device=torch.device("cuda"))
    for loss, norm, found in ((fine, fine, 0), (bad, fine, 1), (fine, fine, 1)):
        check_finite(state, 1, loss, norm)
        assert state.optimizer.found_inf == found
    state.optimizer.defaults["fused"] = False  # such a one would not skip
    with pytest.raises(NonFiniteError):
        check_finite(state, 1, fine, bad)


def test_what_was_not_finite_is_said_in_full(tiny_state: Build) -> None:
    state = tiny_state("dropout=none", "batch_size=9", "micro_batch_size=3")
    starts = state.batches["train"].window_starts(9, 1, "train", step=2).tolist()
    shown = f"; the batch is the 9 windows from training tokens {', '.join(map(str, starts[:8]))}"
    shown += f", .... No weight was updated. {REMEDY}"
    said = describe_non_finite(state, 2, torch.tensor(float("nan")))
    assert said == f"step 2: the loss is nan nats, and every gradient is finite{shown}"
    accumulate_gradients(state, 2, 0.0)
    for layer in (state.model.blocks[0].mlp.expand, state.model.blocks[1].mlp.expand):
        layer.weight.grad[0, 0] = float("inf")
    said = describe_non_finite(state, 2, torch.tensor(2.5))
    where = "2 parameters' gradients are not finite, first blocks.0.mlp.expand.weight"
    assert said == f"step 2: the loss is 2.5 nats, and {where}{shown}"


@pytest.mark.parametrize("sampling", ["replacement", "epochs"])
def test_eight_windows_are_shown_without_an_end(tiny_state: Build, sampling: str) -> None:
    state = tiny_state("dropout=none", f"sampling={sampling}", "batch_size=8")
    last = state.sampler.windows(8, 1, step=2)[-1].flatten()[0]
    assert f", {last}. No weight" in describe_non_finite(state, 2, torch.tensor(float("nan")))


def test_a_run_without_a_skipped_update_goes_on(tiny_state: Build) -> None:
    state = tiny_state("dropout=none")
    stop_if_skipped(state)
    with torch.device("meta"):  # the default, and not the answer's
        skip_from_now_on(state.optimizer, torch.tensor(False, device="cpu"))
    stop_if_skipped(state)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_evaluation_that_is_not_finite_stops_the_run(value: float) -> None:
    with pytest.raises(NonFiniteError, match=r"step 7: the val loss is (nan|inf) in evaluation"):
        check_evaluation(7, {"train/loss_nats": 2.0, "val/loss_nats": value})
    with pytest.raises(NonFiniteError, match="the train loss"):
        check_evaluation(7, {"train/loss_nats": value, "val/loss_nats": 2.0})
    check_evaluation(7, {"train/loss_nats": 2.0, "val/loss_nats": 2.5})


def test_the_weight_decay_follows_its_schedule_where_there_is_decay(tiny_state: Build) -> None:
    state = tiny_state(
        "dropout=none", "decay_schedule=ramp", "decay_schedule.end=2", "decay_schedule.factor=3"
    )
    decays = []
    for _ in range(3):
        train_step(state)
        decays.append([group["weight_decay"] for group in state.optimizer.param_groups])
    assert decays == [pytest.approx([d, 0.0]) for d in (0.1, 0.2, 0.3)]


def test_steps_by_epochs_see_every_training_target_once_an_epoch(tiny_state, monkeypatch) -> None:
    state = tiny_state("sampling=epochs", "data.max_train_tokens=65", "dropout=none")
    seen = []
    gather = state.batches["train"].gather
    monkeypatch.setattr(state.batches["train"], "gather", lambda w: seen.append(w) or gather(w))
    train_step(state)  # four windows of 16 tokens: one epoch, in two micro-batches
    positions = torch.cat(seen)[:, 1:].flatten()
    assert len(seen) == 2 and positions.unique().numel() == 64
