"""Examples made on the device: those that loaders make, but for rounding."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TINY, blob

from samtok_data import masks
from samtok_data.masks import RLE
from tokenizer_model.training.augment import RandomView
from tokenizer_model.training.examples import example_of
from tokenizer_model.training.recipe import Augmentation
from tokenizer_model.training.resident import ResidentSet, StoredImage

SIZES = ((37, 120), (120, 37), (64, 64), (200, 150), (9, 11))  # (height, width)
WILD = Augmentation(crop=0.3, stretch=1.8, flip=0.5, colour=0.6)
PLAIN = Augmentation()
CPU = torch.device("cpu")


def pictures() -> list[tuple[Image.Image, list[RLE]]]:
    """Smooth pictures, as photographs are, each with three masks."""
    draw = np.random.default_rng(1)
    found = []
    for height, width in SIZES:
        small = Image.fromarray(draw.integers(0, 256, (4, 4, 3), np.uint8))
        regions = [masks.encode(blob(draw, height, width)) for _ in range(3)]
        found.append((small.resize((width, height), Image.Resampling.BICUBIC), regions))
    return found


@pytest.fixture(scope="module")
def resident() -> ResidentSet:
    return ResidentSet([StoredImage.of(*one) for one in pictures()], TINY, CPU)


@pytest.mark.parametrize("place", range(len(SIZES)), ids=lambda place: "x".join(map(str, SIZES[place])))
@pytest.mark.parametrize("augmentation", [PLAIN, WILD], ids=["whole", "cut"])
def test_an_example_is_the_loaders_but_for_rounding(
    resident: ResidentSet, place: int, augmentation: Augmentation
) -> None:
    image, regions = pictures()[place]
    compared = 0
    for seed in range(12):
        own = resident.examples([place], [random.Random(seed)], masks_per_image=9, augmentation=augmentation)
        view = RandomView.draw(*image.size, augmentation, random.Random(seed))
        other = example_of(image, regions, TINY, masks_per_image=9, augmentation=augmentation, rng=random.Random(seed))
        if own.num_masks == 0:
            continue  # a loader would show the whole image then
        compared += 1
        assert (own.pixels.int() - other.pixels.int()).abs().max() <= 3, view
        torch.testing.assert_close(own.colours, other.colours)
        # The loader takes masks in another order.
        ours, theirs = sorted(map(key, own.boxes)), sorted(map(key, other.boxes))
        assert ours == theirs, view
        for mask in range(own.num_masks):
            twin = [key(box) for box in other.boxes].index(key(own.boxes[mask]))
            assert (own.prompts[mask].int() - other.prompts[twin].int()).abs().max() <= 2
            assert torch.equal(own.targets[mask], other.targets[twin])
    assert compared > 5


def key(box_4: torch.Tensor) -> tuple[float, ...]:
    return tuple(round(number, 5) for number in box_4.tolist())


def test_images_of_a_batch_do_not_touch_each_other(resident: ResidentSet) -> None:
    places = [3, 0, 3, 4]
    together = resident.examples(
        places, [random.Random(seed) for seed in range(4)], masks_per_image=2, augmentation=WILD
    )
    for index, (place, part) in enumerate(zip(places, together.split(1), strict=True)):
        alone = resident.examples([place], [random.Random(index)], masks_per_image=2, augmentation=WILD)
        for name in ("pixels", "prompts", "targets", "boxes", "owners", "colours"):
            assert torch.equal(getattr(part, name), getattr(alone, name)), name


def test_no_mask_comes_twice_and_none_is_of_another_image(resident: ResidentSet) -> None:
    for seed in range(5):
        examples = resident.examples([2], [random.Random(seed)], masks_per_image=3, augmentation=PLAIN)
        assert sorted(map(key, examples.boxes)) == sorted(
            tuple(round(number, 5) for number in masks.prompt_box(rle)) for rle in pictures()[2][1]
        )


def test_a_blurred_view_keeps_its_masks(resident: ResidentSet) -> None:
    sharp = resident.examples([3], [random.Random(0)], masks_per_image=3, augmentation=PLAIN)
    blurred = resident.examples([3], [random.Random(0)], masks_per_image=3, augmentation=Augmentation(blur=1.0))
    assert not torch.equal(sharp.pixels, blurred.pixels)
    assert (sharp.pixels.float() - blurred.pixels.float()).abs().mean() < 8
    assert torch.equal(sharp.boxes.sort(dim=0).values, blurred.boxes.sort(dim=0).values)


def test_the_size_that_is_told_is_what_it_takes(resident: ResidentSet) -> None:
    told = ResidentSet.num_bytes([StoredImage.of(*one) for one in pictures()])
    taken = resident._pixels_ICC3.nbytes + resident._masks_MCB.nbytes
    assert taken <= told <= 1.2 * taken
