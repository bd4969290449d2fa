"""Alpha dropout: elements, for self-normalising networks."""

from torch import Tensor, nn

from common.errors import UserError
from dropout.base import DropoutOutput, Site, passed
from dropout.checks import HEADS, STREAM, check_p, check_slot
from ops import masking

# SELU saturates at -S, the product of its two constants, 1.0507 * 1.6733.
S = 1.7580993408473766


def check_selu(kind: str, site: Site) -> None:
    """A ValueError where the model's activation is not SELU."""
    if site.activation != "selu":
        raise UserError(
            f"activation={site.activation} does not go with {kind} dropout: what it drops becomes "
            "the value where SELU saturates, and only among SELU's outputs does that keep mean 0 and "
            "variance 1; use model.activation=selu"
        )


def affine(p: float) -> dict[str, float]:
    """Of alpha dropout at rate p: y = scale x + shift where kept, `dropped` elsewhere.

    scale = a = ((1 - p) (1 + p S^2))^(-1/2), shift = a S p, dropped = a S (p - 1); all 0 at p = 1.
    """
    a = ((1 - p) * (1 + p * S**2)) ** -0.5 if p < 1 else 0.0
    return {"scale": a, "shift": a * S * p, "dropped": a * S * (p - 1)}


class AlphaDropout(nn.Module):
    """Dropout that keeps mean 0 and variance 1 (Klambauer et al. 2017, as `torch.nn.AlphaDropout`).

        Training: y = a (x m - S (1 - m)) + a S p,  m ~ Bernoulli(1 - p) for every element,
        a = ((1 - p) (1 + p S^2))^(-1/2), and -S = -1.7581 where SELU saturates
        Evaluation: y = x

    At p = 1 all is 0, as torch has it. Any shape. Its theory speaks of SELU's own outputs, at slot
    `mlp_hidden`; elsewhere it holds as far as the input has mean 0 and variance 1. ValueError where
    p is not in [0, 1], where the model's activation is not SELU, or for slot `attention`.
    """

    def __init__(self, site: Site, *, p: float) -> None:
        super().__init__()
        check_slot("alpha", site, STREAM + HEADS, "it needs more than the rate of a fused kernel")
        check_selu("alpha", site)
        self.p = check_p(p)

    def forward(
        self, hidden: Tensor, mask_source: Tensor | None = None, return_mask: bool = False
    ) -> DropoutOutput:
        if not self.training:
            return passed(hidden, return_mask)
        out, mask = masking.drop_to(hidden, self.p, **affine(self.p), return_mask=return_mask)
        return DropoutOutput(out, mask=mask)

    def extra_repr(self) -> str:
        return f"p={self.p}"
