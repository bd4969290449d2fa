"""Channel dropout, which is locked dropout: one mask for all positions."""

from torch import Tensor

from dropout.masked import MaskedDropout


class ChannelDropout(MaskedDropout):
    """Drops a channel of a window at all its positions (`torch.nn.Dropout1d`).

        Training: y[b, t, c] = x[b, t, c] m[b, c] / (1 - p),  m ~ Bernoulli(1 - p)
        Evaluation: y = x

    `hidden` is (B, T, C), or (T, C) without a batch: torch's (N, C, L) and (C, L), transposed.

    This is also locked, or variational, dropout (Gal & Ghahramani 2016; Merity et al. 2018): one mask
    a sequence, shared by its positions. The two come from convolutions and from recurrent networks,
    and differ there in the order of the axes, and in that a recurrent network ties the mask of its
    state too. On a stream (B, T, C) they draw the same mask from the same random numbers, so
    `channel` and `locked` are two names of this class.
    """

    kind = "channel (locked)"

    def mask_shape(self, hidden: Tensor) -> tuple[int, ...]:
        return (*hidden.shape[:-2], 1, hidden.shape[-1])
