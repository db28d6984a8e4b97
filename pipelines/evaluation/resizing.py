"""Masks to small grids and back to full size, as the tokenizer does it.

Letters: H, W of an image, P side of a grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from samtok_data import masks
from samtok_data.masks import RLE

Grid = NDArray[np.float32]

HALF = 0.5
"""Where a grid of 0..1 is cut: a pixel belongs to the mask that covers more than half of it."""


def shrunk(mask_HW: Tensor, side: int) -> Tensor:
    """The mask on a square grid: bilinear with antialias, whatever its aspect.

    What ``tokenizer_model.Prepared`` does to the masks that the network reads.

    Args:
        mask_HW: bool.
        side: P.

    Returns:
        float32, (P, P), 0..1, on the mask's device.
    """
    mask_11HW = mask_HW.float()[None, None]
    grid_11PP = F.interpolate(mask_11HW, size=(side, side), mode="bilinear", align_corners=False, antialias=True)
    return grid_11PP[0, 0].clamp(0, 1)  # sums of weights pass 1 by a rounding


def mask_tensor(rle: RLE, device: torch.device | str = "cpu") -> Tensor:
    """A mask, decompressed: bool, (H, W)."""
    return torch.from_numpy(np.ascontiguousarray(masks.decode(rle))).to(device)  # it comes column by column


def overlaps(mask_HW: Tensor, grid_PP: Tensor, thresholds: Sequence[float]) -> Tensor:
    """Resizes a grid to the mask's size (bilinear, corners not aligned), cuts it, and holds it against the mask.

    Args:
        mask_HW: bool.
        grid_PP: float, on the same device: logits, or shares of 0..1.
        thresholds: a pixel is foreground where its value is above this.

    Returns:
        int64, (thresholds, 2): pixels of the intersection and of the union. On the device, so that nobody
        waits for it.
    """
    full_HW = F.interpolate(grid_PP[None, None], size=mask_HW.shape, mode="bilinear", align_corners=False)[0, 0]
    cuts = [full_HW > threshold for threshold in thresholds]
    return torch.stack([torch.stack([(cut_HW & mask_HW).sum(), (cut_HW | mask_HW).sum()]) for cut_HW in cuts])
