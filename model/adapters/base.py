"""What an adapter is: a small trainable module around a linear layer that can be merged into it."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from common.errors import UserError


class Adapter(nn.Module, ABC):
    """Stands where `base_layer` stood: same input, same output shape, few parameters of its own.

    A new adapter computes exactly what its base layer computes. The base layer is frozen: its
    parameters get no gradient.
    """

    base_layer: nn.Module

    @abstractmethod
    def forward(self, hidden: Tensor) -> Tensor: ...

    @abstractmethod
    def merge(self) -> nn.Linear:
        """A new linear layer that computes what this adapter computes in evaluation."""

    def separate(self, index: int) -> None:
        """Tells the adapter that it is the index-th of a model, so as to keep random streams apart."""


def check_linear(base_layer: nn.Module | None, user: str) -> nn.Linear:
    """`base_layer`, if it is a linear layer; ValueError if it is none or of another kind."""
    if not isinstance(base_layer, nn.Linear):
        raise UserError(
            f"base_layer={type(base_layer).__name__} must be an nn.Linear: "
            f"{user} works on a weight of shape (out_features, in_features)"
        )
    return base_layer


def linear_with_weight(base_layer: nn.Linear, weight: Tensor) -> nn.Linear:
    """A copy of `base_layer`, bias and all, with another weight of the same shape."""
    merged = nn.Linear(
        base_layer.in_features, base_layer.out_features, base_layer.bias is not None, device="meta"
    )
    merged.weight = nn.Parameter(weight.detach().clone(), base_layer.weight.requires_grad)
    if base_layer.bias is not None:
        merged.bias = nn.Parameter(base_layer.bias.detach().clone(), base_layer.bias.requires_grad)
    return merged.train(base_layer.training)
