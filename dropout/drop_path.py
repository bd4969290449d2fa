"""DropPath, or stochastic depth: whole residual branches, window by window."""

from torch import Tensor

from common.errors import UserError
from dropout.base import Site
from dropout.masked import MaskedDropout


class DropPath(MaskedDropout):
    """Drops a residual branch for a whole window (Huang et al. 2016, stochastic depth).

        Training: y[b] = x[b] m[b] / (1 - p_l),  m ~ Bernoulli(1 - p_l)
        Evaluation: y = x
        p_l = p, or p (l + 1) / n_layer with `linear_in_depth`, for layer l = 0 .. n_layer - 1

    The linear rate is the paper's: the first layer may already be dropped, the last is at rate p.
    timm's, p l / (n_layer - 1), never drops the first and has no value for a single layer.
    `hidden` is (B, ...): the sample axis is what it drops, so there is no form without a batch.
    """

    kind = "drop_path"
    slots = ("residual_attention", "residual_mlp")

    def __init__(self, site: Site, *, p: float, linear_in_depth: bool = False) -> None:
        super().__init__(site, p=p)
        self.p *= (site.layer + 1) / site.n_layer if linear_in_depth else 1
        self.linear_in_depth = linear_in_depth

    def check(self, hidden: Tensor) -> None:
        if hidden.dim() < 1:
            raise UserError(
                "hidden.shape=() does not fit drop_path dropout: it must be (B, ...), "
                "because whole samples are dropped"
            )

    def mask_shape(self, hidden: Tensor) -> tuple[int, ...]:
        return (hidden.shape[0], *(1,) * (hidden.dim() - 1))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, linear_in_depth={self.linear_in_depth}"
