"""Training examples: what the tokenizer would make of the view, its own masks beside each image, the same again."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from tiny import TINY, blob, blobs, noise_image, tiny_examples

from samtok_data import masks
from samtok_data.masks import RLE, Mask
from tokenizer_model import SMALL, TokenizerConfig
from tokenizer_model.inputs import Prepared
from tokenizer_model.training.augment import SAME_COLOURS, RandomView
from tokenizer_model.training.examples import Examples, coloured, example_of
from tokenizer_model.training.recipe import Augmentation

ALL = Augmentation(crop=0.4, stretch=1.5, flip=0.5, colour=0.5, blur=0.3)
NONE = Augmentation()


def example(
    image: Image.Image,
    regions: Sequence[RLE],
    *,
    config: TokenizerConfig = TINY,
    number: int = 100,
    augmentation: Augmentation = NONE,
    seed: int = 0,
) -> Examples:
    return example_of(
        image, regions, config, masks_per_image=number, augmentation=augmentation, rng=random.Random(seed)
    )


def contents(examples: Examples) -> list[bytes]:
    """Every tensor's bytes."""
    return [getattr(examples, entry.name).numpy().tobytes() for entry in fields(Examples)]


def rows(examples: Examples) -> set[tuple[bytes, bytes, bytes]]:
    """The masks without their order: box, target and prompt of each."""
    columns = (examples.boxes, examples.targets, examples.prompts)
    return {
        (box.tobytes(), target.tobytes(), prompt.tobytes())
        for box, target, prompt in zip(*map(np.asarray, columns), strict=True)
    }


def assert_prepared(found: Examples, image: Image.Image, regions: Sequence[RLE], config: TokenizerConfig) -> None:
    """An example of the whole image holds what the tokenizer reads, its masks in any order."""
    prepared, side = Prepared.of(image, regions, config), config.logit_side
    assert found.num_masks == len(regions)
    left = list(range(len(regions)))
    for prompt_PP, target_PP, box_4 in zip(found.prompts, found.targets, found.boxes, strict=True):
        (index, *_) = [index for index in left if np.array_equal(prepared.pieces.boxes[index], box_4.numpy())]
        left.remove(index)
        whole_11HW = torch.from_numpy(masks.decode(regions[index])).float()[None, None]
        assert torch.equal(target_PP.float(), F.interpolate(whole_11HW, size=(side, side), mode="nearest")[0, 0])
        error_PP = prompt_PP.numpy() / 255 - prepared.prompts[index]
        assert np.abs(error_PP).max() <= 1.01 / 255
    assert left == []
    np.testing.assert_array_equal(found.pixels[0].numpy(), prepared.pixels)


# --- the whole image


def test_without_augmentation_an_example_is_what_the_tokenizer_reads() -> None:
    draw = np.random.default_rng(0)
    image = noise_image(draw, 90, 130)
    regions = blobs(draw, 90, 130, 6)
    assert len({masks.prompt_box(rle) for rle in regions}) == 6
    assert_prepared(example(image, regions), image, regions, TINY)


def test_types_and_shapes_are_as_they_are_documented() -> None:
    draw = np.random.default_rng(1)
    found = example(noise_image(draw, 40, 50), blobs(draw, 40, 50, 3), number=2)
    shapes = {
        entry.name: (tuple(getattr(found, entry.name).shape), getattr(found, entry.name).dtype)
        for entry in fields(Examples)
    }
    assert shapes == {
        "pixels": ((1, 64, 64, 3), torch.uint8),
        "prompts": ((2, 16, 16), torch.uint8),
        "targets": ((2, 16, 16), torch.bool),
        "boxes": ((2, 4), torch.float32),
        "owners": ((2,), torch.int64),
        "colours": ((1, 3, 4), torch.float32),
    }
    assert (found.num_images, found.num_masks, found.owners.tolist()) == (1, 2, [0, 0])
    assert found.colours.flatten().tolist() == list(SAME_COLOURS)


