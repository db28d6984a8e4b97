"""Sheets of reconstructions: what the tokenizer makes of a few fixed validation masks, for a person to look at.

One row of three cells for each mask, two rows side by side:

    title
    photo        true mask      reconstruction  |  photo        true mask      reconstruction
    [whole    ]  [near the   ]  [near the    ]  |  [whole    ]  [near the   ]  [near the    ]
    source, IoU, word                           |  source, IoU, word
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from pipelines.drawing import (
    DECODED_COLOUR,
    TRUE_COLOUR,
    Colour,
    cropped,
    font,
    letterboxed,
    letterboxed_mask,
    outlined,
    tinted,
    window_around,
)
from samtok_data.masks import Mask

CELL = (240, 240)  # width, height in pixels
ROWS_ACROSS = 2
MARGIN = 16
GAP = 4  # between the cells of a row
GUTTER = 28  # between rows side by side
TITLE_HEIGHT = 34
HEADER_HEIGHT = 22
CAPTION_HEIGHT = 34
HEADERS = ("photo", "true mask", "reconstruction")

_GROUND: Colour = (255, 255, 255)
_CELL_GROUND: Colour = (232, 232, 232)
_INK: Colour = (30, 30, 30)
_TITLE_SIZE, _TEXT_SIZE = 20, 15
_TINT = 0.4  # lighter than an overlay's: the photo below should show what the mask ought to follow


@dataclass(frozen=True, kw_only=True, slots=True)
class SheetRow:
    """One mask and what became of it.

    Attributes:
        picture: RGB.
        mask_HW: the true mask, bool, of the picture's size, not empty.
        decoded_HW: the mask decoded from the word, bool, of the picture's size.
        source: where the mask is from, e.g. ``coco``.
        iou: of the two masks, 0..1, as the validation measured it.
        word: the mask word.

    Raises:
        ValueError: masks of another size than the picture, or no true mask.
    """

    picture: Image.Image
    mask_HW: Mask
    decoded_HW: Mask
    source: str
    iou: float
    word: str

    def __post_init__(self) -> None:
        size = self.picture.size[::-1]
        if self.mask_HW.shape != size or self.decoded_HW.shape != size:
            raise ValueError(f"expected masks of shape {size}, got {self.mask_HW.shape} and {self.decoded_HW.shape}")
        if not self.mask_HW.any():
            raise ValueError(f"{self.source}: expected a true mask with pixels, got an empty one")


def reconstruction_sheet(rows: Sequence[SheetRow], *, title: str = "") -> Image.Image:
    """A sheet of all rows, in their order: left to right, then down.

    The photo is shown whole. A small object is shown from near by in the other two cells, and a rectangle in the
    photo says where. The place depends on the true mask alone, so that sheets of different steps can be compared;
    what was decoded elsewhere in the picture is not seen, but counts in the IoU.

    Args:
        rows: at least one.
        title: stands on top, before the number of masks and their mean IoU; e.g. ``step 1,000``.

    Returns:
        RGB; all cells are of one size, ``CELL``.

    Raises:
        ValueError: no rows.
    """
    if not rows:
        raise ValueError("expected at least one row, got none")
    sheet = Image.new("RGB", _sheet_size(len(rows)), _GROUND)
    draw = ImageDraw.Draw(sheet)
    mean = sum(row.iou for row in rows) / len(rows)
    text = f"{len(rows)} masks, mean IoU {mean:.3f}"
    draw.text((MARGIN, MARGIN), f"{title}: {text}" if title else text, fill=_INK, font=font(_TITLE_SIZE))
    for place, row in enumerate(rows):
        corners = [cell_corner(place, cell) for cell in range(3)]
        for corner, cell in zip(corners, _cells(row), strict=True):
            sheet.paste(cell, corner)
        if place < ROWS_ACROSS:
            for (x, y), header in zip(corners, HEADERS, strict=True):
                draw.text((x, y - HEADER_HEIGHT), header, fill=_INK, font=font(_TEXT_SIZE))
        x, y = corners[0]
        caption = f"{row.source}   IoU {row.iou:.3f}   {row.word}"
        draw.text((x, y + CELL[1] + 5), _fitted(draw, caption, _row_width()), fill=_INK, font=font(_TEXT_SIZE))
    return sheet


def cell_corner(place: int, cell: int) -> tuple[int, int]:
    """The top left pixel (x, y) of a cell: 0 photo, 1 true mask, 2 reconstruction; of the row at a place."""
    down, across = divmod(place, ROWS_ACROSS)
    x = MARGIN + across * (_row_width() + GUTTER) + cell * (CELL[0] + GAP)
    return x, MARGIN + TITLE_HEIGHT + HEADER_HEIGHT + down * (CELL[1] + CAPTION_HEIGHT)


def _row_width() -> int:
    return 3 * CELL[0] + 2 * GAP


def _sheet_size(num_rows: int) -> tuple[int, int]:
    x, y = cell_corner(num_rows - 1, 0)
    if num_rows > ROWS_ACROSS:
        x, _ = cell_corner(ROWS_ACROSS - 1, 0)
    return x + _row_width() + MARGIN, y + CELL[1] + CAPTION_HEIGHT + MARGIN


def _cells(row: SheetRow) -> tuple[Image.Image, Image.Image, Image.Image]:
    """The three pictures of a row, each of size ``CELL``."""
    window = window_around(row.mask_HW)
    near = row.picture.crop(window)
    photo = row.picture
    if near.size != photo.size:
        photo = _with_rectangle(photo, window)
    return (
        letterboxed(photo, CELL, ground=_CELL_GROUND),
        _drawn(near, cropped(row.mask_HW, window), TRUE_COLOUR),
        _drawn(near, cropped(row.decoded_HW, window), DECODED_COLOUR),
    )


def _drawn(picture: Image.Image, mask_HW: Mask, colour: Colour) -> Image.Image:
    cell = letterboxed(picture, CELL, ground=_CELL_GROUND)
    mask_of_cell_HW = letterboxed_mask(mask_HW, CELL)
    return outlined(tinted(cell, mask_of_cell_HW, colour, opacity=_TINT), mask_of_cell_HW, colour)


def _with_rectangle(picture: Image.Image, window: tuple[int, int, int, int]) -> Image.Image:
    """A copy with the window's edge: white between black, to be seen on any ground, two pixels wide in the cell."""
    copy = picture.copy()
    x0, y0, x1, y1 = window
    unit = max(1, round(max(picture.width / CELL[0], picture.height / CELL[1])))
    draw = ImageDraw.Draw(copy)
    draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline="black", width=3 * unit)
    draw.rectangle((x0 + unit, y0 + unit, x1 - 1 - unit, y1 - 1 - unit), outline="white", width=unit)
    return copy


def _fitted(draw: ImageDraw.ImageDraw, text: str, width: int) -> str:
    """The text, cut where it would be wider than ``width`` pixels."""
    shown = text
    while draw.textlength(shown, font=font(_TEXT_SIZE)) > width:
        shown = shown.removesuffix("...")[:-1] + "..."
    return shown
