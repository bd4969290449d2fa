"""No dropout."""

from torch import Tensor, nn

from dropout.base import DropoutOutput, Site


class NoDropout(nn.Module):
    """y = x, in training and in evaluation; fits every slot."""

    attention_p = 0.0
    is_identity = True

    def __init__(self, site: Site) -> None:
        super().__init__()

    def forward(
        self, hidden: Tensor, mask_source: Tensor | None = None, return_mask: bool = False
    ) -> DropoutOutput:
        return DropoutOutput(hidden)