def shape_of(kind: str, draw: np.random.Generator, height: int, width: int) -> Mask:
    """Masks that resizing might get wrong."""
    mask_HW = np.zeros((height, width), np.bool_)
    y, x = draw.integers(0, height), draw.integers(0, width)
    if kind == "full":
        mask_HW[:] = True
    elif kind == "pixel":
        mask_HW[y, x] = True
    elif kind == "corners":
        mask_HW[[0, -1], [0, -1]] = True
    elif kind == "row":
        mask_HW[y] = True
    elif kind == "column":
        mask_HW[:, x] = True
    elif kind == "dust":
        mask_HW = draw.random((height, width)) < 0.2
        mask_HW[y, x] = True
    else:
        mask_HW = blob(draw, height, width)
    return mask_HW


@pytest.mark.parametrize("config", [TINY, SMALL], ids=["16", "128"])
@pytest.mark.parametrize("kind", ["full", "pixel", "corners", "row", "column", "dust", "blob"])
def test_a_mask_of_any_size_is_drawn_as_if_it_were_resized_whole(kind: str, config: TokenizerConfig) -> None:
    """Only the part of the square where the mask is, is computed; sizes of 1 to 400 pixels."""
    draw = np.random.default_rng(len(kind))
    sizes = [(1, 1), (1, 400), (400, 1), (16, 16), (128, 128), (15, 129), (17, 127), (400, 400)]
    sizes += [(int(height), int(width)) for height, width in draw.integers(1, 401, (12, 2))]
    for height, width in sizes:
        image, regions = Image.new("RGB", (width, height)), [masks.encode(shape_of(kind, draw, height, width))]
        assert_prepared(example(image, regions, config=config), image, regions, config)
    assert len(sizes) == 20


# --- views


def test_a_mirrored_example_is_that_of_the_mirrored_image() -> None:
    draw = np.random.default_rng(2)
    image, regions = noise_image(draw, 70, 45), blobs(draw, 70, 45, 4)
    turned = [masks.encode(np.ascontiguousarray(masks.decode(rle)[:, ::-1])) for rle in regions]
    found = example(image, regions, augmentation=Augmentation(flip=1.0))
    expected = example(ImageOps.mirror(image), turned)
    assert rows(found) == rows(expected) != rows(example(image, regions))
    difference = found.pixels.int() - expected.pixels.int()
    assert int(difference.abs().max()) <= 1
    again = example(ImageOps.mirror(image), turned, augmentation=Augmentation(flip=1.0))
    assert rows(again) == rows(example(image, regions))


def test_the_masks_of_a_crop_are_those_of_the_cropped_image() -> None:
    draw, settings, left_out = np.random.default_rng(3), Augmentation(crop=0.2, stretch=2.0, flip=0.5), 0
    image, regions = noise_image(draw, 80, 120), blobs(draw, 80, 120, 8)
    for seed in range(30):
        view = RandomView.draw(120, 80, settings, random.Random(seed))
        x0, y0, x1, y1 = view.box
        part = ImageOps.mirror(image.crop(view.box)) if view.mirrored else image.crop(view.box)
        kept = []
        for rle in regions:
            seen_HW = masks.decode(rle)[y0:y1, x0:x1]
            if seen_HW.sum() >= min(masks.area(rle), max(16, 0.3 * masks.area(rle))):
                kept.append(masks.encode(np.ascontiguousarray(seen_HW[:, ::-1] if view.mirrored else seen_HW)))
        assert kept
        left_out += len(regions) - len(kept)
        found = example(image, regions, augmentation=settings, seed=seed)
        assert rows(found) == rows(example(part, kept))
        # The filter that resizes sees pixels beside the crop, so only the inner part must agree.
        inner = found.pixels[0, 16:48, 16:48].int() - example(part, kept).pixels[0, 16:48, 16:48].int()
        assert float(inner.abs().float().mean()) < 1.5
    assert left_out > 20


HALF = (0, 0, 20, 40)  # of an image of 40 x 40


