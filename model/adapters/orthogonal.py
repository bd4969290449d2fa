"""Orthogonal fine-tuning: a weight is rotated in blocks (OFT) or through a butterfly (BOFT)."""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.errors import UserError
from model.adapters.base import Adapter, check_linear, linear_with_weight


class BlockDropout(Protocol):
    """A dropout of whole blocks, (D, H, H) or (N, D, H, H) in and out."""

    def __call__(self, blocks: Tensor) -> Tensor: ...

    def number_replaced(self, n_block: int) -> int: ...


class OrthogonalAdapter(Adapter):
    """Rotates the input features of a linear layer: OFT with one butterfly factor, BOFT with more.

        W' = W B_0^T ... B_{N-1}^T,  B_i = P_i diag(R_i1, ..., R_iD) P_i^T
        R = (I - Q)(I + Q)^-1,  Q = -Q^T

    W is (out_features, in_features), R is H x H with H = `block_size`, D = in_features / H and N =
    `n_butterfly_factor`. P_i pairs half-blocks that lie 2^i half-blocks apart, as the stages of a fast
    Fourier transform do; P_0 is the identity. So a feature mixes with H - 1 others at N = 1, and with
    twice as many for each factor more.

    The Cayley map, solved exactly and in float32 under autocast too, is orthogonal for every
    skew-symmetric Q. Q's H (H - 1) / 2 entries above the diagonal are the parameters; they start at 0,
    where W' = W bit for bit. Weight decay pulls them to 0, that is towards the base layer.

    `module_dropout` replaces blocks by the identity in training (see `dropout.multiplicative`): it
    sees (D, H, H) at N = 1 and (N, D, H, H) above. Evaluation and `merge` use the whole W'.

    Source: arXiv 2306.07280 (OFT), 2311.06243 (BOFT) and `peft.tuners.oft`, `peft.tuners.boft`.
    # Differs from peft: BOFT has no trainable scale per output feature, so W' is W rotated, no more.

    Raises ValueError if the base layer is not linear, if H or N does not fit its in_features, and if
    the dropout has p > 0 and would never replace a block.
    """

    base_layer: nn.Linear

    def __init__(
        self,
        base_layer: nn.Module,
        block_size: int,
        n_butterfly_factor: int = 1,
        module_dropout: BlockDropout | None = None,
    ) -> None:
        super().__init__()
        self.base_layer = check_linear(base_layer, "a rotation").requires_grad_(False)
        n_block = count_blocks(self.base_layer.in_features, block_size)
        check_butterfly(n_block, block_size, n_butterfly_factor)
        check_block_dropout(module_dropout, n_block, n_butterfly_factor)
        self.block_size = block_size
        self.module_dropout = module_dropout
        shape = (n_butterfly_factor, n_block, block_size * (block_size - 1) // 2)
        self.skew_entries = nn.Parameter(
            torch.zeros(shape, dtype=torch.float32, device=self.base_layer.weight.device)
        )

    def rotations(self) -> Tensor:
        """The blocks R of this moment, (N, D, H, H): some are the identity in training."""
        blocks = cayley(self.skew_entries, self.block_size)
        if self.module_dropout is None:
            return blocks
        if blocks.size(0) == 1:
            return self.module_dropout(blocks[0]).unsqueeze(0)
        return self.module_dropout(blocks)

    def weight(self) -> Tensor:
        """W' of this moment, (out_features, in_features)."""
        weight = self.base_layer.weight
        with torch.autocast(weight.device.type, enabled=False):
            return rotate(weight.float(), self.rotations()).to(weight.dtype)

    def forward(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.weight(), self.base_layer.bias)

    def merge(self) -> nn.Linear:
        training = self.training
        weight = self.eval().weight()
        self.train(training)
        return linear_with_weight(self.base_layer, weight)

    def extra_repr(self) -> str:
        n_factor, n_block, _ = self.skew_entries.shape
        return f"block_size={self.block_size}, n_block={n_block}, n_butterfly_factor={n_factor}"


def cayley(skew_entries: Tensor, block_size: int) -> Tensor:
    """R = (I - Q)(I + Q)^-1, orthogonal, of the entries above Q's diagonal.

    `skew_entries` is (..., H (H - 1) / 2), row by row; the result is (..., H, H). I + Q is never
    singular: a skew-symmetric Q has imaginary eigenvalues.
    """
    row, column = torch.triu_indices(block_size, block_size, 1, device=skew_entries.device)
    upper = skew_entries.new_zeros(*skew_entries.shape[:-1], block_size, block_size)
    upper[..., row, column] = skew_entries
    skew = upper - upper.mT
    identity = torch.eye(block_size, dtype=skew.dtype, device=skew.device)
    # (I - Q) and (I + Q)^-1 commute, so solving from the left gives the same R.
    return torch.linalg.solve(identity + skew, identity - skew)


def rotate(weight: Tensor, blocks: Tensor) -> Tensor:
    """W B_0^T ... B_{N-1}^T of W (out_features, in_features) and the blocks (N, D, H, H)."""
    for stage, stage_blocks in enumerate(blocks.unbind()):
        features = pair_half_blocks(weight, stage, stage_blocks.size(-1))
        rotated = torch.einsum("odh,dgh->odg", features, stage_blocks)
        weight = unpair_half_blocks(rotated, stage)
    return weight


def pair_half_blocks(weight: Tensor, stage: int, block_size: int) -> Tensor:
    """(out, D H) -> (out, D, H), where half-blocks 2^stage apart share a block."""
    if stage == 0:
        return weight.unflatten(-1, (-1, block_size))
    pairs = weight.unflatten(-1, (-1, 2, 2**stage, block_size // 2))
    return pairs.transpose(-2, -3).flatten(1).unflatten(-1, (-1, block_size))


def unpair_half_blocks(features: Tensor, stage: int) -> Tensor:
    """(out, D, H) -> (out, D H): undoes `pair_half_blocks`."""
    if stage == 0:
        return features.flatten(1)
    pairs = features.flatten(1).unflatten(-1, (-1, 2**stage, 2, features.size(-1) // 2))
    return pairs.transpose(-2, -3).flatten(1)


def count_blocks(in_features: int, block_size: int) -> int:
    """D = in_features / H; ValueError unless H, at least 2, divides in_features."""
    if block_size < 2 or in_features % block_size != 0:
        divisors = [size for size in range(2, in_features + 1) if in_features % size == 0]
        raise UserError(
            f"block_size={block_size} must divide the layer's in_features={in_features} and be at "
            f"least 2: take one of {divisors}"
        )
    return in_features // block_size


def check_butterfly(n_block: int, block_size: int, n_butterfly_factor: int) -> None:
    """Raises ValueError unless N stages can pair the half-blocks of D blocks."""
    if n_butterfly_factor < 1:
        raise UserError(f"n_butterfly_factor={n_butterfly_factor} must be at least 1 (1 is OFT)")
    if n_butterfly_factor > 1 and (block_size % 2 or n_block % 2 ** (n_butterfly_factor - 1)):
        raise UserError(
            f"n_butterfly_factor={n_butterfly_factor} with block_size={block_size} and {n_block} "
            f"blocks: block_size must be even and 2^(n_butterfly_factor - 1) must divide the number "
            "of blocks; take another block_size or fewer factors"
        )


def check_block_dropout(
    module_dropout: BlockDropout | None, n_block: int, n_butterfly_factor: int
) -> None:
    """Raises ValueError where a dropout with p > 0 would never replace a block."""
    p = getattr(module_dropout, "p", 0.0)
    if module_dropout is None or p == 0.0:
        return
    if n_butterfly_factor == 1 and n_block == 1:
        raise UserError(
            f"module_dropout.p={p} with 1 block drops nothing: a single block is left alone; take a "
            "smaller block_size or p=0"
        )
    if module_dropout.number_replaced(n_block) == 0:
        raise UserError(
            f"module_dropout.p={p} with {n_block} blocks drops nothing: int(p * {n_block}) = 0; take "
            f"p >= {1 / n_block:.3g} or a smaller block_size"
        )
