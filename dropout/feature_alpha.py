"""Feature alpha dropout: channels, for self-normalising networks."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropout.alpha import affine, check_selu
from dropout.base import DropoutOutput, Site, passed
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
        check_rank("feature_alpha", hidden, ("B", "T", "C"))
        if not self.training:
            return passed(hidden, return_mask)
        channels = hidden.new_ones(*hidden.shape[:-2], 1, hidden.shape[-1])
        kept, y = F.dropout(channels, self.p) > 0, affine(self.p)
        out = torch.where(kept, hidden * y["scale"] + y["shift"], y["dropped"])
        return DropoutOutput(out, mask=kept.to(hidden.dtype) if return_mask else None)

    def extra_repr(self) -> str:
        return f"p={self.p}"
