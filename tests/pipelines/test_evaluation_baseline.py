"""The image-blind codebook: it learns shapes, is the same for the same seed, and draws its masks fairly."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from converters.masks.source import MaskedImage
from pipelines.evaluation import baseline
from pipelines.evaluation.baseline import ShapeCodebook, sample_shapes
from pipelines.evaluation.measure import measure
from samtok_data import masks
from samtok_data.errors import SetupError
from samtok_data.masks import RLE
from samtok_data.rejects import Reject
from tests.pipelines.evaluation_fakes import FakeSource, FakeTokenizer, box, masked_image, open_image, source_of

pytestmark = pytest.mark.usefixtures("one_thread")

SIDE = 16
Shapes = NDArray[np.uint8]


def ellipses(number: int, seed: int) -> Shapes:
    """Ellipses of any place and width: uint8, (number, SIDE, SIDE), 0 or 255."""
    rng = np.random.default_rng(seed)
    y_PP, x_PP = np.mgrid[0:SIDE, 0:SIDE]
    centres, radii = rng.uniform(3, SIDE - 3, (number, 2)), rng.uniform(2, 6, (number, 2))
    inside = [((x_PP - x) / a) ** 2 + ((y_PP - y) / b) ** 2 <= 1 for (x, y), (a, b) in zip(centres, radii, strict=True)]
    return np.stack(inside).astype(np.uint8) * 255


def mean_iou(decode: Callable[[NDArray[np.float32]], NDArray[np.float32]], shapes: Shapes) -> float:
    ious = []
    for shape in shapes:
        decoded = decode((shape / 255).astype(np.float32)) > 0.5
        ious.append(masks.intersection_over_union(shape > 0, decoded))
    return float(np.mean(ious))


@pytest.fixture(scope="module")
def codebook() -> ShapeCodebook:
    return ShapeCodebook.fit(ellipses(800, 0), seed=0, rows=32)


def test_it_learns_shapes(codebook: ShapeCodebook) -> None:
    """On ellipses that it has not seen: far better than one mean shape, and each level adds."""
    unseen = ellipses(200, 1)
    mean_shape = (ellipses(800, 0).mean(axis=0) / 255).astype(np.float32)
    best_constant = max(
        mean_iou(lambda _grid, level=level: mean_shape - level + 0.5, unseen) for level in (0.1, 0.2, 0.3)
    )
    first_level = ShapeCodebook(codebook.rows_LKD[:1], SIDE)
    one = mean_iou(lambda grid: first_level.reconstruct(grid)[1], unseen)
    two = mean_iou(lambda grid: codebook.reconstruct(grid)[1], unseen)
    assert best_constant < 0.35
    assert one > best_constant + 0.15
    assert two > one + 0.05


def test_the_same_seed_gives_the_same_rows(codebook: ShapeCodebook) -> None:
    again = ShapeCodebook.fit(ellipses(800, 0), seed=0, rows=32)
    other = ShapeCodebook.fit(ellipses(800, 0), seed=1, rows=32)
    assert again.rows_LKD.tobytes() == codebook.rows_LKD.tobytes()
    assert not np.array_equal(other.rows_LKD, codebook.rows_LKD)


def test_the_generator_of_the_caller_stays_as_it_was() -> None:
    before = torch.get_rng_state()
    ShapeCodebook.fit(ellipses(40, 0), seed=0, rows=8)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_word_is_the_nearest_row_of_each_level(codebook: ShapeCodebook) -> None:
    grid = (ellipses(1, 7)[0] / 255).astype(np.float32)
    before = grid.copy()
    codes, decoded = codebook.reconstruct(grid)
    np.testing.assert_array_equal(grid, before)
    residual = grid.reshape(-1)
    for code, rows in zip(codes, codebook.rows_LKD, strict=True):
        distances = np.linalg.norm(rows - residual, axis=1)
        assert distances[code] == distances.min()
        residual = residual - rows[code]
    np.testing.assert_allclose(decoded.reshape(-1), grid.reshape(-1) - residual, atol=1e-5)
    assert codebook.vocabulary == baseline.MaskVocabulary(32, 2)


def test_fewer_shapes_than_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="expected at least 32 shapes for as many rows, got 31"):
        ShapeCodebook.fit(ellipses(31, 0), seed=0, rows=32)


def test_it_is_measured_on_the_same_masks(codebook: ShapeCodebook) -> None:
    shape = ellipses(1, 3)[0] > 0
    decoded = codebook.reconstruct(shape.astype(np.float32))[1] > 0.5
    image = open_image(masks.encode(shape))
    seen: list[Any] = []
    found = measure(FakeTokenizer(side=8), [image], shapes=codebook, observe=seen.append)
    assert found.mean("baseline") == masks.intersection_over_union(shape, decoded)
    assert found.mean() != found.mean("baseline")
    np.testing.assert_array_equal(seen[0].shape_codes_nL[0], codebook.reconstruct(shape.astype(np.float32))[0])


# --- the masks that it is made of -------------------------------------------------------------------------------------


def unopened(*rles: RLE, name: str) -> MaskedImage:
    def opened() -> Image.Image:
        raise AssertionError("nobody needs the picture")

    return masked_image(*rles, name=name, opened=opened)


def numbered(number: int) -> RLE:
    """A mask that can be told from the others on a 16x16 grid."""
    return masks.encode(np.array([bool(number >> bit & 1) for bit in range(12)] + [True] * 244).reshape(16, 16))


def number_of(shape: Shapes) -> int:
    return sum(1 << bit for bit, value in enumerate(shape.reshape(-1)[:12]) if value)


def thousand(read: list[int] | None = None) -> list[FakeSource]:
    """Two sources with 1,000 masks together, two an image; notes which units are read."""

    def unit(place: int) -> Iterator[MaskedImage | Reject]:
        if read is not None:
            read.append(place)
        yield unopened(numbered(2 * place), numbered(2 * place + 1), name=str(place))

    units = [lambda place=place: unit(place) for place in range(500)]
    return [FakeSource("one", units[:100]), FakeSource("two", units[100:])]


def test_a_small_mix_is_taken_whole() -> None:
    sample = sample_shapes(thousand(), seed=0, side=16)
    assert sample.seen == 1000
    assert sorted(number_of(shape) for shape in sample.shapes_MPP) == list(range(1000))


@pytest.mark.parametrize("one_unit", [False, True], ids=["many units", "one unit"])
def test_a_sample_is_fair_and_the_same_for_the_same_seed(one_unit: bool) -> None:
    """With 300 of 1,000 the mean number is 500, give or take 14; the mean over ten draws 4.4."""

    def drawn(seed: int) -> list[int]:
        sources = thousand()
        if one_unit:
            units = [*sources[0].units, *sources[1].units]
            sources = [FakeSource("one", [lambda: itertools.chain.from_iterable(unit() for unit in units)])]
        return [number_of(shape) for shape in sample_shapes(sources, seed=seed, most=300, side=16).shapes_MPP]

    draws = [drawn(seed) for seed in range(10)]
    for numbers in draws:
        assert len(set(numbers)) == 300
    assert abs(np.mean(draws) - 499.5) < 22
    counts = np.bincount(np.concatenate(draws), minlength=1000)
    assert counts.max() < 10  # no mask is in every draw
    assert drawn(3) == draws[3]
    assert draws[3] != draws[4]


def test_a_large_mix_is_not_read_to_its_end() -> None:
    read: list[int] = []
    sample = sample_shapes(thousand(read), seed=0, most=280, most_seen=600, side=16)
    assert (sample.seen, len(sample.shapes_MPP)) == (600, 280)
    assert len(read) == 300
    assert sorted(read) != list(range(300))  # some of everywhere, not the first


def test_rejects_of_the_training_masks_are_counted() -> None:
    broken = source_of("broken", Reject("a", "mask-empty", "none", None), Reject("b", "mask-empty", "none", None))
    sample = sample_shapes([*thousand(), broken], seed=0, side=16)
    assert sample.rejects.by_reason == {"mask-empty": 2}
    assert sample.seen == 1000


def test_too_few_training_masks_are_refused_by_name() -> None:
    few = source_of("few", *(unopened(box(9, 9, 0, 0, 3, 3), name=str(place)) for place in range(255)))
    with pytest.raises(
        SetupError, match="--baseline-mix: a codebook of 256 rows wants at least as many masks, few have 255"
    ):
        sample_shapes([few], seed=0)
