"""Masks drawn over pictures, and pictures fitted into cells."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pipelines import drawing

GREY = (100, 100, 100)
RED = (200, 0, 0)


def square(size: int = 9, first: int = 2, last: int = 6) -> drawing.Mask:
    mask_HW = np.zeros((size, size), np.bool_)
    mask_HW[first : last + 1, first : last + 1] = True
    return mask_HW


def test_a_tint_mixes_the_masks_pixels_and_no_others() -> None:
    picture = Image.new("RGB", (9, 9), GREY)
    drawn = np.asarray(drawing.tinted(picture, square(), RED))
    assert (drawn[square()] == (150, 50, 50)).all()
    assert (drawn[~square()] == GREY).all()
    assert picture.getpixel((4, 4)) == GREY


def test_an_outline_is_a_line_inside_and_a_hairline_outside() -> None:
    picture = Image.new("RGB", (9, 9), GREY)
    drawn = np.asarray(drawing.outlined(picture, square(), RED, width=2))
    kinds = {GREY: ".", RED: "r", (0, 0, 0): "b"}
    rows = ["".join(kinds[red, green, blue] for red, green, blue in row.tolist()) for row in drawn]
    assert rows == [
        ".........",
        ".bbbbbbb.",
        ".brrrrrb.",
        ".brrrrrb.",
        ".brr.rrb.",
        ".brrrrrb.",
        ".brrrrrb.",
        ".bbbbbbb.",
        ".........",
    ]
    assert picture.getpixel((2, 2)) == GREY


def test_an_outline_follows_the_pictures_edge_and_an_empty_mask_has_none() -> None:
    picture = Image.new("RGB", (4, 4), GREY)
    whole = np.asarray(drawing.outlined(picture, np.ones((4, 4), np.bool_), RED, width=1))
    assert (whole[0] == RED).all()
    assert (whole[1:3, 1:3] == GREY).all()
    empty = drawing.outlined(picture, np.zeros((4, 4), np.bool_), RED)
    assert empty.tobytes() == picture.tobytes()


@pytest.mark.parametrize("size", [(40, 20), (20, 40), (10, 10), (64, 64)], ids=str)
def test_a_mask_is_letterboxed_as_its_picture_is(size: tuple[int, int]) -> None:
    mask_HW = np.zeros((60, 90), np.bool_)
    mask_HW[15:45, 30:60] = True
    picture = Image.fromarray((mask_HW[:, :, None] * np.array(RED)).astype(np.uint8))
    boxed = np.asarray(drawing.letterboxed(picture, size, ground=GREY))
    mask_of_cell = drawing.letterboxed_mask(mask_HW, size)
    assert boxed.shape == (size[1], size[0], 3)
    assert mask_of_cell.shape == boxed.shape[:2]
    ground = (boxed == GREY).all(2)
    assert ground.any() == (size[0] * 60 != size[1] * 90)
    assert not mask_of_cell[ground].any()
    differing = (boxed[:, :, 0] >= 100) & ~ground ^ mask_of_cell
    assert differing.mean() <= 0.05  # the edge alone: the two are resized by other filters


def test_a_mask_of_one_pixel_stays_visible_in_a_small_cell() -> None:
    mask_HW = np.zeros((500, 500), np.bool_)
    mask_HW[250, 250] = True
    assert 1 <= drawing.letterboxed_mask(mask_HW, (50, 50)).sum() <= 9
    assert not drawing.letterboxed_mask(np.zeros((500, 500), np.bool_), (50, 50)).any()


def test_layers_have_colours_of_their_own() -> None:
    picture = Image.new("RGB", (2, 1), GREY)
    left = np.array([[True, False]])
    drawn = drawing.draw_masks(picture, [left, ~left])
    expected = [tuple(int(0.5 * 100 + 0.5 * part) for part in drawing.layer_colour(place)) for place in range(2)]
    for place, colour in enumerate(expected):
        assert np.abs(np.asarray(drawn, np.int64)[0, place] - colour).max() <= 1
    assert expected[0] != expected[1]


def test_equal_pixels_are_equal_files() -> None:
    picture = Image.new("RGB", (5, 4), RED)
    assert drawing.png(picture) == drawing.png(picture.copy())
    assert drawing.png(picture).startswith(b"\x89PNG")
