"""Classic dropout: the original, which scales in evaluation."""

from torch import Tensor, nn

from dropout.base import DropoutOutput, Site, passed
from dropout.checks import HEADS, STREAM, check_p, check_slot
from ops import masking


class ClassicDropout(nn.Module):
    """Dropout as first published (Srivastava et al. 2014): no scaling while training.

        Training: y = x m,  m ~ Bernoulli(1 - p) for every element
        Evaluation: y = (1 - p) x

    So E[y] is (1 - p) x in both modes. The paper multiplies the outgoing weights by 1 - p in
    evaluation; W ((1 - p) x) = ((1 - p) W) x, so multiplying the activations is the same and leaves
    the weights alone. Inverted dropout is this output over 1 - p, in both modes. Any shape.
    ValueError where p is not in [0, 1], or for slot `attention`, whose kernel scales while training.
    """

    def __init__(self, site: Site, *, p: float) -> None:
        super().__init__()
        check_slot("classic", site, STREAM + HEADS, "a fused kernel scales while training")
        self.p = check_p(p)

    def forward(
        self, hidden: Tensor, mask_source: Tensor | None = None, return_mask: bool = False
    ) -> DropoutOutput:
        if not self.training:
            return passed(hidden * (1 - self.p), return_mask)
        out, mask = masking.drop_to(
            hidden, self.p, scale=1.0, shift=0.0, dropped=0.0, return_mask=return_mask
        )
        return DropoutOutput(out, mask=mask)

    def extra_repr(self) -> str:
        return f"p={self.p}"
