"""Finite scalar quantisation (arXiv 2309.15505): a vector becomes a few scalars, each rounded to a few values.

Letters: N vectors, M vectors of all workers, D channels, K codes, S scalars. The rounding, its gradient and the
projections from D to S and back are vector-quantize-pytorch's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from samtok_data.errors import SetupError
from samtok_data.words import MISSING
from tokenizer_model.quantizers.base import CodebookUse, Quantized, Quantizer, count_codes
from tokenizer_model.quantizers.workers import gather_rows

if TYPE_CHECKING:
    from vector_quantize_pytorch import FSQ


class FiniteScalarQuantizer(Quantizer):
    """One code for a vector: the number of the cell of a grid that its projection falls in. It has no codebook.

    State: ``fsq.project_in.{weight,bias}`` and ``fsq.project_out.{weight,bias}``, learnt by gradients; nothing where
    S = D.

    Args:
        levels: values of each of the S scalars, each at least 3; K is their product.
        channels: D.

    Raises:
        SetupError: vector-quantize-pytorch is not installed.
    """

    def __init__(self, levels: tuple[int, ...], channels: int) -> None:
        # Imported here: it takes a second, and only those who ask for this quantiser need to have it.
        try:
            from vector_quantize_pytorch import FSQ
        except ImportError as error:
            raise SetupError(
                "the quantizer fsq needs vector-quantize-pytorch, which is not installed: "
                "pip install 'samtok-data[train]'"
            ) from error
        fsq = FSQ(levels=list(levels), dim=channels)
        super().__init__(int(fsq.codebook_size), 1, channels)
        self.fsq: FSQ = fsq

    @torch.no_grad()
    def encode(self, z_ND: Tensor) -> Tensor:
        """The codes of vectors; see ``Quantizer.encode``.

        Args:
            z_ND: (N, D), of any floating type; computed in the projections' own.

        Returns:
            int64, (N, 1), each in ``0 .. K - 1``.
        """
        return self._rounded(z_ND)[1]

    def decode(self, codes_NL: Tensor) -> Tensor:
        """The vectors of codes. ``MISSING`` is the zero vector, as where a residual quantiser lacks all its levels.

        Args:
            codes_NL: int64, (N, 1), each in ``0 .. K - 1`` or ``MISSING``; not changed.

        Returns:
            (N, D) in the projections' type.

        Raises:
            ValueError: another number of levels, or a code out of range.
        """
        self._check_codes(codes_NL)
        return self._vectors(codes_NL[:, 0])

    def quantize(self, z_ND: Tensor) -> Quantized:
        """Codes and vectors for a training step; see ``Quantizer.quantize``. The commitment is 0.

        The gradient passes the rounding as it is (straight-through); before and after it, it goes through the
        bounding tanh and the projections, which learn by it. So z's gradient is not the embedding's.

        Args:
            z_ND: (N, D), of any floating type; computed in the projections' own, under autocast too.
        """
        with torch.autocast(z_ND.device.type, enabled=False):
            through_ND, codes_NL = self._rounded(z_ND)
            with torch.no_grad():
                vectors_ND = self._vectors(codes_NL[:, 0])
            # The value is decode's, to the bit. Decode reads a table of cells that was made in float32; with weights
            # in float64 the library's own value is not quite the same.
            embedding_ND = vectors_ND + (through_ND - through_ND.detach())
            return Quantized(embedding_ND, codes_NL, vectors_ND.new_zeros(len(z_ND)))

    @torch.no_grad()
    def update(self, z_ND: Tensor, *, decay: float = 0.99, seed: int) -> CodebookUse:
        """Which codes all workers' vectors fall on; there is nothing to change, and nothing restarts.

        Args:
            z_ND: (N, D), finite: the vectors that this worker has of the global batch; N may differ, and be 0.
            decay: not used.
            seed: not used.

        Returns:
            The codes that the global batch used.
        """
        with torch.autocast(z_ND.device.type, enabled=False):
            codes_ML = self._rounded(gather_rows(z_ND.to(self._kind)))[1]
            return CodebookUse(count_codes(codes_ML, self.codebook_size), codes_ML.new_zeros(1))

    def _rounded(self, z_ND: Tensor) -> tuple[Tensor, Tensor]:
        """The library's vectors, (N, D), with gradient, and the codes, int64, (N, 1)."""
        vectors_1ND, code_1N = self.fsq(z_ND.to(self._kind).unsqueeze(0))
        return vectors_1ND[0], code_1N[0].long().unsqueeze(1)

    def _vectors(self, code_N: Tensor) -> Tensor:
        present_N1 = (code_N != MISSING).unsqueeze(1)
        # Not the library's indices_to_codes, which is float32 whatever the projections are.
        return self.fsq.project_out(self._grid_KS[code_N.clamp(min=0)]) * present_N1

    @property
    def _grid_KS(self) -> Tensor:
        return cast("Tensor", self.fsq.implicit_codebook)

    @property
    def _kind(self) -> torch.dtype:
        return self._grid_KS.dtype
