"""How Pillow resizes 8-bit pictures, bicubic: the whole numbers that it multiplies pixels with.

Where the network runs on a GPU, pictures are resized there, to the same bytes. One pass over columns and one over rows,
each rounded to 8 bits; weights in fixed point with 22 bits behind the point. Columns come first up to Pillow 12; from
13 on, rows do for some sizes. Source: Pillow's src/libImaging/Resample.c.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

PRECISION_BITS = 22
_SUPPORT = 2.0  # pixels on either side of a place, where nothing is made smaller
_SHARPNESS = -0.5  # a of Keys' cubic


class BicubicAxis:
    """The pixels of a length L that make each of S places, and their weights.

    Attributes:
        firsts_S: int32: the first pixel of each place.
        weights_SK: int32: of the K pixels from it on; zero behind the last that counts.
    """

    def __init__(self, length: int, side: int) -> None:
        scale = length / side
        stretch = max(scale, 1.0)
        support = _SUPPORT * stretch
        centres_S = (np.arange(side) + 0.5) * scale
        firsts_S = np.maximum((centres_S - support + 0.5).astype(np.int64), 0)
        afters_S = np.minimum((centres_S + support + 0.5).astype(np.int64), length)
        pixels_SK = firsts_S[:, None] + np.arange(int((afters_S - firsts_S).max()))
        weights_SK = _cubic((pixels_SK - centres_S[:, None] + 0.5) * (1.0 / stretch))
        weights_SK = np.where(pixels_SK < afters_S[:, None], weights_SK, 0.0)
        weights_SK /= np.cumsum(weights_SK, axis=1)[:, -1:]  # one after the other, as Pillow adds them
        fixed_SK = np.trunc(weights_SK * (1 << PRECISION_BITS) + np.copysign(0.5, weights_SK))
        self.firsts_S: NDArray[np.int32] = firsts_S.astype(np.int32)
        self.weights_SK: NDArray[np.int32] = fixed_SK.astype(np.int32)

    @classmethod
    @functools.lru_cache(maxsize=64)
    def of(cls, length: int, side: int) -> BicubicAxis:
        """The one of a length, made once."""
        return cls(length, side)


def _cubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    x, a = np.abs(distance), _SHARPNESS
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
