"""Mask prompts from run lengths: the full mask never stands in memory.

A prompt is the mask resized to a small square, bilinear with antialias: prompt = Wy M Wx', with a row of weights for
each row and column of the square. A column of M is a few runs, and Wy times a run from row a to row b is a difference
of two rows of Wy's running sums. So only the ends of runs count, and of the square only what the mask can reach.

Letters: P side of the square; H, W of the image; k columns of the image that the mask reaches; r runs of foreground.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from samtok_data.many_masks import unpack_runs
from samtok_data.masks import RLE

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def prompts_of(regions: Sequence[RLE], side: int) -> tuple[Floats, Floats]:
    """Prompts and boxes of the masks of an image.

    Args:
        regions: of one size, with sound runs that end at the last pixel, none of them empty.
        side: P.

    Returns:
        float32, (n, P, P), 0 to 1: as torch's ``interpolate(mode="bilinear", antialias=True)`` of the full masks, but
        for rounding (1e-6); and float32, (n, 4): ``masks.prompt_box`` of each.

    Raises:
        ValueError: a mask without foreground.
    """
    prompts_NPP = np.zeros((len(regions), side, side), np.float32)
    boxes_N4 = np.empty((len(regions), 4), np.float32)
    runs_r, ends_n, _ = unpack_runs([rle.counts.encode("ascii") for rle in regions])
    start = 0
    for index, (rle, end) in enumerate(zip(regions, ends_n.tolist(), strict=True)):
        edges_r = np.cumsum(runs_r[start:end])  # foreground from edge 0 to 1, 2 to 3, ...
        firsts, afters = edges_r[0::2], edges_r[1::2]
        if not (afters > firsts[: len(afters)]).any():
            raise ValueError(f"region {index}: expected a mask with foreground pixels, got an empty one")
        boxes_N4[index] = _draw(firsts[: len(afters)], afters, rle, prompts_NPP[index])
        start = end
    return prompts_NPP, boxes_N4


def _draw(firsts: Ints, afters: Ints, rle: RLE, prompt_PP: Floats) -> tuple[float, float, float, float]:
    """Draws the runs of foreground, by their first pixels and those behind their last; gives the box."""
    some = afters > firsts
    firsts, lasts = firsts[some], afters[some] - 1
    height, width, side = rle.height, rle.width, len(prompt_PP)
    left_r, top_r = np.divmod(firsts, height)
    right_r, bottom_r = np.divmod(lasts, height)
    x0, x1 = int(left_r[0]), int(right_r[-1])
    spans = right_r > left_r  # such a run goes on in the next column
    y0, y1 = (0, height - 1) if spans.any() else (int(top_r.min()), int(bottom_r.max()))
    rows, columns = _Axis.of(height, side), _Axis.of(width, side)
    j0, j1 = rows.reached(y0, y1)
    i0, i1 = columns.reached(x0, x1)
    below = rows.below(j0, j1)
    columns_kP = np.zeros((x1 - x0 + 1, j1 - j0), np.float32)
    _add(columns_kP, left_r - x0, below[top_r])
    _add(columns_kP, right_r - x0, -below[bottom_r + 1])
    if spans.any():
        begun = np.zeros(x1 - x0 + 2, np.int64)
        np.add.at(begun, left_r[spans] - x0 + 1, 1)
        np.add.at(begun, right_r[spans] - x0 + 1, -1)
        columns_kP += np.cumsum(begun)[:-1, None] * below[0]
    weights_Pk = columns.weights_PL[i0:i1, x0 : x1 + 1]
    prompt_PP[j0:j1, i0:i1] = np.clip((weights_Pk @ columns_kP).T, 0, 1)
    return x0 / width, y0 / height, x1 / width, y1 / height


def _add(columns_kP: Floats, places_r: Ints, rows_rP: Floats) -> None:
    """Adds rows to columns, which are named in ascending order."""
    firsts = np.flatnonzero(np.diff(places_r, prepend=-1))
    columns_kP[places_r[firsts]] += np.add.reduceat(rows_rP, firsts, axis=0)


class _Axis:
    """The weights with which a length L is resized to P, bilinear with antialias, as torch and PIL have them.

    Attributes:
        weights_PL: float32; each row sums to 1.
        suffix_LP: float32, (L + 1, P): sums of the weights from a place on.
    """

    def __init__(self, length: int, side: int) -> None:
        self.length, self.side = length, side
        self._scale = length / side
        self._reach = max(self._scale, 1.0)
        centres_P1 = self._scale * (np.arange(side)[:, None] + 0.5)
        low_P1 = np.maximum((centres_P1 - self._reach + 0.5).astype(np.int64), 0)
        high_P1 = np.minimum((centres_P1 + self._reach + 0.5).astype(np.int64), length)
        places_L = np.arange(length)
        weights_PL = np.maximum(1 - np.abs((places_L + 0.5 - centres_P1) / self._reach), 0)
        weights_PL = np.where((places_L >= low_P1) & (places_L < high_P1), weights_PL, 0)
        weights_PL /= weights_PL.sum(axis=1, keepdims=True)
        self.weights_PL: Floats = weights_PL.astype(np.float32)
        suffix_LP = np.zeros((length + 1, side))
        suffix_LP[:-1] = np.cumsum(weights_PL[:, ::-1], axis=1)[:, ::-1].T
        self.suffix_LP: Floats = suffix_LP.astype(np.float32)

    @classmethod
    @functools.lru_cache(maxsize=32)  # 4 MB for 2,250 pixels; images of one source are of few sizes
    def of(cls, length: int, side: int) -> _Axis:
        """The one of a length, made once."""
        return cls(length, side)

    def reached(self, first: int, last: int) -> tuple[int, int]:
        """The places of the square, first and one past the last, that some places of the length may reach."""
        low = int((first - self._reach) / self._scale) - 1
        high = int((last + 1 + self._reach) / self._scale) + 2
        return max(low, 0), min(high, self.side)

    def below(self, first: int, after: int) -> Floats:
        """``suffix_LP`` of some places of the square."""
        return self.suffix_LP[:, first:after]