def show_left_half(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on every view shows the left half of an image of 40 x 40, mirrored and in other colours."""
    view = RandomView(HALF, mirrored=True, colours=(0.5,) * 12)
    monkeypatch.setattr(RandomView, "draw", staticmethod(lambda *_arguments: view))


def across(inside: int, outside: int, row: int = 0) -> RLE:
    """So many pixels left of column 20 and so many right of it, in rows of at most 10 each side."""
    mask_HW = np.zeros((40, 40), np.bool_)
    for pixel in range(inside):
        mask_HW[row + pixel // 10, 19 - pixel % 10] = True
    for pixel in range(outside):
        mask_HW[row + pixel // 10, 20 + pixel % 10] = True
    return masks.encode(mask_HW)


@pytest.mark.parametrize(
    ("inside", "outside", "kept"),
    [
        (30, 70, True), (29, 71, False),  # three tenths must remain
        (60, 140, True), (59, 141, False),
        (16, 14, True), (15, 15, False),  # and 16 pixels
        (16, 0, True), (15, 0, True), (1, 0, True),  # or all of it
        (9, 1, False), (0, 5, False),
    ],
)  # fmt: skip
def test_a_mask_of_which_a_crop_shows_too_little_is_left_out(
    monkeypatch: pytest.MonkeyPatch, inside: int, outside: int, kept: bool
) -> None:
    show_left_half(monkeypatch)
    other = across(50, 0, row=20)
    found = example(noise_image(np.random.default_rng(0), 40, 40), [across(inside, outside), other])
    assert found.num_masks == 1 + kept


def test_where_a_crop_shows_no_mask_the_whole_image_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    image = noise_image(np.random.default_rng(0), 40, 40)
    regions = [across(0, 50), across(5, 60, row=20)]
    turned = [masks.encode(np.ascontiguousarray(masks.decode(rle)[:, ::-1])) for rle in regions]
    expected = example(ImageOps.mirror(image), turned)
    show_left_half(monkeypatch)
    found = example(image, regions)
    assert rows(found) == rows(expected)
    whole = RandomView((0, 0, 40, 40), mirrored=True).of_image(image, 64)
    assert found.pixels[0].numpy().tobytes() == whole.tobytes()
    assert found.colours.flatten().tolist() == [0.5] * 12  # the rest of the view stays
    in_sight = example(image, [*regions, across(50, 0)])
    assert in_sight.num_masks == 1
    assert in_sight.pixels[0].numpy().tobytes() != whole.tobytes()


# --- which masks


@pytest.mark.parametrize(("number", "expected"), [(1, 1), (3, 3), (7, 7), (8, 7)])
def test_an_image_gives_at_most_so_many_masks_and_none_twice(number: int, expected: int) -> None:
    draw = np.random.default_rng(4)
    image, regions = noise_image(draw, 60, 60), blobs(draw, 60, 60, 7)
    every, seen = rows(example(image, regions)), set()
    assert len(every) == 7
    for seed in range(40):
        found = example(image, regions, number=number, seed=seed)
        assert found.num_masks == len(rows(found)) == expected
        assert rows(found) <= every
        seen |= rows(found)
    assert seen == every


def test_masks_that_are_left_out_do_not_count() -> None:
    draw, settings = np.random.default_rng(5), Augmentation(crop=0.2)
    image, regions = noise_image(draw, 80, 80), blobs(draw, 80, 80, 12)
    full = 0
    for seed in range(20):
        all_of_them = example(image, regions, augmentation=settings, seed=seed)
        some = example(image, regions, augmentation=settings, seed=seed, number=3)
        assert some.num_masks == min(3, all_of_them.num_masks)
        assert rows(some) <= rows(all_of_them)
        full += some.num_masks == 3 and all_of_them.num_masks < 12
    assert full > 10


# --- chance


def test_the_same_state_gives_the_same_bytes_and_another_gives_others() -> None:
    draw = np.random.default_rng(6)
    image, regions = noise_image(draw, 60, 80), blobs(draw, 60, 80, 5)
    first, again, other = (example(image, regions, number=3, augmentation=ALL, seed=seed) for seed in (1, 1, 2))
    assert contents(first) == contents(again)
    for one, two in zip(contents(first), contents(other), strict=True):
        assert one != two or one == first.owners.numpy().tobytes()


def test_no_global_generator_is_drawn_from() -> None:
    draw = np.random.default_rng(8)
    image, regions = noise_image(draw, 60, 80), blobs(draw, 60, 80, 5)
    before = random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()  # noqa: NPY002
    example(image, regions, augmentation=ALL)
    assert (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()) == before  # noqa: NPY002


def test_image_and_masks_stay_as_they_were() -> None:
    draw = np.random.default_rng(7)
    image, regions = noise_image(draw, 60, 80), blobs(draw, 60, 80, 5)
    before = image.tobytes(), list(regions)
    for seed in range(5):
        example(image, regions, augmentation=ALL, seed=seed)
    assert (image.tobytes(), regions) == before


# --- parts


@pytest.mark.parametrize("counts", [(2, 1, 3), (1,), (0, 2, 0, 0, 1)], ids=str)
@pytest.mark.parametrize("size", [1, 2, 3, 10])
def test_parts_joined_are_the_whole(counts: tuple[int, ...], size: int) -> None:
    whole = tiny_examples(counts)
    parts = whole.split(size)
    assert [part.num_images for part in parts] == [
        len(counts[start : start + size]) for start in range(0, len(counts), size)
    ]
    assert [part.num_masks for part in parts] == [
        sum(counts[start : start + size]) for start in range(0, len(counts), size)
    ]
    for part in parts:
        assert not part.num_masks or 0 <= int(part.owners.min()) <= int(part.owners.max()) < part.num_images
    assert contents(Examples.joined(parts)) == contents(whole)


def test_a_part_holds_its_images_and_their_own_masks() -> None:
    whole = tiny_examples((2, 1, 3))
    first, second = whole.split(2)
    for name in ("prompts", "targets", "boxes"):
        assert torch.equal(getattr(first, name), getattr(whole, name)[:3])
        assert torch.equal(getattr(second, name), getattr(whole, name)[3:])
    for name in ("pixels", "colours"):
        assert torch.equal(getattr(first, name), getattr(whole, name)[:2])
        assert torch.equal(getattr(second, name), getattr(whole, name)[2:])
    assert (first.owners.tolist(), second.owners.tolist()) == ([0, 0, 1], [0, 0, 0])


def test_joining_counts_images_on() -> None:
    one, other = tiny_examples((2, 0), seed=1), tiny_examples((1, 3), seed=2)
    joined = Examples.joined([one, other, one])
    assert joined.owners.tolist() == [0, 0, 2, 3, 3, 3, 4, 4]
    assert torch.equal(joined.pixels, torch.cat([one.pixels, other.pixels, one.pixels]))
    assert torch.equal(joined.targets, torch.cat([one.targets, other.targets, one.targets]))
    assert one.owners.tolist() == [0, 0]


def test_examples_move_whole() -> None:
    examples = tiny_examples()
    moved = examples.to(torch.device("meta"))
    for entry in fields(Examples):
        tensor = getattr(moved, entry.name)
        assert (tensor.device.type, tensor.shape) == ("meta", getattr(examples, entry.name).shape)


# --- colours


def test_the_same_colours_leave_pixels_as_they_are() -> None:
    examples = tiny_examples()
    same_B34 = torch.tensor(SAME_COLOURS).reshape(1, 3, 4).expand(3, 3, 4)
    found = coloured(examples.pixels, same_B34)
    assert found.dtype == torch.float32
    assert torch.equal(found, examples.pixels.float())


def test_each_images_colours_are_mixed_by_its_own_numbers_and_stay_in_range() -> None:
    pixels_BSS3 = torch.tensor([[[[10, 20, 30]]], [[[200, 100, 0]]]], dtype=torch.uint8)
    colours_B34 = torch.tensor([
        [[0.0, 1.0, 0.0, 0.0], [0.5, 0.0, 0.5, 1.0], [0.0, 0.0, 0.0, 7.0]],
        [[2.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, -150.0], [1.0, 0.5, 0.0, 4.0]],
    ])
    assert coloured(pixels_BSS3, colours_B34).tolist() == [[[[20.0, 21.0, 7.0]]], [[[255.0, 0.0, 254.0]]]]
    assert pixels_BSS3.flatten().tolist() == [10, 20, 30, 200, 100, 0]
