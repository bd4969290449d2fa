"""The MLPs of a block: `configs/model/mlp/` has a choice for each.

An MLP is made as `mlp(cfg, slots)` and called as `mlp(x, tape)`, (B, T, n_embd) in and out. It asks
`slots` for those of its dropout slots that it has, `mlp_hidden` and `mlp_output`, and may add a term
to the loss with `tape.add_loss`. A layer that writes to the residual stream is called `project`, for
its initial weights.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from model.config import GPTConfig
from model.slots import Slot, Tape
from ops.gelu import gelu, gelu_linear
from ops.linear import Linear

MLPFactory = Callable[[GPTConfig, Callable[[str], Slot]], nn.Module]


def gelu_tanh(x: Tensor) -> Tensor:
    """GPT-2's approximation of GELU."""
    return F.gelu(x, approximate="tanh")


def squared_relu(x: Tensor) -> Tensor:
    """max(x, 0)^2 (So et al. 2021, Primer)."""
    return F.relu(x).square()


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "selu": F.selu,
    "silu": F.silu,
    "squared_relu": squared_relu,
}


class Projection(Linear):
    """y = x W^T + b, or, `after_gelu`, GELU(x) W^T + b, which keeps one wide tensor less."""

    def forward(self, x: Tensor, after_gelu: bool = False) -> Tensor:
        if after_gelu:
            return self.with_bias(gelu_linear(x, self.weight))
        return super().forward(x)


class DenseMLP(nn.Module):
    """Two linear layers around an activation, mlp_ratio n_embd wide.

    Where nothing stands between an exact GELU and the second layer, that layer does both: a hook on
    `project` then sees what goes into the GELU; `fused = False` keeps the two apart.
    """

    def __init__(self, cfg: GPTConfig, slots: Callable[[str], Slot]) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[cfg.activation]
        self.expand = Linear(cfg.n_embd, cfg.mlp_width, cfg.bias)
        self.project = Projection(cfg.mlp_width, cfg.n_embd, cfg.bias)
        self.mlp_hidden = slots("mlp_hidden")
        self.mlp_output = slots("mlp_output")
        self.fused = self.activation is gelu and self.mlp_hidden.is_empty

    def forward(self, x: Tensor, tape: Tape) -> Tensor:
        hidden = self.expand(x)
        if self.fused and isinstance(self.project, Projection):  # and not an adapter
            return self.mlp_output(self.project(hidden, after_gelu=True), tape)
        hidden = self.mlp_hidden(self.activation(hidden), tape)
        return self.mlp_output(self.project(hidden), tape)


class GatedMLP(nn.Module):
    """W_project (f(W_gate x) * W_value x): with f = SiLU it is SwiGLU (Shazeer 2020).

    Three matrices where a dense MLP has two: with mlp_ratio 8/3 it has as many parameters as with 4.
    """

    def __init__(self, cfg: GPTConfig, slots: Callable[[str], Slot]) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[cfg.activation]
        self.gate = Linear(cfg.n_embd, cfg.mlp_width, cfg.bias)
        self.value = Linear(cfg.n_embd, cfg.mlp_width, cfg.bias)
        self.project = Linear(cfg.mlp_width, cfg.n_embd, cfg.bias)
        self.mlp_hidden = slots("mlp_hidden")
        self.mlp_output = slots("mlp_output")

    def forward(self, x: Tensor, tape: Tape) -> Tensor:
        hidden = self.mlp_hidden(self.activation(self.gate(x)) * self.value(x), tape)
        return self.mlp_output(self.project(hidden), tape)
