"""Measuring: what is cut where and held against what; each image once, as a stream."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.evaluation.baseline import ShapeCodebook
from pipelines.evaluation.measure import OpenImage, Reconstruction, measure
from pipelines.evaluation.resizing import Grid, mask_tensor, overlaps, shrunk
from samtok_data import masks
from samtok_data.masks import RLE
from tests.pipelines.evaluation_fakes import FakeTokenizer, Rule, box, grey, open_image
from tokenizer_model import SMALL, MaskTokenizer, Prepared, open_tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def small() -> MaskTokenizer:
    return open_tokenizer("small")


def constant(value: float) -> Rule:
    return lambda grid: np.full_like(grid, value)


@pytest.mark.parametrize(
    ("logit", "at_half", "at_0"),
    [(0.75, 0.25, 0.25), (0.5, 0.0, 0.25), (0.25, 0.0, 0.25), (0.0, 0.0, 0.0), (-0.25, 0.0, 0.0)],
)
def test_a_pixel_belongs_to_the_mask_above_the_threshold_not_on_it(logit: float, at_half: float, at_0: float) -> None:
    """The truth is a quarter of the image, the prediction all of it or nothing."""
    image = open_image(box(40, 60, 0, 0, 30, 20))
    found = measure(FakeTokenizer(rule=constant(logit), unquantised=constant(logit)), [image])
    assert found.mean() == found.mean("unquantised") == at_half
    assert found.mean("r_iou_at_0") == found.mean("unquantised_at_0") == at_0


def test_known_overlap() -> None:
    """On an image as large as the grid nothing is resized: 8 pixels in common, 24 together."""

    def moved(prompt_PP: Grid) -> Grid:
        return 20 * np.roll(prompt_PP, 2, axis=1) - 10

    image = open_image(box(16, 16, 4, 4, 8, 8))
    found = measure(FakeTokenizer(side=16, rule=moved), [image])
    assert found.mean() == found.mean("r_iou_at_0") == 8 / 24
    assert found.mean("unquantised") == found.mean("ceiling_own") == 1.0


def test_an_empty_prediction_scores_0_and_counts() -> None:
    """One of two masks is lost: the mean is a half, not one."""

    def large_only(prompt_PP: Grid) -> Grid:
        return 20 * prompt_PP - 10 if prompt_PP.sum() > 30 else np.full_like(prompt_PP, -10)

    found = measure(
        FakeTokenizer(side=16, rule=large_only), [open_image(box(16, 16, 0, 0, 8, 8), box(16, 16, 12, 12, 14, 14))]
    )
    assert found.mean() == 0.5
    assert found.num_masks() == 2


def test_logits_that_are_no_numbers_score_0() -> None:
    found = measure(FakeTokenizer(rule=constant(np.nan)), [open_image(box(40, 60, 0, 0, 30, 20))])
    assert found.mean() == 0.0


def test_the_ceiling_of_a_big_square_and_of_a_thin_line() -> None:
    """A line of one pixel on an image of 1,024 covers a fourth of the cells that it crosses."""
    square, line = box(1024, 1024, 200, 200, 800, 800), box(1024, 1024, 0, 500, 1024, 501)
    of_square = measure(FakeTokenizer(side=64), [open_image(square)])
    of_line = measure(FakeTokenizer(side=64), [open_image(line)])
    for grid in ("ceiling_256", "ceiling_own"):
        assert (of_square.mean(grid) or 0) > 0.99
        assert of_line.mean(grid) == 0.0
    assert (of_square.mean("ceiling_256") or 0) > (of_square.mean("ceiling_own") or 0)


def test_the_ceiling_of_256_needs_no_second_resize_where_it_is_the_tokenizers_own() -> None:
    image = open_image(box(300, 500, 20, 30, 90, 220), box(300, 500, 3, 3, 6, 200))
    at_256 = measure(FakeTokenizer(side=256), [image])
    at_64 = measure(FakeTokenizer(side=64), [image])
    assert at_256.mean("ceiling_own") == at_256.mean("ceiling_256") == at_64.mean("ceiling_256")


def test_masks_are_shrunk_as_the_tokenizer_shrinks_them() -> None:
    rle = box(300, 501, 5, 9, 6, 250)  # larger than the grid: smoothing shows
    prepared = Prepared.of(grey(300, 501), [rle], SMALL)
    np.testing.assert_allclose(shrunk(mask_tensor(rle), SMALL.logit_side).numpy(), prepared.prompts[0], atol=1e-6)


def test_overlaps_counts_pixels() -> None:
    mask_HW = torch.zeros(4, 6, dtype=torch.bool)
    mask_HW[1:3, 1:4] = True
    grid = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert overlaps(mask_HW, grid, (0.5, -1.0)).tolist() == [[4, 14], [6, 24]]  # left half: columns 0 to 2; all


def test_it_is_what_the_tokenizer_reconstructs(small: MaskTokenizer) -> None:
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 256, (height, width, 3), np.uint8) for height, width in ((60, 90), (110, 70))]
    pictures = [Image.fromarray(image) for image in pixels]
    regions = [[box(60, 90, 10, 10, 70, 50), box(60, 90, 0, 0, 90, 60)], [box(110, 70, 20, 5, 60, 100)]]
    images = [
        OpenImage("made", str(place), picture, tuple((str(number), rle) for number, rle in enumerate(rles)))
        for place, (picture, rles) in enumerate(zip(pictures, regions, strict=True))
    ]
    seen: list[Reconstruction] = []
    measure(small, images, observe=seen.append)
    for threshold, variant in ((0.5, "r_iou"), (0.0, "r_iou_at_0")):
        codes, decoded = small.reconstruct(pictures, regions, threshold)
        for found, rles, of_image, predicted in zip(seen, regions, codes, decoded, strict=True):
            expected = [
                masks.intersection_over_union(masks.decode(rle), mask)
                for rle, mask in zip(rles, predicted, strict=True)
            ]
            assert found.measured.ious[variant].tolist() == expected
            np.testing.assert_array_equal(found.measured.codes_nL, of_image)
    assert max(found.measured.ious["r_iou_at_0"].max() for found in seen) > 0


def test_before_quantisation_the_embedding_itself_is_decoded(
    small: MaskTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture, rles = grey(60, 90), [box(60, 90, 10, 10, 70, 50)]
    codes, logits, unquantised = small.reconstruct_logits([small.prepare(picture, rles)])
    np.testing.assert_array_equal(logits[0], small.decode_logits([picture], codes)[0])
    embeddings, _ = small.embed([picture], [rles])
    monkeypatch.setattr(small.quantizer, "decode", lambda _codes: torch.from_numpy(embeddings[0]))
    np.testing.assert_array_equal(unquantised[0], small.decode_logits([picture], codes)[0])
    assert not np.array_equal(unquantised[0], logits[0])


def test_the_backbone_runs_once_for_each_image_with_masks(small: MaskTokenizer) -> None:
    passes: list[int] = []
    hook = small.network.image_encoder.register_forward_hook(
        lambda _module, inputs, _output: passes.append(len(inputs[0]))
    )
    rle = box(40, 40, 4, 4, 20, 20)
    bare = OpenImage("made", "bare", grey(40, 40), ())
    found = measure(small, [open_image(rle, rle), bare, open_image(rle)])
    hook.remove()
    assert sum(passes) == 2
    assert (found.num_images(), found.num_masks()) == (3, 3)


def test_figures_do_not_depend_on_company(small: MaskTokenizer) -> None:
    images = [open_image(box(40, 50 + size, 4, 4, 20 + size, 20), source=f"s{size}") for size in range(3)]
    together = measure(small, images)
    for image in images:
        assert measure(small, [image]).json["by_source"] == {image.source: together.json["by_source"][image.source]}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_measures_the_same(small: MaskTokenizer) -> None:
    """Masks are compared where the tokenizer is; a few pixels at a mask's edge may fall the other way there."""
    rng = np.random.default_rng(0)
    shapes = ShapeCodebook(rng.random((2, 16, 32 * 32), np.float32), 32)
    images = [
        open_image(box(200, 300, 5, 9, 130, 150), box(200, 300, 0, 0, 300, 90), source=str(place)) for place in range(3)
    ]
    on_gpu = measure(open_tokenizer("small", device="cuda"), images, shapes=shapes)
    on_cpu = measure(small, images, shapes=shapes)
    for variant in on_cpu.variants:
        assert on_gpu.mean(variant) == pytest.approx(on_cpu.mean(variant), abs=0.01)
    assert on_gpu.words().json == on_cpu.words().json


