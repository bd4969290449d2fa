"""Token dropout: whole positions."""

import torch.nn.functional as F
from torch import Tensor, nn

from dropout.base import DropoutOutput, Site
from dropout.checks import STREAM, check_p, check_rank, check_slot


def token_mask(hidden: Tensor, p: float, training: bool) -> Tensor:
    """0 or 1 / (1 - p) a position, (B, T, 1) for `hidden` (B, T, C), (T, 1) for (T, C)."""
    return F.dropout1d(hidden.new_ones(*hidden.shape[:-1], 1), p, training)


class TokenDropout(nn.Module):
    """Drops whole positions: the third axis, beside elements and channels.

        Training: y[b, t, c] = x[b, t, c] m[b, t] / (1 - p),  m ~ Bernoulli(1 - p)
        Evaluation: y = x

    It is `torch.nn.Dropout1d` with the positions as channels. At slot `embedding` a position loses
    its token and its place together; in a branch it passes on the residual stream alone. `hidden`
    is (B, T, C), or (T, C) without a batch. ValueError where p is not in [0, 1], or for a slot or
    tensor that is not a stream.
    """

    def __init__(self, site: Site, *, p: float) -> None:
        super().__init__()
        check_slot("token", site, STREAM, "it needs (B, T, channels)")
        self.p = check_p(p)

    def forward(
        self, hidden: Tensor, mask_source: Tensor | None = None, return_mask: bool = False
    ) -> DropoutOutput:
        check_rank("token", hidden, 3, "(B, T, C)")
        scaled_mask = token_mask(hidden, self.p, self.training)
        mask = (scaled_mask > 0).to(hidden.dtype) if return_mask else None
        return DropoutOutput(hidden * scaled_mask, mask=mask)

    def extra_repr(self) -> str:
        return f"p={self.p}"
