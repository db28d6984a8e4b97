"""The residual quantiser: a vector becomes ``depth`` codes, each the nearest row to what the codes before left.

Letters: N vectors, D channels, L levels, K codes of a level. Source: SAMTok, section 3 (residual vector
quantisation, arXiv 2203.01941); the key names are those of the published checkpoint.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from samtok_data.words import MISSING


class Codebook(nn.Module):
    """The rows of one level.

    Args:
        codebook_size: K, rows that can be chosen.
        channels: D.

    Attributes:
        weight: (K + 1, D); the last row is padding, it is never chosen and never decoded.
        cluster_size_ema: (K,), moving count of the vectors that chose a row. Training state.
        embed_ema: (K, D), moving sum of those vectors. Training state.
    """

    cluster_size_ema: Tensor
    embed_ema: Tensor

    def __init__(self, codebook_size: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(codebook_size + 1, channels))
        self.register_buffer("cluster_size_ema", torch.zeros(codebook_size))
        self.register_buffer("embed_ema", self.weight.detach()[:-1].clone())

    @property
    def rows_KD(self) -> Tensor:
        """The rows that stand for a code."""
        return self.weight[:-1]


class ResidualQuantizer(nn.Module):
    """Codes of vectors, and vectors of codes.

    Args:
        codebook_size: K, codes of a level.
        depth: L, levels.
        channels: D.
    """

    def __init__(self, codebook_size: int, depth: int, channels: int) -> None:
        super().__init__()
        self.codebook_size = codebook_size
        self.depth = depth
        self.codebooks = nn.ModuleList(Codebook(codebook_size, channels) for _ in range(depth))

    def encode(self, z_ND: Tensor) -> Tensor:
        """The codes of vectors: at each level the row with the least squared distance to the residual.

        Args:
            z_ND: (N, D), of any floating type; distances are taken in the codebooks' own.

        Returns:
            int64, (N, L), each in ``0 .. K - 1``.
        """
        codes = []
        residual_ND = z_ND.to(self._rows(0).dtype)
        for level in range(self.depth):
            rows_KD = self._rows(level)
            # The matrix form of the distance cancels: its error would exceed the gap between close rows.
            distances_NK = torch.cdist(residual_ND, rows_KD, compute_mode="donot_use_mm_for_euclid_dist")
            code_N = distances_NK.argmin(dim=1)
            residual_ND = residual_ND - rows_KD[code_N]
            codes.append(code_N)
        return torch.stack(codes, dim=1)

    def decode(self, codes_NL: Tensor) -> Tensor:
        """The vectors of codes: the sum of the rows. A level that is ``MISSING`` contributes nothing.

        Args:
            codes_NL: int64, (N, L), each in ``0 .. K - 1`` or ``MISSING``; not changed.

        Returns:
            (N, D) in the codebooks' type.

        Raises:
            ValueError: another number of levels, or a code out of range.
        """
        if codes_NL.ndim != 2 or codes_NL.shape[1] != self.depth:
            raise ValueError(f"expected codes of shape (N, {self.depth}), got {tuple(codes_NL.shape)}")
        wrong = codes_NL[(codes_NL < MISSING) | (codes_NL >= self.codebook_size)]
        if wrong.numel():
            raise ValueError(f"expected codes in 0..{self.codebook_size - 1} or {MISSING}, got {int(wrong[0])}")
        levels = []
        for level in range(self.depth):
            code_N = codes_NL[:, level]
            present_N1 = (code_N != MISSING).unsqueeze(1)
            levels.append(self._rows(level)[code_N.clamp(min=0)] * present_N1)
        return torch.stack(levels).sum(dim=0)

    def _rows(self, level: int) -> Tensor:
        return cast("Codebook", self.codebooks[level]).rows_KD
