"""Layer-group dropout: groups of attention heads."""

from torch import Tensor

from common.errors import UserError
from dropout.base import Site
from dropout.checks import HEADS
from dropout.masked import MaskedDropout


class LayerGroupDropout(MaskedDropout):
    """Drops groups of neighbouring heads together in a window (`torch.nn.Dropout3d`).

        Training: y[b, t, h] = x[b, t, h] m[b, g(h)] / (1 - p),  g(h) = h // (n_head / groups),
        m ~ Bernoulli(1 - p)
        Evaluation: y = x

    `Dropout3d` wants (N, C, D, H, W). Of all slots only `attention_heads` has five axes by nature:
    the outputs of all heads, stacked by group, (B, groups, n_head / groups, T, head_size). A stream
    has three, and two more would be invented, so other slots are refused. With `groups=n_head` it is
    head dropout. `hidden` is (B, T, n_head, head_size), or the same without B: torch's (C, D, H, W).

    ValueError where `groups` does not divide n_head, besides those of every `MaskedDropout`.
    """

    kind = "layer_group"
    slots = HEADS
    layout = ("B", "T", "n_head", "head_size")

    def __init__(self, site: Site, *, p: float, groups: int) -> None:
        super().__init__(site, p=p)
        if groups < 1 or site.n_head % groups:
            divisors = [str(n) for n in range(1, site.n_head + 1) if site.n_head % n == 0]
            raise UserError(
                f"groups={groups} must divide n_head={site.n_head}, so that all are of a size: "
                f"use {', '.join(divisors)}"
            )
        self.groups = groups

    def mask_shape(self, hidden: Tensor) -> tuple[int, ...]:
        return (*hidden.shape[:-3], 1, self.groups, 1)

    def scaled_mask(self, hidden: Tensor) -> Tensor:
        heads_in_group = hidden.shape[-2] // self.groups
        return super().scaled_mask(hidden).repeat_interleave(heads_in_group, dim=-2)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, groups={self.groups}"
