"""The residual quantiser: a vector becomes ``depth`` codes, each the nearest row to what the codes before left.

Letters: N vectors, M vectors of all workers, D channels, L levels, K codes of a level. Source: SAMTok, section 3
(residual vector quantisation, arXiv 2203.01941); the key names are those of the published checkpoint. With one level
it is plain vector quantisation.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from samtok_data.words import MISSING
from tokenizer_model.quantizers.base import CodebookUse, Quantized, Quantizer, count_codes
from tokenizer_model.quantizers.workers import gather_rows

# As the published training has them.
_SMOOTHING = 1e-5  # added to each count, so that none is 0
_LEAST_COUNT = 1.0  # a row with a moving count below this is restarted
_NOISE = 0.01  # length that the noise on a repeated vector stays below


class Codebook(nn.Module):
    """The rows of one level, and the moving averages that they are made of.

    Args:
        codebook_size: K, rows that can be chosen.
        channels: D.

    Attributes:
        weight: (K + 1, D); the last row is padding, it is never chosen, never decoded and never changed. A
            parameter without gradient: ``update`` makes it, not the optimiser.
        cluster_size_ema: (K,), moving count of the vectors that chose a row. Training state.
        embed_ema: (K, D), moving sum of those vectors. Training state.
    """

    weight: nn.Parameter
    cluster_size_ema: Tensor
    embed_ema: Tensor

    def __init__(self, codebook_size: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(codebook_size + 1, channels), requires_grad=False)
        self.register_buffer("cluster_size_ema", torch.zeros(codebook_size))
        self.register_buffer("embed_ema", self.weight.detach()[:-1].clone())

    @property
    def rows_KD(self) -> Tensor:
        """The rows that stand for a code."""
        return self.weight[:-1]

    @torch.no_grad()
    def update(self, inputs_MD: Tensor, code_M: Tensor, decay: float, generator: torch.Generator) -> Tensor:
        """Moves the averages on by one batch, restarts rows that are hardly chosen, and makes the rows anew.

        Args:
            inputs_MD: (M, D), M at least 1, what was to be coded.
            code_M: int64, (M,), the row that each chose.
            decay: share that the averages keep.
            generator: on the CPU; draws which inputs unused rows are restarted from. It is drawn from as much
                whether rows are unused or not, so the GPU need not be asked.

        Returns:
            int64, (): restarted rows.
        """
        drawn_KD = self._drawn(inputs_MD, generator)
        rows_K = torch.arange(len(self.embed_ema), device=code_M.device)
        chosen_KM = code_M == rows_K.unsqueeze(1)
        # A product in double: scattered additions on a GPU sum in any order, and float32 products may be rounded
        # to TF32. Workers must agree to the bit.
        sums_KD = chosen_KM.double() @ inputs_MD.double()
        counts_K = chosen_KM.sum(dim=1)
        self.cluster_size_ema.mul_(decay).add_(counts_K.to(self.cluster_size_ema), alpha=1 - decay)
        self.embed_ema.mul_(decay).add_(sums_KD.to(self.embed_ema), alpha=1 - decay)

        unused_K = self.cluster_size_ema < _LEAST_COUNT
        self.embed_ema.copy_(torch.where(unused_K.unsqueeze(1), drawn_KD, self.embed_ema))
        self.cluster_size_ema.masked_fill_(unused_K, 1.0)

        total = self.cluster_size_ema.sum()
        smoothed_K = total * (self.cluster_size_ema + _SMOOTHING) / (total + len(rows_K) * _SMOOTHING)
        self.weight[:-1].copy_(self.embed_ema / smoothed_K.unsqueeze(1))
        return unused_K.sum()

    def _drawn(self, inputs_MD: Tensor, generator: torch.Generator) -> Tensor:
        """K of the inputs, none twice; where there are fewer, all are repeated and the repetitions told apart."""
        num_rows, channels = self.embed_ema.shape
        copies = -(-num_rows // len(inputs_MD))
        chosen_K = torch.randperm(copies * len(inputs_MD), generator=generator)[:num_rows] % len(inputs_MD)
        drawn_KD = inputs_MD[chosen_K.to(inputs_MD.device, non_blocking=True)]
        if copies == 1:
            return drawn_KD
        noise_KD = torch.rand(num_rows, channels, generator=generator).to(drawn_KD, non_blocking=True)
        return drawn_KD + noise_KD * (_NOISE / math.sqrt(channels))


class ResidualQuantizer(Quantizer):
    """Codes by nearest rows, level after level; the vector of the codes is the sum of the rows.

    State: ``codebooks.N.weight``, ``codebooks.N.cluster_size_ema`` and ``codebooks.N.embed_ema``, N from 0 to
    L - 1; where the codebook is shared, N is 0 alone.

    Args:
        codebook_size: K, codes of a level.
        depth: L, levels.
        channels: D.
        shared: whether all levels choose from one codebook.
    """

    def __init__(self, codebook_size: int, depth: int, channels: int, *, shared: bool = False) -> None:
        super().__init__(codebook_size, depth, channels)
        self.shared = shared
        self.codebooks = nn.ModuleList(Codebook(codebook_size, channels) for _ in range(1 if shared else depth))

    @torch.no_grad()
    def encode(self, z_ND: Tensor) -> Tensor:
        """The codes of vectors: at each level the row with the least squared distance to the residual.

        Args:
            z_ND: (N, D), of any floating type; distances are taken in the codebooks' own.

        Returns:
            int64, (N, L), each in ``0 .. K - 1``.
        """
        return self._coded(z_ND)[0]

    def decode(self, codes_NL: Tensor) -> Tensor:
        """The vectors of codes: the sum of the rows. A level that is ``MISSING`` contributes nothing.

        Args:
            codes_NL: int64, (N, L), each in ``0 .. K - 1`` or ``MISSING``; not changed.

        Returns:
            (N, D) in the codebooks' type.

        Raises:
            ValueError: another number of levels, or a code out of range.
        """
        self._check_codes(codes_NL)
        levels = []
        for level in range(self.depth):
            code_N = codes_NL[:, level]
            present_N1 = (code_N != MISSING).unsqueeze(1)
            levels.append(self._rows(level)[code_N.clamp(min=0)] * present_N1)
        return torch.stack(levels).sum(dim=0)

    def quantize(self, z_ND: Tensor) -> Quantized:
        """Codes and vectors for a training step. Changes no state; asks no other worker.

        The embedding's gradient goes to z as it is (straight-through). The commitment of a vector is the mean over
        levels and channels of (z - sg(sum of the rows up to the level))^2, arXiv 2203.01941 eq. 7.

        Args:
            z_ND: (N, D), of any floating type; computed in the codebooks' own, under autocast too.
        """
        with torch.autocast(z_ND.device.type, enabled=False):
            z_ND = z_ND.to(self._rows(0).dtype)
            with torch.no_grad():
                codes_NL, _ = self._coded(z_ND)
                rows_LND = torch.stack([self._rows(level)[codes_NL[:, level]] for level in range(self.depth)])
                sums_LND = rows_LND.cumsum(dim=0)
                embedding_ND = rows_LND.sum(dim=0)
            commitment_N = (z_ND - sums_LND).square().mean(dim=(0, 2))
            # z - z is exactly 0: the value is what decode gives, the gradient is z's.
            return Quantized(embedding_ND + (z_ND - z_ND.detach()), codes_NL, commitment_N)

    @torch.no_grad()
    def update(self, z_ND: Tensor, *, decay: float = 0.99, seed: int) -> CodebookUse:
        """One step of the moving averages, over the vectors of all workers; see ``Quantizer.update``.

        All levels are coded with the rows as they were. Then each codebook: moving counts and sums of the vectors
        that chose a row; rows with a count below 1 get a random input of the level as sum and 1 as count; each row
        becomes its sum divided by its count, smoothed as n (c + eps) / (n + K eps), n the sum of the counts c.

        A shared codebook takes the inputs of all levels as one batch, in one step, so no level comes last. (The
        published code takes a step for each level, and the rows differ between them.)

        Args:
            z_ND: (N, D), finite: the vectors that this worker has of the global batch; N may differ, and be 0.
            decay: share that a moving average keeps, in 0 .. 1.
            seed: of the inputs that unused rows are restarted from: another for each step, the same on all workers.

        Returns:
            The codes that the global batch used, chosen before the step.
        """
        with torch.autocast(z_ND.device.type, enabled=False):
            z_MD = gather_rows(z_ND.to(self._rows(0).dtype))
            codes_ML, inputs = self._coded(z_MD)
            restarted = codes_ML.new_zeros(len(self.codebooks))
            if len(z_MD):
                restarted = self._update_codebooks(codes_ML, inputs, decay, seed)
            return CodebookUse(count_codes(codes_ML, self.codebook_size), restarted.expand(self.depth))

    def _update_codebooks(self, codes_ML: Tensor, inputs: list[Tensor], decay: float, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        codes = list(codes_ML.unbind(dim=1))
        if self.shared:
            codes, inputs = [torch.cat(codes)], [torch.cat(inputs)]
        return torch.stack([
            cast("Codebook", codebook).update(inputs_MD, code_M, decay, generator)
            for codebook, inputs_MD, code_M in zip(self.codebooks, inputs, codes, strict=True)
        ])

    def _coded(self, z_ND: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The codes, (N, L), and of each level what it had to code, (N, D)."""
        codes, inputs = [], []
        residual_ND = z_ND.to(self._rows(0).dtype)
        for level in range(self.depth):
            rows_KD = self._rows(level)
            # The matrix form of the distance cancels: its error would exceed the gap between close rows.
            distances_NK = torch.cdist(residual_ND, rows_KD, compute_mode="donot_use_mm_for_euclid_dist")
            code_N = distances_NK.argmin(dim=1)
            inputs.append(residual_ND)
            codes.append(code_N)
            residual_ND = residual_ND - rows_KD[code_N]
        return torch.stack(codes, dim=1), inputs

    def _rows(self, level: int) -> Tensor:
        return cast("Codebook", self.codebooks[0 if self.shared else level]).rows_KD
