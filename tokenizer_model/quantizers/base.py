"""What every quantiser does: codes of vectors, vectors of codes, and the two steps of its training.

Letters: N vectors of one call, D channels, L levels, K codes of a level.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from samtok_data.words import MISSING


@dataclass(frozen=True, slots=True, eq=False)
class Quantized:
    """Vectors after quantisation, with what training needs.

    Attributes:
        embedding_ND: the vectors of the codes, to the bit what ``decode`` gives; gradients pass on to z.
        codes_NL: int64, (N, L), each in ``0 .. K - 1``.
        commitment_N: (N,), at least 0: how far each z is from its codes' rows, with gradient to z alone.
    """

    embedding_ND: Tensor
    codes_NL: Tensor
    commitment_N: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class CodebookUse:
    """Which codes a batch of all workers used. Figures are computed when asked for: until then no GPU is waited for.

    Attributes:
        counts_LK: int64, (L, K), vectors that chose a code.
        restarted_L: int64, (L,), rows of the level's codebook that were restarted; levels that share a codebook
            show the same number.
    """

    counts_LK: Tensor
    restarted_L: Tensor

    @property
    def used(self) -> tuple[int, ...]:
        """Distinct codes of each level, in ``0 .. K``."""
        return tuple((self.counts_LK > 0).sum(dim=1).tolist())

    @property
    def perplexity(self) -> tuple[float, ...]:
        """Of each level exp of the entropy of the codes' frequencies, in ``1 .. K``; 0 for a batch without vectors."""
        total_L1 = self.counts_LK.sum(dim=1, keepdim=True)
        share_LK = self.counts_LK.double() / total_L1.clamp(min=1)
        entropy_L = -torch.special.xlogy(share_LK, share_LK).sum(dim=1)
        return tuple((entropy_L.exp() * (total_L1[:, 0] > 0)).tolist())

    @property
    def restarted(self) -> tuple[int, ...]:
        """Restarted rows of each level's codebook."""
        return tuple(self.restarted_L.tolist())


class Quantizer(nn.Module, ABC):
    """Codes of vectors, and vectors of codes. ``build_quantizer`` makes the one that a configuration asks for.

    Args:
        codebook_size: K, codes of a level.
        depth: L, levels.
        channels: D.
    """

    def __init__(self, codebook_size: int, depth: int, channels: int) -> None:
        super().__init__()
        self.codebook_size = codebook_size
        self.depth = depth
        self.channels = channels

    @abstractmethod
    def encode(self, z_ND: Tensor) -> Tensor:
        """The codes of vectors.

        Args:
            z_ND: (N, D), of any floating type; computed in the quantiser's own.

        Returns:
            int64, (N, L), each in ``0 .. K - 1``.
        """

    @abstractmethod
    def decode(self, codes_NL: Tensor) -> Tensor:
        """The vectors of codes. A level that is ``MISSING`` contributes nothing.

        Args:
            codes_NL: int64, (N, L), each in ``0 .. K - 1`` or ``MISSING``; not changed.

        Returns:
            (N, D) in the quantiser's type.

        Raises:
            ValueError: another number of levels, or a code out of range.
        """

    @abstractmethod
    def quantize(self, z_ND: Tensor) -> Quantized:
        """Codes and vectors for a training step. Changes no state; asks no other worker.

        Args:
            z_ND: (N, D), of any floating type; computed in the quantiser's own, under autocast too.
        """

    @abstractmethod
    def update(self, z_ND: Tensor, *, decay: float = 0.99, seed: int) -> CodebookUse:
        """Takes one step of what is not learnt by gradients. All workers call it, once for each optimiser step.

        Where torch.distributed is initialised, the vectors of all workers are one batch, in the order of ranks;
        every worker computes the same step, so their quantisers stay equal to the bit. A batch without any
        vectors changes nothing.

        Args:
            z_ND: (N, D), finite: the vectors that this worker has of the global batch; N may differ, and be 0.
            decay: share that a moving average keeps, in 0 .. 1.
            seed: of what is drawn in this step: another for each step, the same on all workers.

        Returns:
            The codes that the global batch used, chosen before the step.
        """

    def _check_codes(self, codes_NL: Tensor) -> None:
        if codes_NL.ndim != 2 or codes_NL.shape[1] != self.depth:
            raise ValueError(f"expected codes of shape (N, {self.depth}), got {tuple(codes_NL.shape)}")
        wrong = codes_NL[(codes_NL < MISSING) | (codes_NL >= self.codebook_size)]
        if wrong.numel():
            raise ValueError(f"expected codes in 0..{self.codebook_size - 1} or {MISSING}, got {int(wrong[0])}")


def count_codes(codes_NL: Tensor, codebook_size: int) -> Tensor:
    """How many of N vectors chose each code of each level: int64, (L, K)."""
    counts_LK = codes_NL.new_zeros(codes_NL.shape[1], codebook_size)
    # Not bincount, which waits for the GPU to learn the largest code. Sums of integers do not depend on the order.
    return counts_LK.scatter_add_(1, codes_NL.T, torch.ones_like(codes_NL.T))
