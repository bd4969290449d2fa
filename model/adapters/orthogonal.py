"""Orthogonal fine-tuning: the weight is rotated in blocks (OFT) or through a butterfly (BOFT)."""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.adapters.base import Adapter, check_linear, linear_with_weight


class BlockDropout(Protocol):
    """A dropout of whole blocks: (D, H, H) or (N, D, H, H) in and out."""

    def __call__(self, blocks: Tensor) -> Tensor: ...

    def number_replaced(self, n_block: int) -> int: ...


class OFTAdapter(Adapter):
    """Rotates the input features of a linear layer, block by block.

        W' = W R^T,  R = diag(R_1, ..., R_D),  R_d = (I - Q_d)(I + Q_d)^-1,  Q_d = -Q_d^T

    W is (out_features, in_features), R_d is H x H with H = `block_size` and D = in_features / H. The
    Cayley map makes R_d orthogonal for every skew-symmetric Q_d, whose H (H - 1) / 2 entries above
    the diagonal are the parameters; they start at 0, so R = I and W' = W bit for bit. Weight decay
    pulls them back to 0: towards the base layer, not towards a zero weight.

    `module_dropout` replaces blocks by the identity in training (see `dropout.multiplicative`).
    Evaluation and `merge` use the same W'. The rotation is computed in float32 under autocast too.

    Source: arXiv 2306.07280 and `peft.tuners.oft`, whose Cayley map is by default a truncated series;
    here it is solved for exactly.

    Raises ValueError if H does not divide in_features, or if the dropout would never replace a block.
    """

    def __init__(
        self, base_layer: nn.Module, block_size: int, module_dropout: BlockDropout | None = None
    ) -> None:
        super().__init__()
        base_layer = check_linear(base_layer, "OFT").requires_grad_(False)
        n_block = count_blocks(base_layer.in_features, block_size)
        check_block_dropout(module_dropout, n_block, block_size)
        self.base_layer = base_layer
        self.block_size = block_size
        self.module_dropout = module_dropout
        self.skew_entries = nn.Parameter(
            base_layer.weight.new_zeros(n_block, block_size * (block_size - 1) // 2, dtype=torch.float32)
        )

    def rotations(self) -> Tensor:
        """The blocks R_d before dropout: (D, H, H), each orthogonal."""
        return cayley(self.skew_entries, self.block_size)

    def weight(self) -> Tensor:
        """W' of this moment: with dropped blocks in training, whole in evaluation."""
        weight = self.base_layer.weight
        with torch.autocast(weight.device.type, enabled=False):
            blocks = self.rotations()
            blocks = blocks if self.module_dropout is None else self.module_dropout(blocks)
            return rotate_blocks(weight.float(), blocks).to(weight.dtype)

    def forward(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.weight(), self.base_layer.bias)

    def merge(self) -> nn.Linear:
        return merge_rotation(self)

    def extra_repr(self) -> str:
        return f"block_size={self.block_size}, n_block={self.skew_entries.size(0)}"


class BOFTAdapter(Adapter):
    """Rotates the input features of a linear layer through N butterfly factors.

        W' = W B_0^T B_1^T ... B_{N-1}^T,  B_i = P_i diag(R_i1, ..., R_iD) P_i^T

    Every B_i is block-orthogonal as in `OFTAdapter`; P_i pairs half-blocks (H / 2 features) that lie
    2^i half-blocks apart, as the stages of a fast Fourier transform do. After N factors a feature
    mixes with H 2^(N-1) others at N times the parameters of OFT; N = 1 is OFT.

    `module_dropout` masks one factor, drawn at random, in each training step. Initial weights,
    precision, evaluation and `merge` are as in `OFTAdapter`.

    Differs from peft: no trainable scale per output feature, so that W' is a rotation of W and no
    more.

    Source: arXiv 2311.06243 and `peft.tuners.boft`.

    Raises ValueError as `OFTAdapter` does, and, with N > 1, if H is odd or 2^(N-1) does not divide D.
    """

    def __init__(
        self,
        base_layer: nn.Module,
        block_size: int,
        n_butterfly_factor: int = 2,
        module_dropout: BlockDropout | None = None,
    ) -> None:
        super().__init__()
        base_layer = check_linear(base_layer, "BOFT").requires_grad_(False)
        n_block = count_blocks(base_layer.in_features, block_size)
        check_butterfly(n_block, block_size, n_butterfly_factor)
        # Unlike OFT's, a single block is not shared here, and dropout may replace it.
        check_block_dropout(module_dropout, n_block, block_size, single_is_shared=False)
        self.base_layer = base_layer
        self.block_size = block_size
        self.n_butterfly_factor = n_butterfly_factor
        self.module_dropout = module_dropout
        self.skew_entries = nn.Parameter(
            base_layer.weight.new_zeros(
                n_butterfly_factor,
                n_block,
                block_size * (block_size - 1) // 2,
                dtype=torch.float32,
            )
        )

    def rotations(self) -> Tensor:
        """The blocks R_id before dropout: (N, D, H, H), each orthogonal."""
        return cayley(self.skew_entries, self.block_size)

    def weight(self) -> Tensor:
        """W' of this moment: with dropped blocks in training, whole in evaluation."""
        weight = self.base_layer.weight
        with torch.autocast(weight.device.type, enabled=False):
            blocks = self.rotations()
            blocks = blocks if self.module_dropout is None else self.module_dropout(blocks)
            return rotate_butterfly(weight.float(), blocks).to(weight.dtype)

    def forward(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.weight(), self.base_layer.bias)

    def merge(self) -> nn.Linear:
        return merge_rotation(self)

    def extra_repr(self) -> str:
        n_factor, n_block, _ = self.skew_entries.shape
        return f"block_size={self.block_size}, n_block={n_block}, n_butterfly_factor={n_factor}"
