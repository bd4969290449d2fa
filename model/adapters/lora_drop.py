"""LoRA with dropout of whole components of its low-rank branch."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.errors import UserError
from model.adapters.base import Adapter, linear_with_weight


class LoRADropAdapter(Adapter):
    """Adds a low-rank branch to a layer and drops some of its components in training.

        out = base_layer(x) + (alpha / r) c * (x A^T B^T)
        training:    c = m / (1 - p),  m ~ Bernoulli(1 - p) for each component
        evaluation:  c = 1 - p

    x is (..., in_features), A is (r, in_features) and B (out_features, r), r = `rank`, p =
    `dropout_rate`. A component is an output feature of the branch (`component="output"`, as in the
    source) or one of the r ranks (`component="rank"`: m stands between A and B); one mask is drawn for
    each training forward and shared by all positions. A dropped component gets no gradient. B starts at
    0, so that the adapter starts as its base layer; A is uniform in +-1 / sqrt(in_features).
    `dropout_rate=0` is plain LoRA.

    Both scalings are as the source documents them, and together they do not preserve the expectation:
    E[c] is 1 in training and 1 - p in evaluation, where the branch is weaker by that factor. So what
    such a run gains or loses by its rate is two effects at once, dropping and shrinking.
    `scale_in_evaluation=False` gives c = 1, the expectation of training, and leaves dropping alone.
    `merge` folds in whichever of the two evaluation uses.

    Random stream: `seed=None` draws from torch's default generator. The training step seeds that one
    anew at every step, so a resumed run repeats its masks. With a `seed`, the adapter has a stream of
    its own on the CPU; its state is a buffer, saved and loaded with the weights, so a resumed run goes
    on with it too. Such a stream cannot be traced by torch.compile(fullgraph=True).

    Source: the LoRA paper (arXiv 2106.09685) and AiDotNet's `LoRADropAdapter`.

    A negative `alpha` means alpha = rank. Raises ValueError if `base_layer` is None or has no
    in_features and out_features, if `rank` is not in [1, min(in_features, out_features)], if
    `dropout_rate` is not in [0, 1), if `alpha` is 0, and at `merge` if the base layer is not linear.
    """

    generator_state: Tensor

    def __init__(
        self,
        base_layer: nn.Module,
        rank: int,
        dropout_rate: float,
        alpha: float = -1.0,
        freeze_base_layer: bool = True,
        seed: int | None = None,
        component: Literal["output", "rank"] = "output",
        scale_in_evaluation: bool = True,
    ) -> None:
        super().__init__()
        in_features, out_features = layer_features(base_layer)
        check_lora(in_features, out_features, rank, dropout_rate, alpha, component)
        self.base_layer = base_layer.requires_grad_(not freeze_base_layer)
        self.rank = rank
        self.dropout_rate = dropout_rate
        self.alpha = alpha if alpha > 0 else float(rank)
        self.seed = seed
        self.component = component
        self.scale_in_evaluation = scale_in_evaluation
        self.mask_shape = (out_features, 1) if component == "output" else (1, rank)
        device = next(base_layer.parameters()).device
        # Drawn on the CPU: one seed gives the same A on every device.
        initial_a = nn.init.kaiming_uniform_(torch.empty(rank, in_features), a=math.sqrt(5))
        self.lora_a = nn.Parameter(initial_a.to(device))
        self.lora_b = nn.Parameter(torch.zeros(out_features, rank, device=device))
        if seed is not None:
            self.register_buffer("generator_state", torch.Generator().manual_seed(seed).get_state())

    @property
    def in_features(self) -> int:
        return self.lora_a.size(1)

    @property
    def out_features(self) -> int:
        return self.lora_b.size(0)

    def forward(self, hidden: Tensor) -> Tensor:
        branch = F.linear(F.linear(hidden, self.lora_a), self.scaled_b(self.component_scale()))
        return self.base_layer(hidden) + branch

    def component_scale(self) -> Tensor | float:
        """c: of `mask_shape` in training with dropout (a new draw), otherwise a number."""
        keep = 1.0 - self.dropout_rate
        if self.training and self.dropout_rate > 0:
            return self.draw_mask() / keep
        return keep if not self.training and self.scale_in_evaluation else 1.0

    def scaled_b(self, scale: Tensor | float) -> Tensor:
        """(alpha / r) c B: c multiplies B's rows (output features) or columns (ranks)."""
        return self.lora_b * (self.alpha / self.rank) * scale

    def draw_mask(self) -> Tensor:
        """A new mask of 1 (kept) and 0 (dropped), of `mask_shape`."""
        device = self.lora_b.device
        if self.seed is None:
            return (torch.rand(self.mask_shape, device=device) >= self.dropout_rate).float()
        generator = torch.Generator()
        generator.set_state(self.generator_state.cpu())
        noise = torch.rand(self.mask_shape, generator=generator)
        self.generator_state.copy_(generator.get_state())
        return (noise >= self.dropout_rate).float().to(device)

    def reset_state(self) -> None:
        """Starts the adapter's own stream again at `seed`, and resets the base layer if it can be."""
        if self.seed is not None:
            self.generator_state.copy_(torch.Generator().manual_seed(self.seed).get_state())
        reset_base = getattr(self.base_layer, "reset_state", None)
        if reset_base is not None:
            reset_base()

    def separate(self, index: int) -> None:
        if self.seed is not None:
            self.seed += index
            self.reset_state()

    def merge(self) -> nn.Linear:
        if not isinstance(self.base_layer, nn.Linear):
            raise UserError(
                f"base_layer={type(self.base_layer).__name__} must be an nn.Linear to merge into: "
                "only a layer that is one weight matrix can take in B A; merge the inner layer first"
            )
        scale = 1.0 - self.dropout_rate if self.scale_in_evaluation else 1.0
        return linear_with_weight(
            self.base_layer, self.base_layer.weight + self.scaled_b(scale) @ self.lora_a
        )

    def extra_repr(self) -> str:
        return (
            f"rank={self.rank}, dropout_rate={self.dropout_rate}, alpha={self.alpha}, "
            f"seed={self.seed}, component={self.component}, "
            f"scale_in_evaluation={self.scale_in_evaluation}"
        )


def layer_features(base_layer: nn.Module | None) -> tuple[int, int]:
    """(in_features, out_features) of a layer; ValueError if there is none or it has no such sizes."""
    in_features = getattr(base_layer, "in_features", None)
    out_features = getattr(base_layer, "out_features", None)
    if in_features is None or out_features is None:
        raise UserError(
            f"base_layer={type(base_layer).__name__} must be a layer with in_features and "
            "out_features, such as nn.Linear: the branch has to match them"
        )
    return in_features, out_features


def check_lora(
    in_features: int,
    out_features: int,
    rank: int,
    dropout_rate: float,
    alpha: float,
    component: str,
) -> None:
    """Raises ValueError for a value out of its range, naming the range."""
    if not 1 <= rank <= min(in_features, out_features):
        raise UserError(
            f"rank={rank} must be in [1, {min(in_features, out_features)}]: a weight of shape "
            f"({out_features}, {in_features}) has no higher rank"
        )
    if not 0.0 <= dropout_rate < 1.0:
        raise UserError(
            f"dropout_rate={dropout_rate} must be in [0, 1): it is the probability of dropping a "
            "component, and kept ones are scaled by 1 / (1 - dropout_rate)"
        )
    if alpha == 0:
        raise UserError("alpha=0 must not be 0: it scales the branch; negative means alpha = rank")
    if component not in ("output", "rank"):
        raise UserError(f"component={component!r} must be 'output' or 'rank'")
