"""A mixture of experts in the place of an MLP, which Learned Dropout's document names beside itself."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from common.errors import UserError
from model.config import GPTConfig
from model.mlp import ACTIVATIONS
from model.slots import Slot, Tape
from ops.linear import Linear


class Expert(nn.Module):
    """A dense MLP of a few tokens, (n, n_embd), 1 / top_k as wide as the model's."""

    def __init__(self, cfg: GPTConfig, width: int) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[cfg.activation]
        self.expand = Linear(cfg.n_embd, width, cfg.bias)
        self.project = Linear(width, cfg.n_embd, cfg.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.activation(self.expand(x)))


class MixtureOfExperts(nn.Module):
    """The top_k of n_expert MLPs that a router chooses for each token, weighed by their probabilities.

        P = softmax(W_router x);  y = sum over the top k of g_i E_i(x)

    The router is in float32. g is P itself with top_k = 1 (Fedus et al. 2021, Switch Transformer), and
    P over the sum of the chosen with more (Lepikhin et al. 2020, GShard). An expert is mlp_ratio n_embd
    / top_k wide, so that a token meets as many weights as in a dense MLP, and the router's. No token is
    left out: experts have no capacity. Training adds Switch's load balancing to the loss, a block each

        balance n_expert sum_i f_i mean(P_i)     f_i: the share of choices that fell on expert i

    which is `balance` where all are chosen alike. It has the slot `mlp_output`, and no `mlp_hidden`:
    experts see the tokens of a window apart.

    ValueError where top_k is not in 1 .. n_expert, does not divide the MLP's width, or where `balance`
    is negative.
    """

    def __init__(
        self,
        cfg: GPTConfig,
        slots: Callable[[str], Slot],
        *,
        n_expert: int,
        top_k: int,
        balance: float,
    ) -> None:
        super().__init__()
        if not 1 <= top_k <= n_expert:
            raise UserError(
                f"model.mlp.top_k={top_k} must be between 1 and model.mlp.n_expert={n_expert}: so many "
                "experts see a token"
            )
        if cfg.mlp_width % top_k:
            raise UserError(
                f"model.mlp.top_k={top_k} must divide the MLP's {cfg.mlp_width} hidden units: each of "
                "the chosen experts has an equal share of them"
            )
        if not balance >= 0:
            raise UserError(
                f"model.mlp.balance={balance} must be 0 or more: it weighs the load balancing"
            )
        self.top_k, self.balance = top_k, balance
        self.router = Linear(cfg.n_embd, n_expert)
        width = cfg.mlp_width // top_k
        self.experts = nn.ModuleList(Expert(cfg, width) for _ in range(n_expert))
        self.mlp_output = slots("mlp_output")

    def forward(self, x: Tensor, tape: Tape) -> Tensor:
        tokens = x.flatten(0, -2)
        with torch.autocast(tokens.device.type, enabled=False):  # a tie of bfloat16 decides nothing
            probabilities = self.router(tokens.float()).softmax(-1)
        gates, chosen = probabilities.topk(self.top_k)  # (n, top_k)
        if self.top_k > 1:
            gates = gates / gates.sum(-1, keepdim=True)
        out = torch.zeros_like(tokens)
        for index, expert in enumerate(self.experts):
            # Every expert is called, of no token too: its weights have gradients, of zero.
            token, place = (chosen == index).nonzero(as_tuple=True)
            weighed = expert(tokens[token]) * gates[token, place, None]
            out = out.index_add(0, token, weighed.to(out.dtype))
        if self.training:
            tape.add_loss(self.balance * self.imbalance(probabilities, chosen))
        return self.mlp_output(out.view_as(x), tape)

    def imbalance(self, probabilities: Tensor, chosen: Tensor) -> Tensor:
        """n_expert sum_i f_i mean(P_i), 0-d: 1 where all experts are chosen alike."""
        n_expert = len(self.experts)
        share = torch.bincount(chosen.flatten(), minlength=n_expert) / chosen.numel()
        return n_expert * (share * probabilities.mean(0)).sum()

    def extra_repr(self) -> str:
        return f"top_k={self.top_k}, balance={self.balance:g}"
