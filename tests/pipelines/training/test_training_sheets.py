"""Sheets of reconstructions: where the cells lie and what is in them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipelines.drawing import DECODED_COLOUR, TRUE_COLOUR, Colour, png, window_around
from pipelines.training import sheets
from pipelines.training.sheets import CELL, SheetRow, cell_corner, reconstruction_sheet
from samtok_data.masks import Mask

GREY = (120, 120, 120)


def box_mask(size: tuple[int, int], box: tuple[int, int, int, int]) -> Mask:
    mask_HW = np.zeros(size, np.bool_)
    x0, y0, x1, y1 = box
    mask_HW[y0:y1, x0:x1] = True
    return mask_HW


def row(
    *,
    size: tuple[int, int] = (240, 240),
    true: tuple[int, int, int, int] = (20, 20, 220, 220),
    decoded: tuple[int, int, int, int] = (20, 20, 120, 220),
    word: str = "<|mt_start|><|mt_0001|><|mt_end|>",
) -> SheetRow:
    """A grey picture of size (height, width); boxes are (x0, y0, x1, y1)."""
    return SheetRow(
        picture=Image.new("RGB", (size[1], size[0]), GREY),
        mask_HW=box_mask(size, true),
        decoded_HW=box_mask(size, decoded),
        source="coco",
        iou=0.5,
        word=word,
    )


def cell_of(sheet: Image.Image, place: int, cell: int) -> NDArray[np.uint8]:
    x, y = cell_corner(place, cell)
    return np.asarray(sheet.crop((x, y, x + CELL[0], y + CELL[1])))


def share(pixels_HWC: NDArray[np.uint8], colour: Colour) -> float:
    return float((pixels_HWC == colour).all(2).mean())


def tint(colour: Colour) -> Colour:
    red, green, blue = (int(0.6 * ground + 0.4 * part) for ground, part in zip(GREY, colour, strict=True))
    return red, green, blue


def test_the_three_cells_of_a_row() -> None:
    sheet = reconstruction_sheet([row()])
    photo, true, decoded = (cell_of(sheet, 0, cell) for cell in range(3))
    assert share(photo, GREY) == 1.0
    # 200 x 200 pixels less the outline's two on each side; 100 x 200 of the other.
    assert share(true, tint(TRUE_COLOUR)) == pytest.approx(196 * 196 / 240**2)
    assert share(true, TRUE_COLOUR) == pytest.approx((200**2 - 196**2) / 240**2)
    assert share(decoded, tint(DECODED_COLOUR)) == pytest.approx(96 * 196 / 240**2)
    assert (true[120, 118:122] == tint(TRUE_COLOUR)).all()
    assert (decoded[120, 125:] == GREY).all()


@pytest.mark.parametrize(
    ("num_rows", "size"),
    [
        pytest.param(1, (760, 362), id="one"),
        pytest.param(2, (1516, 362), id="two side by side"),
        pytest.param(3, (1516, 636), id="a third below"),
        pytest.param(12, (1516, 1732), id="twelve"),
    ],
)
def test_the_size_of_a_sheet(num_rows: int, size: tuple[int, int]) -> None:
    sheet = reconstruction_sheet([row()] * num_rows, title="step 1,000")
    assert (sheet.mode, sheet.size) == ("RGB", size)
    cells = [cell_of(sheet, place, 1) for place in range(num_rows)]
    assert all((cell == cells[0]).all() for cell in cells)
    margin = np.asarray(sheet)[:, -sheets.MARGIN :]
    assert (margin == 255).all()


def test_cells_do_not_touch() -> None:
    corners = [cell_corner(place, cell) for place in range(4) for cell in range(3)]
    assert len(corners) == 12
    for first in corners:
        for second in corners:
            apart = abs(first[0] - second[0]) >= CELL[0] + 4 or abs(first[1] - second[1]) >= CELL[1] + 20
            assert apart or first == second


@pytest.mark.parametrize("size", [(120, 480), (480, 120)], ids=["wide", "high"])
def test_pictures_of_any_shape_fill_equal_cells(size: tuple[int, int]) -> None:
    height, width = size
    whole = (0, 0, width, height)
    sheet = reconstruction_sheet([row(size=size, true=whole, decoded=whole)])
    for cell in range(3):
        pixels = cell_of(sheet, 0, cell)
        # Three quarters of the cell, less the hairline of an outline that runs along the picture's edge.
        assert share(pixels, (232, 232, 232)) == pytest.approx(0.75, abs=0.01)
        assert tuple(pixels[0, 0]) == (232, 232, 232)
        assert tuple(pixels[120, 120]) != (232, 232, 232)


def test_a_small_object_is_shown_from_near_by() -> None:
    near = (400, 300, 480, 380)
    sheet = reconstruction_sheet([row(size=(960, 960), true=near, decoded=near)])
    photo, true, decoded = (cell_of(sheet, 0, cell) for cell in range(3))
    # The window is twice the object: 160 pixels, so a quarter of the cell is object.
    coloured = share(true, tint(TRUE_COLOUR)) + share(true, TRUE_COLOUR)
    assert coloured == pytest.approx(0.25, abs=0.01)
    assert share(decoded, tint(DECODED_COLOUR)) == share(true, tint(TRUE_COLOUR))
    drawn = np.argwhere((photo != GREY).any(2))
    top_left, bottom_right = drawn.min(0), drawn.max(0)
    np.testing.assert_allclose(top_left, [(300 - 40) / 4, (400 - 40) / 4], atol=3)
    np.testing.assert_allclose(bottom_right, [(380 + 40) / 4, (480 + 40) / 4], atol=3)


@pytest.mark.parametrize(
    ("box", "window"),
    [
        pytest.param((0, 0, 30, 10), (0, 0, 60, 60), id="corner"),
        pytest.param((170, 90, 200, 100), (140, 40, 200, 100), id="other corner"),
        pytest.param((100, 50, 101, 51), (76, 26, 124, 74), id="one pixel"),
        pytest.param((50, 20, 131, 60), (0, 0, 200, 100), id="large"),
        pytest.param((60, 40, 130, 60), (25, 0, 165, 100), id="wider than high"),
    ],
)
def test_the_window_around_a_mask(box: tuple[int, int, int, int], window: tuple[int, int, int, int]) -> None:
    assert window_around(box_mask((100, 200), box)) == window


def test_the_window_does_not_depend_on_what_was_decoded() -> None:
    true = (400, 300, 480, 380)
    first = reconstruction_sheet([row(size=(960, 960), true=true, decoded=true)])
    other = reconstruction_sheet([row(size=(960, 960), true=true, decoded=(0, 0, 1, 1))])
    for cell in (0, 1):
        assert (cell_of(first, 0, cell) == cell_of(other, 0, cell)).all()
    assert share(cell_of(other, 0, 2), GREY) == 1.0


def test_nothing_decoded_leaves_the_photo_bare() -> None:
    sheet = reconstruction_sheet([row(decoded=(0, 0, 0, 0))])
    assert share(cell_of(sheet, 0, 2), GREY) == 1.0


def test_captions_stay_below_their_row() -> None:
    width = 3 * CELL[0] + 2 * sheets.GAP

    def below(sheet: Image.Image, place: int) -> Mask:
        x, y = cell_corner(place, 0)
        box = (x, y + CELL[1], x + width + sheets.MARGIN, y + CELL[1] + sheets.CAPTION_HEIGHT)
        return np.asarray(sheet.crop(box)).min(2) < 128

    short, long = row(), row(word="<|mt_0001|>" * 30)
    sheet = reconstruction_sheet([short, long, long])
    columns = [np.flatnonzero(below(sheet, place).any(0)) for place in range(3)]
    assert columns[0].max() < 400
    for found in columns[1:]:
        assert width - 30 < found.max() < width
    assert not below(sheet, 0)[-6:].any()


def test_a_sheet_changes_nothing_and_is_the_same_again() -> None:
    given = row()
    before = (given.picture.tobytes(), given.mask_HW.tobytes(), given.decoded_HW.tobytes())
    first = png(reconstruction_sheet([given, row()], title="step 5"))
    assert png(reconstruction_sheet([given, row()], title="step 5")) == first
    assert png(reconstruction_sheet([given, row()], title="step 6")) != first
    assert (given.picture.tobytes(), given.mask_HW.tobytes(), given.decoded_HW.tobytes()) == before


def test_wrong_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="expected at least one row, got none"):
        reconstruction_sheet([])
    with pytest.raises(ValueError, match="coco: expected a true mask with pixels, got an empty one"):
        row(true=(0, 0, 0, 0))
    picture, mask_HW = Image.new("RGB", (3, 2)), np.ones((2, 3), np.bool_)
    with pytest.raises(ValueError, match=r"expected masks of shape \(2, 3\), got \(2, 3\) and \(3, 2\)"):
        SheetRow(picture=picture, mask_HW=mask_HW, decoded_HW=mask_HW.T, source="coco", iou=1.0, word="")
