"""Mask prompts from pieces: the full mask never stands in memory.

A prompt is the mask resized to a small square, bilinear with antialias: prompt = Wy M Wx', with a row of weights for
each row and column of the square. A column of M is a few pieces, and Wy times a piece from row a up to row b is a
difference of two rows of Wy's running sums. So only the ends of pieces count, and of the square only what the mask can
reach.

Letters: P side of the square; H, W of the image; k columns of the image that the mask reaches; r pieces of the mask.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from tokenizer_model.pieces import MaskPieces

Floats = NDArray[np.float32]


def draw_prompt(pieces: MaskPieces, mask: int, size: tuple[int, int], side: int) -> Floats:
    """The prompt of one mask.

    Args:
        pieces: of the masks of an image.
        mask: number of the mask.
        size: (H, W).
        side: P.

    Returns:
        float32, (P, P), 0 to 1: as torch's ``interpolate(mode="bilinear", antialias=True)`` of the full mask, but for
        rounding (1e-6).
    """
    height, width = size
    rows, columns = Axis.of(height, side), Axis.of(width, side)
    starts_k = pieces.column_starts[pieces.mask_starts[mask] : pieces.mask_starts[mask + 1] + 1]
    tops_r, afters_r = pieces.tops[starts_k[0] : starts_k[-1]], pieces.afters[starts_k[0] : starts_k[-1]]
    x0, x1 = int(pieces.lefts[mask]), int(pieces.lefts[mask]) + len(starts_k) - 1
    j0, j1 = rows.reached(int(tops_r.min()), int(afters_r.max()))
    i0, i1 = columns.reached(x0, x1)
    below_LP = rows.suffix_LP[:, j0:j1]
    filled = np.flatnonzero(np.diff(starts_k))
    columns_kP = np.zeros((x1 - x0, j1 - j0), np.float32)
    columns_kP[filled] = np.add.reduceat(below_LP[tops_r] - below_LP[afters_r], starts_k[filled] - starts_k[0], axis=0)
    prompt_PP = np.zeros((side, side), np.float32)
    prompt_PP[j0:j1, i0:i1] = np.clip((columns.weights_PL[i0:i1, x0:x1] @ columns_kP).T, 0, 1)
    return prompt_PP


class Axis:
    """The weights with which a length L is resized to P, bilinear with antialias, as torch and PIL have them.

    Attributes:
        reach: pixels on either side of a place of the square that count for it.
        weights_PL: float32; each row sums to 1.
        suffix_LP: float32, (L + 1, P): sums of the weights from a place on.
    """

    def __init__(self, length: int, side: int) -> None:
        self.length, self.side = length, side
        self._scale = length / side
        self.reach = max(self._scale, 1.0)
        centres_P1 = self._scale * (np.arange(side)[:, None] + 0.5)
        low_P1 = np.maximum((centres_P1 - self.reach + 0.5).astype(np.int64), 0)
        high_P1 = np.minimum((centres_P1 + self.reach + 0.5).astype(np.int64), length)
        places_L = np.arange(length)
        weights_PL = np.maximum(1 - np.abs((places_L + 0.5 - centres_P1) / self.reach), 0)
        weights_PL = np.where((places_L >= low_P1) & (places_L < high_P1), weights_PL, 0)
        weights_PL /= weights_PL.sum(axis=1, keepdims=True)
        self.weights_PL: Floats = weights_PL.astype(np.float32)
        suffix_LP = np.zeros((length + 1, side))
        suffix_LP[:-1] = np.cumsum(weights_PL[:, ::-1], axis=1)[:, ::-1].T
        self.suffix_LP: Floats = suffix_LP.astype(np.float32)

    @classmethod
    @functools.lru_cache(maxsize=32)  # 4 MB for 2,250 pixels; images of one source are of few sizes
    def of(cls, length: int, side: int) -> Axis:
        """The one of a length, made once."""
        return cls(length, side)

    def reached(self, first: int, after: int) -> tuple[int, int]:
        """The places of the square, first and one past the last, that places of the length may reach; these, too, from
        the first up to one past the last."""
        low = int((first - self.reach) / self._scale) - 1
        high = int((after + self.reach) / self._scale) + 2
        return max(low, 0), min(high, self.side)
