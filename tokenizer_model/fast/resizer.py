"""Pictures brought to the network's square on the GPU, or where nobody knows how by Pillow.

Letters: S side of the square, H and W of a picture.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tokenizer_model.fast.pictures import BicubicTables, resize
from tokenizer_model.inputs import Prepared
from tokenizer_model.resizing import BicubicAxis


class Resizer:
    """Resizes pictures as the installed Pillow does it, to the bit: of each size, one picture is held against it.

    Args:
        side: S.
        device: that resizes.
    """

    def __init__(self, side: int, device: torch.device) -> None:
        self._side, self._device = side, device
        self._axis = functools.lru_cache(maxsize=256)(self._make_axis)
        # Of each (H, W) whether rows come first; None: neither way is Pillow's, which has to do it.
        self._rows_first: dict[tuple[int, int], bool | None] = {}

    def wanted(self, image: Prepared) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        """What is to be sent: pixels, and where nothing is known of their size what Pillow makes of them."""
        if self._rows_first.get(image.size, False) is None:
            return image.square, None
        is_known = image.size in self._rows_first or image.pixels.shape[0] == image.pixels.shape[1] == self._side
        return image.pixels, None if is_known else image.square

    def place(self, pixels_HW3: Tensor, resized_SS3: Tensor | None, out_SS3: Tensor) -> None:
        """Resizes a picture, or copies it where it has been resized."""
        if pixels_HW3.shape == out_SS3.shape:
            out_SS3.copy_(pixels_HW3)
            return
        if resized_SS3 is not None:
            self._learn(pixels_HW3, resized_SS3, out_SS3)
            out_SS3.copy_(resized_SS3)
        else:
            order = self._rows_first[pixels_HW3.shape[0], pixels_HW3.shape[1]]
            self._resize(pixels_HW3, out_SS3, is_rows_first=bool(order))

    def compile_kernels(self, out_SS3: Tensor) -> None:
        """For widths that are a multiple of 16, and others; inside ``only_compiling``."""
        for width in (16, 17):
            pixels_HW3 = torch.empty(16, width, 3, dtype=torch.uint8, device=self._device)
            for order in (False, True):
                self._resize(pixels_HW3, out_SS3, is_rows_first=order)

    def _learn(self, pixels_HW3: Tensor, resized_SS3: Tensor, out_SS3: Tensor) -> None:
        found = []
        for order in (False, True):
            self._resize(pixels_HW3, out_SS3, is_rows_first=order)
            found += [order] if torch.equal(out_SS3, resized_SS3) else []
        if len(found) < 2:  # a plain picture tells nothing
            self._rows_first[pixels_HW3.shape[0], pixels_HW3.shape[1]] = found[0] if found else None

    def _resize(self, pixels_HW3: Tensor, out_SS3: Tensor, *, is_rows_first: bool) -> None:
        rows, columns = (self._axis(length) for length in pixels_HW3.shape[:2])
        resize(pixels_HW3, rows, columns, out_SS3, is_rows_first=is_rows_first)

    def _make_axis(self, length: int) -> BicubicTables:
        axis = BicubicAxis.of(length, self._side)
        return BicubicTables(*(torch.from_numpy(one).to(self._device) for one in (axis.firsts_S, axis.weights_SK)))
