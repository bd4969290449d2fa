"""Multiplicative dropout: some blocks of a block-orthogonal matrix become the identity."""

import torch
from torch import Tensor, nn

from common.errors import UserError
from dropout.checks import check_p


class MultiplicativeDropout(nn.Module):
    """Replaces int(p D) of the D blocks by the identity; the rest pass unscaled.

        out[d] = I  where mask[d] = 1,  blocks[d]  where mask[d] = 0,  sum(mask) = int(p D)

    The mask is a random permutation, so the number replaced is exact and only the places are random.
    The identity is to a product of rotations what zero is to a sum, and it is orthogonal: so is what
    comes out, where `blocks` are. A replaced block gets no gradient.

    `blocks` is (D, H, H), the D blocks of one block-diagonal matrix (OFT), or (N, D, H, H), one such
    matrix for each of N butterfly factors (BOFT): there, one factor n, drawn at random, is masked and
    the other N - 1 pass whole. A single block, D = 1 of (D, H, H), is shared by all places and left
    alone. Where int(p D) = 0 nothing is ever replaced: `number_replaced` tells.

    Evaluation: the blocks as they are.

    Source: the BOFT paper (arXiv 2311.06243) and `MultiplicativeDropoutLayer` of huggingface/peft. In
    peft's code, as here, mask = 1 means replaced; its documentation has both readings.
    """

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        self.p = check_p(p)

    def number_replaced(self, n_block: int) -> int:
        """How many of a factor's `n_block` blocks a training step replaces."""
        return int(self.p * n_block)

    def forward(self, blocks: Tensor) -> Tensor:
        check_block_shape(blocks)
        shared_block = blocks.dim() == 3 and blocks.size(0) == 1
        number_replaced = self.number_replaced(blocks.size(-3))
        if not self.training or number_replaced == 0 or shared_block:
            return blocks
        mask = block_mask(blocks.shape, number_replaced, blocks.device)
        identity = torch.eye(blocks.size(-1), dtype=blocks.dtype, device=blocks.device)
        return torch.where(mask, identity, blocks)

    def extra_repr(self) -> str:
        return f"p={self.p}"


def block_mask(shape: torch.Size, number_replaced: int, device: torch.device) -> Tensor:
    """True where a block is replaced: (D, 1, 1), or (N, D, 1, 1) with one factor's blocks alone."""
    factor = torch.randint(0, shape[0], (1,), device=device) if len(shape) == 4 else None
    mask = torch.randperm(shape[-3], device=device).view(-1, 1, 1) < number_replaced
    if factor is None:
        return mask
    # A comparison, not an index: reading the number back would wait for the device.
    return mask & (torch.arange(shape[0], device=device) == factor).view(-1, 1, 1, 1)


def check_block_shape(blocks: Tensor) -> None:
    """Raises ValueError unless `blocks` is (D, H, H) or (N, D, H, H)."""
    if blocks.dim() not in (3, 4) or blocks.size(-1) != blocks.size(-2):
        raise UserError(
            f"blocks has shape {tuple(blocks.shape)}: it must be (D, H, H) or (N, D, H, H), "
            "square blocks in the last two dimensions"
        )
