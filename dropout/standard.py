"""Standard dropout: each element on its own."""

from torch import Tensor, nn

from dropout.base import DropoutOutput, Site
from dropout.checks import check_p
from ops import masking


class StandardDropout(nn.Module):
    """Inverted dropout of single elements (Srivastava et al. 2014, as `torch.nn.Dropout`).

        Training: y = x r,  r = m / (1 - p),  m ~ Bernoulli(1 - p) for every element
        Evaluation: y = x

    E[r] = (1 - p) / (1 - p) = 1, so E[y] = x in both modes: this is why r is scaled. Any shape, so it
    fits every slot; in slot `attention` the attention kernel does the work at this rate. ValueError
    where p is not in [0, 1].
    """

    def __init__(self, site: Site, *, p: float) -> None:
        super().__init__()
        self.p = check_p(p)

    @property
    def attention_p(self) -> float:
        return self.p

    def forward(
        self, hidden: Tensor, mask_source: Tensor | None = None, return_mask: bool = False
    ) -> DropoutOutput:
        out, mask = masking.dropout(hidden, self.p if self.training else 0.0, return_mask)
        return DropoutOutput(out, mask=mask)

    def extra_repr(self) -> str:
        return f"p={self.p}"
