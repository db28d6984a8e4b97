"""Masks drawn over pictures, and pictures fitted into the cells of a page: for overlays, sheets and reports.

Shape letters: H rows, W columns, C the three colours. Sizes are (width, height), as PIL has them.
"""

from __future__ import annotations

import colorsys
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFont, ImageOps

from samtok_data import masks
from samtok_data.masks import Mask

Colour = tuple[int, int, int]

OPACITY = 0.5
# Apart from each other also for the colour-blind (Okabe and Ito's palette), and rare in photographs.
TRUE_COLOUR: Colour = (0, 158, 115)
DECODED_COLOUR: Colour = (213, 94, 0)

# An object is shown from near by if that makes it larger by a quarter at least.
_SURROUNDINGS, _LEAST_WINDOW, _WORTHWHILE = 2.0, 48, 0.8

Window = tuple[int, int, int, int]
"""(x0, y0, x1, y1) in pixels of the picture, x1 and y1 one past the last pixel."""


def layer_colour(place: int) -> Colour:
    """The colour of the mask at a place of a list: bright, and unlike its neighbours' colours."""
    red, green, blue = colorsys.hsv_to_rgb(*_layer_hsv(place))
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_masks(picture: Image.Image, layers: Sequence[Mask]) -> Image.Image:
    """The picture with each mask tinted in a colour of its own.

    Args:
        picture: RGB.
        layers: masks of the picture's size.
    """
    pixels_HWC = np.asarray(picture, dtype=np.float32)
    for place, mask_HW in enumerate(layers):
        colour = np.array(colorsys.hsv_to_rgb(*_layer_hsv(place)), np.float32) * 255
        pixels_HWC = _blended(pixels_HWC, mask_HW, colour, OPACITY)
    return Image.fromarray(pixels_HWC.astype(np.uint8))


def tinted(picture: Image.Image, mask_HW: Mask, colour: Colour, *, opacity: float = OPACITY) -> Image.Image:
    """A copy of the picture with the mask's pixels mixed with a colour.

    Args:
        picture: RGB.
        mask_HW: bool, of the picture's size; may be empty.
        colour: red, green, blue; 0..255.
        opacity: share of the colour, 0..1.
    """
    pixels_HWC = np.asarray(picture, dtype=np.float32)
    return Image.fromarray(_blended(pixels_HWC, mask_HW, np.array(colour, np.float32), opacity).astype(np.uint8))


def outlined(picture: Image.Image, mask_HW: Mask, colour: Colour, *, width: int = 2) -> Image.Image:
    """A copy of the picture with a line along the inner side of the mask's edge, and a black hairline around it.

    The hairline shows the line on a ground of its own colour. Where a mask reaches the picture's edge the line
    follows that edge.

    Args:
        picture: RGB.
        mask_HW: bool, of the picture's size; may be empty.
        colour: red, green, blue; 0..255.
        width: of the line, in pixels, at least 1.
    """
    inside_HW = mask_HW
    for _ in range(width):
        inside_HW = _eroded(inside_HW)
    pixels_HWC = np.array(picture)
    pixels_HWC[_dilated(mask_HW) & ~mask_HW] = 0
    pixels_HWC[mask_HW & ~inside_HW] = colour
    return Image.fromarray(pixels_HWC)


def window_around(mask_HW: Mask) -> Window:
    """The part of the picture that shows a mask from near by; all of the picture if that is hardly more.

    Args:
        mask_HW: bool, not empty.
    """
    height, width = mask_HW.shape
    x, y, box_width, box_height = masks.coco_box(masks.encode(mask_HW))
    side = max(_LEAST_WINDOW, round(_SURROUNDINGS * max(box_width, box_height)))
    if side > _WORTHWHILE * max(width, height):
        return 0, 0, width, height
    shown_width, shown_height = min(side, width), min(side, height)
    x0 = min(max(x + (box_width - shown_width) // 2, 0), width - shown_width)
    y0 = min(max(y + (box_height - shown_height) // 2, 0), height - shown_height)
    return x0, y0, x0 + shown_width, y0 + shown_height


def cropped(mask_HW: Mask, window: Window) -> Mask:
    """What of the mask lies in the window; a view of it."""
    x0, y0, x1, y1 = window
    return mask_HW[y0:y1, x0:x1]


def letterboxed(picture: Image.Image, size: tuple[int, int], *, ground: Colour = (255, 255, 255)) -> Image.Image:
    """The picture as large as fits into a cell, centred, its proportions kept.

    Args:
        picture: RGB.
        size: (width, height) of the cell in pixels.
        ground: colour of what the picture leaves free.
    """
    return ImageOps.pad(picture, size, Image.Resampling.LANCZOS, color=ground)


def letterboxed_mask(mask_HW: Mask, size: tuple[int, int]) -> Mask:
    """A mask of a picture, in the frame of the cell that ``letterboxed`` puts that picture into.

    Drawing it there, rather than before, keeps lines equally thin whatever the picture's size.

    Args:
        mask_HW: bool, not of zero size.
        size: (width, height) of the cell in pixels.

    Returns:
        bool, shape (height, width) of the cell; empty only if the mask is.
    """
    greys = ImageOps.pad(Image.fromarray(mask_HW.astype(np.uint8) * 255), size, Image.Resampling.BILINEAR, color=0)
    covered_HW = np.asarray(greys)
    kept_HW = covered_HW >= 128
    # A mask of a few pixels covers no cell's pixel by half: then whatever it touches.
    return kept_HW if kept_HW.any() else covered_HW > 0


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, so that a page looks the same on every machine; ``size`` in pixels. Latin script only."""
    return ImageFont.load_default(size)


def png(picture: Image.Image) -> bytes:
    """The picture as a PNG file; equal bytes for equal pixels."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _layer_hsv(place: int) -> tuple[float, float, float]:
    return (0.5 + place * 0.618) % 1.0, 0.9, 1.0  # the golden ratio keeps neighbouring colours apart


def _blended(
    pixels_HWC: NDArray[np.float32], mask_HW: Mask, colour_C: NDArray[np.float32], opacity: float
) -> NDArray[np.float32]:
    return np.where(mask_HW[:, :, None], (1 - opacity) * pixels_HWC + opacity * colour_C, pixels_HWC)


def _dilated(mask_HW: Mask) -> Mask:
    """The mask and every pixel that one of its pixels touches."""
    return np.logical_or.reduce(_windows(mask_HW))


def _eroded(mask_HW: Mask) -> Mask:
    """The pixels whose eight neighbours belong to the mask too; what lies beyond the picture's edge does not."""
    return np.logical_and.reduce(_windows(mask_HW))


def _windows(mask_HW: Mask) -> list[Mask]:
    """The mask shifted by -1, 0, 1 in both directions; False comes in from beyond the edge."""
    padded = np.pad(mask_HW, 1)
    height, width = mask_HW.shape
    return [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)]
