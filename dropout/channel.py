"""Channel dropout, which is locked dropout: one mask for all positions."""

import torch.nn.functional as F
from torch import Tensor, nn

from dropout.base import DropoutOutput, Site
from dropout.checks import STREAM, check_p, check_rank, check_slot


def channel_mask(hidden: Tensor, p: float, training: bool) -> Tensor:
    """0 or 1 / (1 - p) a channel, (B, 1, C) for `hidden` (B, T, C), (1, C) for (T, C)."""
    batch, width = hidden.shape[:-2], hidden.shape[-1]
    return F.dropout1d(hidden.new_ones(*batch, width, 1), p, training).transpose(-2, -1)


class ChannelDropout(nn.Module):
    """Drops a channel of a window at all its positions (`torch.nn.Dropout1d`).

        Training: y[b, t, c] = x[b, t, c] m[b, c] / (1 - p),  m ~ Bernoulli(1 - p)
        Evaluation: y = x

    `hidden` is (B, T, C), or (T, C) without a batch: torch's (N, C, L) and (C, L), transposed.

    This is also locked, or variational, dropout (Gal & Ghahramani 2016; Merity et al. 2018): one mask
    a sequence, shared by its positions. The two come from convolutions and from recurrent networks,
    and differ there in the order of the axes, and in that a recurrent network ties the mask of its
    state too. On a stream (B, T, C) they draw the same mask from the same random numbers, so
    `channel` and `locked` are two names of this class.

    ValueError where p is not in [0, 1], or for a slot or tensor that is not a stream.
    """

    def __init__(self, site: Site, *, p: float) -> None:
        super().__init__()
        check_slot("channel (locked)", site, STREAM, "it needs (B, T, channels)")
        self.p = check_p(p)

    def forward(
        self, hidden: Tensor, mask_source: Tensor | None = None, return_mask: bool = False
    ) -> DropoutOutput:
        check_rank("channel (locked)", hidden, 3, "(B, T, C)")
        scaled_mask = channel_mask(hidden, self.p, self.training)
        mask = (scaled_mask > 0).to(hidden.dtype) if return_mask else None
        return DropoutOutput(hidden * scaled_mask, mask=mask)

    def extra_repr(self) -> str:
        return f"p={self.p}"
