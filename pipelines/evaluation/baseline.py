"""The image-blind codebook: what two codes say of a mask when nobody looks at the image.

Masks of the training set, resized whole to a small grid, are clustered twice: the shapes themselves, then what the
nearest rows leave of them. A mask's word is the nearest row of each level, its reconstruction their sum. A tokenizer
that looks at the image has to beat this by far; one that does not has learned shapes and places only.

Letters: M training masks, L levels, K rows of a level, P side of the grid.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from vector_quantize_pytorch import ResidualVQ

from converters.masks.source import MaskSource
from pipelines.evaluation.progress import SourceProgress
from pipelines.evaluation.rejects import RejectLog
from pipelines.evaluation.resizing import Grid, mask_tensor, shrunk
from samtok_data.errors import SetupError
from samtok_data.masks import RLE
from samtok_data.rejects import Reject
from samtok_data.words import MaskVocabulary

SIDE = 64
ROWS = 256
LEVELS = 2
# Of k-means. On BSDS500's training masks 50 lower the squared error by 2 % against 10, and the IoU rises by 0.002.
ITERATIONS = 20
# Held in memory: 80 MB as bytes; the process has 3.4 GB while it clusters them (tens of seconds on two cores).
MOST_MASKS = 20_000
# How many are looked at to draw these: a mix of millions is sampled from some of its units, not read to its end.
MOST_SEEN = 1_000_000

_Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class ShapeCodebook:
    """A residual codebook of whole-image mask shapes.

    Attributes:
        rows_LKD: float32, (L, K, P * P).
        side: P.
    """

    rows_LKD: NDArray[np.float32]
    side: int

    @property
    def vocabulary(self) -> MaskVocabulary:
        """The size of its words."""
        depth, codebook_size, _ = self.rows_LKD.shape
        return MaskVocabulary(codebook_size, depth)

    @classmethod
    def fit(cls, shapes_MPP: _Bytes, *, seed: int, rows: int = ROWS, levels: int = LEVELS) -> ShapeCodebook:
        """Clusters shapes; the same ones for the same seed. On the CPU, whatever the machine has.

        Args:
            shapes_MPP: uint8, (M, P, P), 255 where the mask covers a cell; M is at least ``rows``.
            seed: of the first rows, which are drawn from the shapes.
            rows: K.
            levels: L.

        Raises:
            ValueError: fewer shapes than rows.
        """
        number, side, _ = shapes_MPP.shape
        if number < rows:
            raise ValueError(f"expected at least {rows} shapes for as many rows, got {number}")
        shapes_1MD = torch.from_numpy(shapes_MPP.reshape(1, number, -1)).float() / 255
        with torch.random.fork_rng(devices=[]), torch.inference_mode():  # the caller's generator stays as it was
            torch.manual_seed(seed)
            quantiser = ResidualVQ(
                dim=side * side,
                num_quantizers=levels,
                codebook_size=rows,
                kmeans_init=True,
                kmeans_iters=ITERATIONS,
            )
            # The first pass clusters. Frozen, else it would also move the rows after their residuals were taken.
            quantiser.train()(shapes_1MD, freeze_codebook=True)
        return cls(cast("Tensor", quantiser.codebooks).numpy().copy(), side)

    def reconstruct(self, grid_PP: Grid) -> tuple[NDArray[np.int64], Grid]:
        """The word of a mask, and what it decodes to.

        Args:
            grid_PP: ``shrunk`` to ``side``; not changed.

        Returns:
            int64, (L,), and float32, (P, P): to be resized to the image and cut at a half.
        """
        residual_D = grid_PP.reshape(-1).copy()
        codes = []
        for rows_KD in self.rows_LKD:
            codes.append(((rows_KD - residual_D) ** 2).sum(axis=1).argmin())
            residual_D -= rows_KD[codes[-1]]
        decoded_D = sum((rows_KD[code] for rows_KD, code in zip(self.rows_LKD, codes, strict=True)), np.float32(0))
        return np.array(codes, np.int64), np.asarray(decoded_D, np.float32).reshape(grid_PP.shape)


@dataclass(frozen=True, slots=True)
class ShapeSample:
    """Training masks, drawn from a mix.

    Attributes:
        shapes_MPP: uint8, (M, P, P), 255 where the mask covers a cell.
        seen: masks that they were drawn from.
        rejects: what could not be read meanwhile.
    """

    shapes_MPP: _Bytes
    seen: int
    rejects: RejectLog


def sample_shapes(
    sources: Sequence[MaskSource],
    *,
    seed: int,
    most: int = MOST_MASKS,
    most_seen: int = MOST_SEEN,
    side: int = SIDE,
    progress: SourceProgress | None = None,
) -> ShapeSample:
    """Draws masks, each with the same chance; pictures are not opened.

    Units are read in an order by the seed. If they hold more than ``most_seen`` masks, the rest is not looked at.

    Args:
        sources: of the mix; their weights do not count.
        seed: of the order and the draw.
        most: masks that are kept.
        most_seen: masks that are looked at.
        side: P.
        progress: of the units of all sources.

    Raises:
        SetupError: the sources cannot be read, or hold fewer masks than a level has rows.
    """
    draw = random.Random(f"{seed}/baseline")
    kept: list[_Bytes] = []
    rejects = RejectLog()
    seen = 0
    for rle in _masks(_units(sources, draw), rejects, progress):
        place = draw.randrange(seen + 1) if len(kept) == most else len(kept)
        seen += 1
        if place < most:
            shape_PP = (shrunk(mask_tensor(rle), side) * 255).round().to(torch.uint8).numpy()
            kept[place : place + 1] = [shape_PP]
        if seen == most_seen:
            break
    if len(kept) < ROWS:
        names = ", ".join(source.name for source in sources)
        raise SetupError(
            f"--baseline-mix: a codebook of {ROWS} rows wants at least as many masks, {names} have {len(kept)}"
        )
    return ShapeSample(np.stack(kept), seen, rejects)


def _units(sources: Sequence[MaskSource], draw: random.Random) -> Iterator[tuple[MaskSource, int]]:
    """Every unit of every source once, in an order of the generator's."""
    starts = np.cumsum([0, *(source.num_units for source in sources)])
    order = np.random.default_rng(draw.getrandbits(64)).permutation(starts[-1])
    for number in order:
        place = int(np.searchsorted(starts, number, side="right")) - 1
        yield sources[place], int(number - starts[place])


def _masks(
    units: Iterable[tuple[MaskSource, int]], rejects: RejectLog, progress: SourceProgress | None
) -> Iterator[RLE]:
    for source, unit in units:
        for one in source.read(unit):
            if isinstance(one, Reject):
                rejects.add(one)
                continue
            yield from (region.rle for region in one.scene.regions)
            if progress is not None:
                progress.add(len(one.scene.regions))
        if progress is not None:
            progress.did()
