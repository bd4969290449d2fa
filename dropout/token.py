"""Token dropout: whole positions."""

from torch import Tensor

from dropout.masked import MaskedDropout


class TokenDropout(MaskedDropout):
    """Drops whole positions: the third axis, beside elements and channels.

        Training: y[b, t, c] = x[b, t, c] m[b, t] / (1 - p),  m ~ Bernoulli(1 - p)
        Evaluation: y = x

    It is `torch.nn.Dropout1d` with the positions as channels. At slot `embedding` a position loses
    its token and its place together; in a branch it passes on the residual stream alone. `hidden`
    is (B, T, C), or (T, C) without a batch.
    """

    kind = "token"

    def mask_shape(self, hidden: Tensor) -> tuple[int, ...]:
        return (*hidden.shape[:-1], 1)
