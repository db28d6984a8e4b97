"""Drawn images and masks: by formula, the same pixels on every machine."""

from __future__ import annotations

import numpy as np
from PIL import Image

from samtok_data import masks
from samtok_data.masks import RLE


def drawn_image(width: int, height: int, phase: float = 0.0) -> Image.Image:
    """A colourful pattern by formula: the same pixels on every machine."""
    y_HW, x_HW = np.mgrid[0:height, 0:width]
    waves = [(x_HW * (3 + band) + y_HW * (7 - 2 * band) + int(97 * phase) * (band + 1)) % 256 for band in range(3)]
    return Image.fromarray(np.stack(waves, axis=-1).astype(np.uint8))


def disc(width: int, height: int, x: float, y: float, radius: float) -> RLE:
    """A filled circle; position in fractions of the sides, radius in pixels."""
    y_HW, x_HW = np.mgrid[0:height, 0:width]
    return masks.encode((x_HW - x * width) ** 2 + (y_HW - y * height) ** 2 <= radius**2)


def bar(width: int, height: int, x0: int, y0: int, x1: int, y1: int) -> RLE:
    """A filled rectangle, x1 and y1 one past the last pixel."""
    mask_HW = np.zeros((height, width), np.bool_)
    mask_HW[y0:y1, x0:x1] = True
    return masks.encode(mask_HW)
