"""Views of an image and of its masks, and what a Scene says of itself."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from samtok_data import masks
from samtok_data.errors import RecordError
from samtok_data.masks import Mask
from samtok_data.scenes import WHOLE_IMAGE, Dialogue, MaskRef, Region, Scene, Turn, View

# 4 rows, 6 columns; a 2x3 block of foreground at row 1, column 2.
MASK = np.zeros((4, 6), dtype=np.bool_)
MASK[1:3, 2:5] = True
RLE = masks.encode(MASK)
PICTURE = Image.fromarray(np.arange(72, dtype=np.uint8).reshape(4, 6, 3))


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture)


def test_the_whole_image_is_shown_unchanged() -> None:
    view = View()
    assert (view.id, view.is_whole) == (WHOLE_IMAGE, True)
    assert view.of_image(PICTURE) is PICTURE
    assert view.of_mask(RLE) is RLE


@pytest.mark.parametrize(
    ("crop", "rows"),
    [
        pytest.param((2, 1, 5, 3), ["111", "111"], id="exactly-the-mask"),
        pytest.param((1, 0, 4, 3), ["000", "011", "011"], id="part-of-the-mask"),
        pytest.param((4, 2, 5, 3), ["1"], id="one-pixel"),
        pytest.param((0, 0, 6, 4), ["000000", "001110", "001110", "000000"], id="all"),
        pytest.param((4, 2, 8, 6), ["1000", "0000", "0000", "0000"], id="beyond-the-right-and-lower-edge"),
        pytest.param((-1, -1, 4, 3), ["00000", "00000", "00011", "00011"], id="beyond-the-left-and-upper-edge"),
    ],
)
def test_a_crop_cuts_image_and_mask_alike(crop: tuple[int, int, int, int], rows: list[str]) -> None:
    view = View("crop", crop=crop)
    assert not view.is_whole
    mask_HW = masks.decode(view.of_mask(RLE))
    assert ["".join(str(int(pixel)) for pixel in row) for row in mask_HW] == rows
    picture = view.of_image(PICTURE)
    assert (picture.height, picture.width) == mask_HW.shape


def test_a_crop_keeps_the_pixels_that_it_shows() -> None:
    picture = View("crop", crop=(1, 2, 5, 4)).of_image(PICTURE)
    np.testing.assert_array_equal(pixels(picture), pixels(PICTURE)[2:4, 1:5])


def test_a_size_is_height_and_width() -> None:
    view = View("small", size=(8, 3))
    assert not view.is_whole
    assert view.of_image(PICTURE).size == (3, 8)
    assert masks.decode(view.of_mask(RLE)).shape == (8, 3)


def test_an_image_is_resized_bicubic_and_a_mask_by_the_nearest_pixel() -> None:
    """PIL's default for an image; kept so that tokens match."""
    view = View("large", size=(8, 12))
    bicubic = PICTURE.resize((12, 8), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(pixels(view.of_image(PICTURE)), pixels(bicubic))
    np.testing.assert_array_equal(masks.decode(view.of_mask(RLE)), MASK.repeat(2, axis=0).repeat(2, axis=1))


def test_the_crop_comes_before_the_resize() -> None:
    view = View("both", crop=(2, 1, 5, 3), size=(4, 6))
    assert masks.decode(view.of_mask(RLE)).all()
    np.testing.assert_array_equal(
        pixels(view.of_image(PICTURE)), pixels(PICTURE.crop((2, 1, 5, 3)).resize((6, 4), Image.Resampling.BICUBIC))
    )


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(View("v", crop=(0, 0, 2, 4)), id="mask-beside-the-crop"),
        pytest.param(View("v", crop=(5, 0, 6, 4), size=(10, 10)), id="mask-beside-the-resized-crop"),
        pytest.param(View("v", crop=(10, 10, 12, 12)), id="crop-outside-the-image"),
        pytest.param(View("v", size=(1, 1)), id="mask-smaller-than-a-pixel-of-the-view"),
    ],
)
def test_a_mask_of_which_a_view_shows_nothing_is_refused(view: View) -> None:
    corner_HW = np.zeros((4, 6), dtype=np.bool_)
    corner_HW[0, 4] = True
    with pytest.raises(RecordError, match=re.escape("view v: nothing of the mask lies in it [mask-empty]")):
        view.of_mask(masks.encode(corner_HW))


@given(
    hnp.arrays(np.bool_, (5, 7)),
    st.tuples(st.integers(0, 6), st.integers(0, 4), st.integers(1, 7), st.integers(1, 5)).filter(
        lambda crop: crop[0] < crop[2] and crop[1] < crop[3]
    ),
    st.none() | st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_a_mask_in_a_view_is_the_view_of_its_picture(
    mask_HW: Mask, crop: tuple[int, int, int, int], size: tuple[int, int] | None
) -> None:
    view = View("v", crop=crop, size=size)
    picture = Image.fromarray(mask_HW.astype(np.uint8)).crop(crop)
    if size is not None:
        picture = picture.resize((size[1], size[0]), Image.Resampling.NEAREST)
    expected_HW = pixels(picture).astype(np.bool_)
    before = masks.encode(mask_HW)
    if expected_HW.any():
        np.testing.assert_array_equal(masks.decode(view.of_mask(before)), expected_HW)
    else:
        with pytest.raises(RecordError, match="mask-empty"):
            view.of_mask(before)
    assert view.of_image(Image.fromarray(mask_HW)).size == expected_HW.shape[::-1]


def dialogue(key: str, *pieces: str | MaskRef) -> Dialogue:
    return Dialogue(key, "task", (Turn("human", ("<image>\nwhich?",)), Turn("gpt", pieces)))


def test_a_dialogue_lists_its_references_as_they_stand() -> None:
    cat, crop = MaskRef("cat"), MaskRef("cat", "crop")
    turns = (Turn("human", ("<image>\n", cat)), Turn("gpt", (crop, " and ", cat)))
    assert Dialogue("k", "task", turns).refs == (cat, crop, cat)
    assert Dialogue("k", "task", turns).views == (WHOLE_IMAGE,)
    assert dialogue("k", "none").refs == ()


def test_a_scene_lists_each_pair_once_in_order_of_first_mention() -> None:
    cat, dog, crop = MaskRef("cat"), MaskRef("dog"), MaskRef("cat", "crop")
    dialogues = (dialogue("a", dog, "x", cat, dog), dialogue("b", "none"), dialogue("c", cat, crop, MaskRef("dog")))
    scene = Scene("s", "a.jpg", 4, 6, (Region("cat", RLE), Region("dog", RLE)), dialogues)
    assert scene.pairs == (dog, cat, crop)
    assert scene.views == (View(),)
