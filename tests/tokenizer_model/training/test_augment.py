"""Random views: where they may lie, what they do to images and masks, and that both stay together."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from tiny import blob, noise_image

from tokenizer_model.training.augment import SAME_COLOURS, RandomView
from tokenizer_model.training.recipe import Augmentation

ALL = Augmentation(crop=0.4, stretch=1.5, flip=0.5, colour=0.5, blur=0.5)


def views(settings: Augmentation, number: int, width: int = 200, height: int = 100) -> list[RandomView]:
    return [RandomView.draw(width, height, settings, random.Random(seed)) for seed in range(number)]


def share(view: RandomView, width: int, height: int) -> float:
    x0, y0, x1, y1 = view.box
    return (x1 - x0) * (y1 - y0) / (width * height)


# --- drawing


def test_without_augmentation_the_view_is_the_image() -> None:
    for view in views(Augmentation(), 20):
        assert view == RandomView((0, 0, 200, 100))
        assert (view.mirrored, view.colours, view.shrink) == (False, SAME_COLOURS, 1.0)


@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.floats(0.01, 1),
    st.floats(1, 4),
    st.integers(0, 2**32),
)
def test_a_crop_lies_in_the_image_and_is_not_empty(
    width: int, height: int, crop: float, stretch: float, seed: int
) -> None:
    settings = Augmentation(crop=crop, stretch=stretch)
    x0, y0, x1, y1 = RandomView.draw(width, height, settings, random.Random(seed)).box
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height


@pytest.mark.parametrize(("crop", "stretch"), [(0.4, 1.0), (0.4, 1.5), (0.1, 4.0)])
def test_a_crop_keeps_its_share_and_its_aspect_within_the_bounds_and_uses_them(crop: float, stretch: float) -> None:
    width, height, found = 2000, 1000, views(Augmentation(crop=crop, stretch=stretch), 400, 2000, 1000)
    shares = np.array([share(view, width, height) for view in found])
    aspects = np.array([(x1 - x0) / (y1 - y0) / 2 for x0, y0, x1, y1 in (view.box for view in found)])
    assert crop * 0.99 <= shares.min() < crop * 1.2
    assert 0.8 < shares.max() <= 1
    assert 1 / stretch / 1.01 <= aspects.min() <= 1 / stretch**0.9
    assert stretch**0.9 / 1.01 <= aspects.max() <= stretch * 1.01
    assert len({view.box[:2] for view in found}) > 300


def test_crops_lie_everywhere_between_the_edges() -> None:
    boxes = np.array([view.box for view in views(Augmentation(crop=0.3), 400)])
    for first, last, side in ((0, 2, 200), (1, 3, 100)):
        room = side - (boxes[:, last] - boxes[:, first])
        places = boxes[room > 20, first] / room[room > 20]
        assert (places.min(), places.max()) == (0, 1)
        assert np.histogram(places, 4, (0, 1))[0].min() > 0.15 * len(places)


@pytest.mark.parametrize(
    ("settings", "changed"),
    [
        (Augmentation(flip=0.25), lambda view: view.mirrored),
        (Augmentation(blur=0.25), lambda view: view.shrink > 1),
        (Augmentation(crop=0.5), lambda view: view.box != (0, 0, 200, 100)),
        (Augmentation(stretch=2.0), lambda view: view.box != (0, 0, 200, 100)),
        (Augmentation(colour=0.5), lambda view: view.colours != SAME_COLOURS),
    ],
    ids=["flip", "blur", "crop", "stretch", "colour"],
)
def test_a_setting_changes_its_own_part_alone_and_as_often_as_it_says(
    settings: Augmentation, changed: Callable[[RandomView], bool]
) -> None:
    found = views(settings, 400)
    number = sum(changed(view) for view in found)
    chance = max(settings.flip, settings.blur)
    assert (0.7 * 400 * chance < number < 1.3 * 400 * chance) if chance else number > 390
    plain = RandomView((0, 0, 200, 100))
    for view in found:
        differing = [
            name for name in ("box", "mirrored", "colours", "shrink") if getattr(view, name) != getattr(plain, name)
        ]
        assert len(differing) == int(changed(view))


def test_the_same_state_draws_the_same_view_and_another_another() -> None:
    assert views(ALL, 50) == views(ALL, 50)
    assert len(set(views(ALL, 50))) == 50


# --- colours


def applied(view: RandomView, colour: tuple[float, float, float]) -> np.ndarray:
    return np.array(view.colours).reshape(3, 4) @ [*colour, 1.0]


@pytest.mark.parametrize("strength", [0.2, 1.0])
def test_a_change_of_colours_is_as_strong_as_it_says(strength: float) -> None:
    found = views(Augmentation(colour=strength), 500)
    greys = np.array([applied(view, (128, 128, 128)) for view in found])
    brightest, strongest = 128 * (1 + 0.4 * strength), 1 + 0.2 * strength
    assert 0.93 * brightest * strongest < greys.max() <= brightest * strongest
    assert 128 * (1 - 0.4 * strength) * (1 - 0.2 * strength) <= greys.min()
    tints = greys / greys.mean(axis=1, keepdims=True)
    assert tints.max() > 1 + 0.15 * strength  # the three channels differ
    # Contrast: how far black and white are apart.
    spread = np.array([applied(view, (255, 255, 255)) - applied(view, (0, 0, 0)) for view in found]) / 255
    assert (1 - 0.5 * strength) * (1 - 0.2 * strength) <= spread.min()
    assert spread.max() <= (1 + 0.5 * strength) * (1 + 0.2 * strength)
    assert spread.std() > 0.2 * strength


def test_saturation_moves_a_colour_towards_its_grey_or_away_from_it() -> None:
    red, grey = (200.0, 50.0, 50.0), 0.299 * 200 + (0.587 + 0.114) * 50
    distances = []
    for view in views(Augmentation(colour=1.0), 200):
        # Against a grey of the same brightness, so that contrast, brightness and tint are the same for both.
        scale = applied(view, (255, 255, 255)) - applied(view, (0, 0, 0))
        distances.append((applied(view, red) - applied(view, (grey, grey, grey))) / (scale / 255))
    saturation = np.array(distances) / (np.array(red) - grey)
    np.testing.assert_allclose(saturation, saturation[:, :1].repeat(3, axis=1), rtol=1e-9)
    assert -1e-9 <= saturation.min() < 0.1
    assert 1.5 < saturation.max() <= 1.6 + 1e-9


# --- images and masks


def test_a_picture_of_a_mask_and_the_mask_are_seen_alike() -> None:
    """A square crop that is not resized: pixel for pixel."""
    draw = np.random.default_rng(0)
    mask_HW = blob(draw, 60, 90) ^ (draw.random((60, 90)) < 0.3)
    picture = Image.fromarray(mask_HW.astype(np.uint8) * np.uint8(255)).convert("RGB")
    for box in ((0, 0, 32, 32), (58, 28, 90, 60), (13, 5, 45, 37)):
        for mirrored in (False, True):
            view = RandomView(box, mirrored)
            seen = np.asarray(view.of_image(picture, 32))
            part = view.of_mask(mask_HW)
            np.testing.assert_array_equal(seen, np.repeat(part[..., None] * 255, 3, axis=2))
            np.testing.assert_array_equal(
                part, np.asarray(ImageOps.mirror(picture.crop(box)) if mirrored else picture.crop(box))[..., 0] > 0
            )


def test_mirrored_twice_is_as_before() -> None:
    draw = np.random.default_rng(1)
    image, mask_HW = noise_image(draw, 20, 30), blob(draw, 20, 30)
    plain, mirrored = RandomView((0, 0, 30, 20)), RandomView((0, 0, 30, 20), mirrored=True)
    once = mirrored.of_mask(mask_HW)
    assert (once != mask_HW).any()
    np.testing.assert_array_equal(mirrored.of_mask(once), mask_HW)
    square = plain.of_image(image, 16)
    turned = mirrored.of_image(image, 16)
    assert turned.tobytes() != square.tobytes()
    np.testing.assert_array_equal(np.asarray(turned)[:, ::-1], np.asarray(square))


def test_the_whole_image_is_resized_as_the_tokenizer_does_it() -> None:
    image = noise_image(np.random.default_rng(2), 50, 70)
    seen = RandomView((0, 0, 70, 50)).of_image(image, 64)
    assert seen.tobytes() == image.resize((64, 64), Image.Resampling.BICUBIC).tobytes()


def test_colours_are_left_to_others() -> None:
    image = noise_image(np.random.default_rng(3), 20, 20)
    grey = RandomView((0, 0, 20, 20), colours=(0.0,) * 12)
    assert grey.of_image(image, 20).tobytes() == image.tobytes()


def test_a_lower_resolution_takes_detail_and_leaves_the_rest_where_it_is() -> None:
    draw = np.random.default_rng(4)
    fine, flat = noise_image(draw, 64, 64), Image.new("RGB", (64, 64), (10, 200, 90))
    half = np.zeros((64, 64, 3), np.uint8)
    half[:, 32:] = 255
    sharp, blurred = RandomView((0, 0, 64, 64)), RandomView((0, 0, 64, 64), shrink=3.0)
    deviations = [np.asarray(view.of_image(fine, 64), np.float64).std() for view in (sharp, blurred)]
    assert deviations[1] < 0.6 * deviations[0]
    assert blurred.of_image(flat, 64).tobytes() == sharp.of_image(flat, 64).tobytes()
    middle = np.asarray(blurred.of_image(Image.fromarray(half), 64), np.float64).mean(axis=(0, 2))
    assert middle[:24].max() < 30
    assert middle[40:].min() > 225
    assert blurred.of_image(fine, 40).size == (40, 40)
    assert RandomView((5, 5, 6, 6), shrink=3.0).of_image(fine, 8).size == (8, 8)


def test_what_is_viewed_stays_as_it_was() -> None:
    draw = np.random.default_rng(5)
    image, mask_HW = noise_image(draw, 40, 40), blob(draw, 40, 40)
    before = image.tobytes(), mask_HW.tobytes()
    for view in views(ALL, 10, 40, 40):
        view.of_image(image, 16)
        view.of_mask(mask_HW)
    assert (image.tobytes(), mask_HW.tobytes()) == before