def test_a_thousand_images_are_not_held() -> None:
    alive = most = 0

    def freed() -> None:
        nonlocal alive
        alive -= 1

    def images() -> Iterator[OpenImage]:
        nonlocal alive, most
        rle = box(24, 24, 4, 4, 16, 16)
        for number in range(1000):
            image = open_image(rle, name=str(number))
            weakref.finalize(image.picture, freed)
            alive += 1
            most = max(most, alive)
            yield image

    gc.disable()  # what only the collector of cycles frees would be held as well
    try:
        found = measure(FakeTokenizer(side=8), images())
    finally:
        gc.enable()
    assert found.num_masks() == 1000
    assert 1 < most < 40


def test_images_are_seen_in_order() -> None:
    rle = box(24, 24, 4, 4, 16, 16)
    seen: list[str] = []
    tokenizer = FakeTokenizer(side=8)
    names = [str(number) for number in range(23)]
    measure(
        tokenizer, [open_image(rle, name=name) for name in names], observe=lambda found: seen.append(found.image.id)
    )
    assert seen == names
    assert tokenizer.num_images == 23


@pytest.mark.parametrize("fault", ["empty", "size"])
def test_a_mask_that_is_none_is_a_fault(small: MaskTokenizer, fault: str) -> None:
    wrong: dict[str, RLE] = {"empty": box(24, 24, 0, 0, 0, 0), "size": box(24, 25, 4, 4, 9, 9)}
    image: Any = OpenImage("made", "1", grey(24, 24), (("r0", wrong[fault]),))
    with pytest.raises(ValueError, match="region 0: expected a mask"):
        measure(small, [image])
