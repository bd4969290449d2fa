"""Feature alpha dropout: channels, for self-normalising networks."""

import torch.nn.functional as F
from torch import Tensor, nn

from dropout.alpha import alpha_output, check_selu
from dropout.base import DropoutOutput, Site
from dropout.checks import STREAM, check_p, check_rank, check_slot


class FeatureAlphaDropout(nn.Module):
    """Alpha dropout of whole channels of a window (`torch.nn.FeatureAlphaDropout`).

        Training: y[b, t, c] = a (x[b, t, c] m[b, c] - S (1 - m[b, c])) + a S p,
        m ~ Bernoulli(1 - p), with a and S as in `dropout.alpha`
        Evaluation: y = x

    `hidden` is (B, T, C), or (T, C) without a batch: torch's (N, C, ...), transposed. ValueError
    where p is not in [0, 1], where the model's activation is not SELU, or for a slot or tensor that
    is not a stream.
    """

    def __init__(self, site: Site, *, p: float) -> None:
        super().__init__()
        check_slot("feature_alpha", site, STREAM, "it needs (B, T, channels)")
        check_selu("feature_alpha", site)
        self.p = check_p(p)

    def forward(
        self, hidden: Tensor, mask_source: Tensor | None = None, return_mask: bool = False
    ) -> DropoutOutput:
        check_rank("feature_alpha", hidden, 3, "(B, T, C)")
        p = self.p if self.training else 0.0
        # torch takes axes 0 and 1 for sample and channel, so one window gets a batch of one.
        batch, width = hidden.shape[:-2], hidden.shape[-1]
        ones = hidden.new_ones(*(batch or (1,)), width, 1)
        ones = F.feature_alpha_dropout(ones, p, self.training).view(*batch, 1, width)
        return alpha_output(hidden, ones, p, return_mask)

    def extra_repr(self) -> str:
        return f"p={self.p}"
