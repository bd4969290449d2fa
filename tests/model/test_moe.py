"""A mixture of experts: what it computes, what it costs, what it asks of the loss."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from model.config import GPTConfig
from model.flops import training_flops_per_token
from model.gpt import GPT
from model.mlp import DenseMLP
from model.moe import MixtureOfExperts
from model.slots import Slot, Tape
from tests.golden import TINY, composed
from training.state import TrainState
from training.step import train_step

SHAPE = {"vocab_size": 30, "block_size": 6, "n_layer": 2, "n_head": 2, "n_embd": 12}
CFG = GPTConfig(**SHAPE)


def slots(name: str) -> Slot:
    return Slot(CFG.site(name))


def moe(**options: object) -> MixtureOfExperts:
    torch.manual_seed(0)
    made = MixtureOfExperts(CFG, slots, **({"n_expert": 4, "top_k": 1, "balance": 0.01} | options))
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter)
    return made


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_is_the_weighed_sum_of_the_chosen_experts(top_k: int) -> None:
    module, x = moe(top_k=top_k).eval(), torch.randn(3, 6, 12)
    ours = module(x, Tape())
    for window, position in ((0, 0), (1, 3), (2, 5)):
        token = x[window, position]
        p = (module.router.weight @ token).softmax(0)
        best = p.argsort(descending=True)[:top_k]
        gates = p[best] / (p[best].sum() if top_k > 1 else 1)
        parts = [
            g * (e.project.weight @ F.gelu(e.expand.weight @ token))
            for g, e in zip(gates, (module.experts[i] for i in best), strict=True)
        ]
        torch.testing.assert_close(ours[window, position], torch.stack(parts).sum(0))


def test_one_expert_alone_is_a_dense_mlp() -> None:
    module, dense = moe(n_expert=1).eval(), DenseMLP(CFG, slots)
    dense.load_state_dict(module.experts[0].state_dict())
    x = torch.randn(3, 6, 12)
    torch.testing.assert_close(module(x, Tape()), dense(x, Tape()))


def test_balance_is_one_where_all_are_chosen_alike_and_n_where_one_is() -> None:
    module = moe()
    even = torch.full((8, 4), 0.25)
    assert module.imbalance(even, torch.arange(8).remainder(4)[:, None]) == pytest.approx(1)
    sure = F.one_hot(torch.zeros(8, dtype=torch.long), 4).float()
    assert module.imbalance(sure, torch.zeros(8, 1, dtype=torch.long)) == pytest.approx(4)


def test_training_asks_for_balance_and_evaluation_does_not() -> None:
    module, tape = moe(balance=0.5), Tape()
    module(torch.randn(3, 6, 12), tape)
    loss = tape.added_loss()
    assert loss is not None and loss.item() >= 0.5 * 0.9
    loss.backward()
    assert module.router.weight.grad.abs().sum() > 0
    tape = Tape()
    module.eval()(torch.randn(3, 6, 12), tape)
    assert tape.added_loss() is None


def test_every_weight_has_a_gradient_also_of_experts_without_a_token() -> None:
    module = moe(n_expert=8)
    module(torch.randn(1, 2, 12), Tape()).sum().backward()
    gradients = [e.expand.weight.grad for e in module.experts]
    assert all(gradient is not None for gradient in gradients)
    assert sum(bool(gradient.any()) for gradient in gradients) <= 2


def test_the_router_chooses_in_float32() -> None:
    module, x = moe(top_k=2), torch.randn(3, 6, 12)
    seen = []
    module.imbalance = lambda probabilities, chosen: seen.append(probabilities) or chosen.sum()
    with torch.autocast("cpu", torch.bfloat16):
        module(x, Tape())
    exact = (x.flatten(0, 1) @ module.router.weight.T).softmax(-1)
    torch.testing.assert_close(seen[0], exact)


@pytest.mark.parametrize("top_k", [1, 2])
def test_a_token_costs_a_dense_mlps_arithmetic_and_the_routers(top_k: int) -> None:
    dense = training_flops_per_token(GPT(CFG, {}))
    make = partial(MixtureOfExperts, n_expert=8, top_k=top_k, balance=0.01)
    router = 2 * 3 * 2 * 12 * 8  # two layers; forward and twice backward; a multiply-add is two
    assert training_flops_per_token(GPT(CFG, {}, make)) == dense + router


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"top_k": 5}, "model.mlp.top_k=5 must be between 1 and model.mlp.n_expert=4"),
        ({"top_k": 0}, "model.mlp.top_k=0 must be between 1"),
        ({"n_expert": 8, "top_k": 5}, "model.mlp.top_k=5 must divide the MLP's 48 hidden units"),
        ({"balance": -1.0}, "model.mlp.balance=-1.0 must be 0 or more"),
    ],
)
def test_what_makes_no_mixture_is_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        moe(**options)


def test_a_config_trains_one() -> None:
    state = TrainState.build(composed("model/mlp=moe", "dropout=none", *TINY))
    assert isinstance(state.model.blocks[0].mlp, MixtureOfExperts)
    losses = [float(train_step(state)["train/batch_loss_nats"]) for _ in range(2)]
    assert all(6 < loss < 8 for loss in losses)
