"""Which reconstructions a report shows, and how they are drawn."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pipelines.drawing import DECODED_COLOUR, TRUE_COLOUR
from pipelines.evaluation.examples import Example, Examples, Kind
from pipelines.evaluation.measure import OpenImage, Reconstruction
from pipelines.evaluation.measurement import MeasuredImage
from samtok_data.masks import RLE
from tests.pipelines.evaluation_fakes import FakeTokenizer, Rule, box, exact, grey

TOKENIZER = FakeTokenizer(side=32)
SQUARE = box(64, 64, 16, 16, 48, 48)


def found(name: str, *ious: float, source: str = "made", rle: RLE = SQUARE, rule: Rule = exact) -> Reconstruction:
    """An image with one mask for each IoU; all decode to what the rule makes of them."""
    regions = tuple((f"r{place}", rle) for place in range(len(ious)))
    image = OpenImage(source, name, grey(rle.height, rle.width), regions)
    codes = np.array([[place, 255] for place in range(len(ious))], np.int64).reshape(-1, 2)
    measured = MeasuredImage(source, tuple(rle for _ in ious), codes, {"r_iou": np.array(ious)})
    prompts = TOKENIZER.prepare(image.picture, [rle for _ in ious]).prompts
    return Reconstruction(image, measured, np.stack([rule(grid) for grid in prompts]) if ious else prompts, None)


def examples_of(*images: Reconstruction, seed: int = 0, each: int = 3) -> Examples:
    examples = Examples(TOKENIZER.vocabulary, TOKENIZER.cut, seed=seed, each=each)
    for image in images:
        examples.add(image)
    return examples


def names(found: list[Example]) -> list[tuple[str, str]]:
    return [(example.image, example.region) for example in found]


FIVE = [found("a", 0.5, 0.9), found("b", 0.1), found("c", 0.95, 0.2, 0.3), found("d", 0.8), found("e", 0.7, 0.6)]


@pytest.mark.parametrize(
    ("kind", "expected", "ious"),
    [
        ("best", [("c", "r0"), ("a", "r1"), ("d", "r0")], [0.95, 0.9, 0.8]),
        ("worst", [("b", "r0"), ("c", "r1"), ("a", "r0")], [0.1, 0.2, 0.5]),
    ],
)
@pytest.mark.parametrize("order", [1, -1])
def test_the_best_and_the_worst_are_shown_one_an_image(
    kind: Kind, expected: list[tuple[str, str]], ious: list[float], order: int
) -> None:
    shown = examples_of(*FIVE[::order]).of("made", kind)
    assert names(shown) == expected
    assert [example.iou for example in shown] == ious


def test_lots_depend_on_the_seed_and_not_on_the_order() -> None:
    images = [found(str(number), *[0.5] * 4) for number in range(20)]
    drawn = names(examples_of(*images, seed=1).of("made", "random"))
    assert names(examples_of(*images[::-1], seed=1).of("made", "random")) == drawn
    assert names(examples_of(*images, seed=2).of("made", "random")) != drawn
    assert len(set(drawn)) == 3
    assert drawn != [("0", "r0"), ("0", "r1"), ("0", "r2")]


def test_every_mask_may_be_drawn() -> None:
    images = [found(str(number), 0.5, 0.5) for number in range(2)]
    drawn = [names(examples_of(*images, seed=seed, each=1).of("made", "random"))[0] for seed in range(30)]
    assert len(set(drawn)) == 4


def test_equal_ious_are_told_apart_by_lot() -> None:
    """A hundred masks are lost altogether: not the first three of them are shown."""
    images = [found(str(number), 0.0) for number in range(100)]
    assert names(examples_of(*images).of("made", "worst")) != [("0", "r0"), ("1", "r0"), ("2", "r0")]


def test_sources_have_their_own() -> None:
    examples = examples_of(found("a", 0.5, source="one"), found("a", 0.6, source="two"), found("b", source="one"))
    assert [example.iou for example in examples.of("one", "best")] == [0.5]
    assert [example.iou for example in examples.of("two", "worst")] == [0.6]
    assert examples.of("three", "random") == []


def test_an_image_that_comes_twice_is_no_fault() -> None:
    assert len(examples_of(*[found("a", 0.5)] * 5).of("made", "best")) == 3


def colours(jpeg: bytes, near: tuple[int, int, int]) -> int:
    """Pixels of about that colour."""
    pixels = np.asarray(Image.open(io.BytesIO(jpeg)), dtype=np.int64)
    return int((np.abs(pixels - near).max(axis=-1) < 40).sum())


def test_the_pictures_show_the_true_outline_and_what_was_decoded() -> None:
    (example,) = examples_of(found("a", 0.5)).of("made", "best")
    for jpeg in (example.true_jpeg, example.decoded_jpeg):
        with Image.open(io.BytesIO(jpeg)) as picture:
            assert (picture.format, picture.size) == ("JPEG", (example.width, example.height))
    assert colours(example.true_jpeg, TRUE_COLOUR) > 500
    assert colours(example.true_jpeg, DECODED_COLOUR) == 0
    assert colours(example.decoded_jpeg, DECODED_COLOUR) > 500
    assert colours(example.decoded_jpeg, TRUE_COLOUR) == 0
    assert example.word == "<|mt_start|><|mt_0000|><|mt_0511|><|mt_end|>"
    assert example.size == "10 % and above"


def test_what_was_lost_is_not_drawn() -> None:
    """The right picture shows the decoded mask, not the true one; on the logit of the published cut it is empty."""
    lost = found("a", 0.0, rule=lambda grid: np.full_like(grid, 0.5))
    (example,) = examples_of(lost).of("made", "best")
    assert colours(example.true_jpeg, TRUE_COLOUR) > 500
    assert colours(example.decoded_jpeg, DECODED_COLOUR) == 0


def test_a_small_mask_is_shown_from_near_by() -> None:
    rle = box(1000, 1000, 500, 500, 510, 510)
    (example,) = examples_of(found("a", 0.5, rle=rle)).of("made", "best")
    side = np.sqrt(colours(example.true_jpeg, (90, 90, 90)) / (example.width * example.height))
    assert colours(example.true_jpeg, TRUE_COLOUR) > 300
    assert side < 0.999
    assert example.size == "below 0.1 %"


@pytest.mark.parametrize(("height", "width"), [(300, 40), (40, 300), (1, 500), (64, 64)])
def test_pictures_keep_their_proportions(height: int, width: int) -> None:
    (example,) = examples_of(found("a", 0.5, rle=box(height, width, 0, 0, width, height))).of("made", "best")
    assert example.width <= 400
    assert example.height <= 300
    assert max(example.width / 400, example.height / 300) == 1
    assert abs(example.width * height / width - example.height) <= 0.5 * max(height / width, 1) + 1
