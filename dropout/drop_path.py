"""DropPath, or stochastic depth: whole residual branches, window by window."""

import torch.nn.functional as F
from torch import Tensor, nn

from common.errors import UserError
from dropout.base import DropoutOutput, Site
from dropout.checks import check_p, check_slot

BRANCHES = ("residual_attention", "residual_mlp")


def path_mask(hidden: Tensor, p: float, training: bool) -> Tensor:
    """0 or 1 / (1 - p) a sample, (B, 1, ..., 1) for `hidden` (B, ...)."""
    ones = hidden.new_ones(hidden.shape[0], *(1,) * (hidden.dim() - 1))
    return F.dropout(ones, p, training)


class DropPath(nn.Module):
    """Drops a residual branch for a whole window (Huang et al. 2016, stochastic depth).

        Training: y[b] = x[b] m[b] / (1 - p_l),  m ~ Bernoulli(1 - p_l)
        Evaluation: y = x
        p_l = p, or p (l + 1) / n_layer with `linear_in_depth`, for layer l = 0 .. n_layer - 1

    The linear rate is the paper's: the first layer may already be dropped, the last is at rate p.
    timm's, p l / (n_layer - 1), never drops the first and has no value for a single layer.
    `hidden` is (B, ...): the sample axis is what it drops, so there is no form without a batch.
    ValueError where p is not in [0, 1], for a slot that is not a whole branch, and for a scalar.
    """

    def __init__(self, site: Site, *, p: float, linear_in_depth: bool = False) -> None:
        super().__init__()
        check_slot("drop_path", site, BRANCHES, "it drops a whole residual branch")
        self.p = check_p(p) * ((site.layer + 1) / site.n_layer if linear_in_depth else 1)
        self.linear_in_depth = linear_in_depth

    def forward(
        self, hidden: Tensor, mask_source: Tensor | None = None, return_mask: bool = False
    ) -> DropoutOutput:
        if hidden.dim() < 1:
            raise UserError(
                "hidden.shape=() does not fit drop_path dropout: it must be (B, ...), "
                "because whole samples are dropped"
            )
        scaled_mask = path_mask(hidden, self.p, self.training)
        mask = (scaled_mask > 0).to(hidden.dtype) if return_mask else None
        return DropoutOutput(hidden * scaled_mask, mask=mask)

    def extra_repr(self) -> str:
        return f"p={self.p:g}, linear_in_depth={self.linear_in_depth}"
