"""Head dropout: whole attention heads."""

from torch import Tensor

from dropout.checks import HEADS
from dropout.masked import MaskedDropout


class HeadDropout(MaskedDropout):
    """Drops what whole heads say in a window, before the output projection mixes them.

        Training: y[b, t, h] = x[b, t, h] m[b, h] / (1 - p),  m ~ Bernoulli(1 - p)
        Evaluation: y = x

    It is `torch.nn.Dropout2d` with heads as channels, each a feature map (T, head_size). `hidden` is
    (B, T, n_head, head_size), or the same without B.
    """

    kind = "head"
    slots = HEADS
    layout = ("B", "T", "n_head", "head_size")

    def mask_shape(self, hidden: Tensor) -> tuple[int, ...]:
        return (*hidden.shape[:-3], 1, hidden.shape[-2], 1)
