"""A short cosine series as LearnedDropout's map from attention output to soft mask."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.errors import UserError


def fourier_mask(attended: Tensor, shift: Tensor, amplitudes: Tensor) -> Tensor:
    """M = 1/2 + 1/2 sum_k a_k cos(k (A + B)), k = 1 .. K, in [0, 1] and in float32 at least.

    `amplitudes` is c, (K,), and a_k = c_k / sum_j |c_j|: as sum_k |a_k| = 1, M cannot leave [0, 1].
    """
    precise = torch.promote_types(attended.dtype, torch.float32)
    phase = attended.to(precise) + shift.to(precise)
    series = torch.zeros_like(phase)
    for k, amplitude in enumerate(F.normalize(amplitudes, p=1.0, dim=0), start=1):
        series = series + amplitude * torch.cos(k * phase)
    # Rounding may carry the sum an ulp beyond [-1, 1], where the entropy of M is not defined.
    return (series / 2 + 0.5).clamp(0, 1)


class FourierMap(nn.Module):
    """M = 1/2 + 1/2 sum_k a_k cos(k (A + B)), a = c / sum |c| (Learned Dropout, next steps).

    One waveform a module, with its K amplitudes c learned, and as before one phase B a channel. c
    starts at (1, 0, ..., 0): there M is the single cosine to the last bit, and the other amplitudes
    already have gradients. Only the direction of c counts, not its length. It has one dimension and
    so, like B, no weight decay. ValueError where `n_harmonics`, which is K, is less than 1.
    """

    def __init__(self, n_harmonics: int) -> None:
        super().__init__()
        if n_harmonics < 1:
            raise UserError(f"n_harmonics={n_harmonics} must be at least 1: 1 is the cosine alone")
        self.amplitudes = nn.Parameter(torch.eye(n_harmonics)[0])

    def forward(self, attended: Tensor, shift: Tensor) -> Tensor:
        return fourier_mask(attended, shift, self.amplitudes)

    def extra_repr(self) -> str:
        return f"n_harmonics={len(self.amplitudes)}"
