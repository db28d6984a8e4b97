"""The figures themselves: means by source and size, use of the codes, collisions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from pipelines.evaluation.measurement import HISTOGRAM_BINS, SIZE_CLASSES, MeasuredImage, Measurement, size_class
from pipelines.evaluation.words import WordStatistics
from samtok_data.masks import RLE
from tests.pipelines.evaluation_fakes import box

TINY, SMALL, MIDDLE, LARGE = range(4)


def mask_of(area: int, pixels: int = 10_000) -> RLE:
    """One row of pixels, ``area`` of them foreground, of an image of ``pixels``."""
    return box(1, pixels, 0, 0, area, 1)


def measured(source: str, *masks: tuple[int, float, float]) -> MeasuredImage:
    """An image of 10,000 pixels; of each mask its area, its r-IoU and its r-IoU at 0. Codes are all different."""
    areas, ious, at_0 = zip(*masks, strict=True)
    codes = np.array([[place, place] for place in range(len(masks))], np.int64)
    figures = {"r_iou": np.array(ious), "r_iou_at_0": np.array(at_0)}
    return MeasuredImage(source, tuple(mask_of(area) for area in areas), codes, figures)


@pytest.fixture
def measurement() -> Measurement:
    """Two sources: a has 4 masks in two images, b one mask."""
    total = Measurement(256, 2)
    total.add(measured("a", (5, 0.0, 0.125), (50, 0.5, 0.25), (5000, 1.0, 1.0)))
    total.add(measured("a", (60, 0.25, 0.75)))
    total.add(measured("b", (500, 0.75, 0.5)))
    return total


@pytest.mark.parametrize(
    ("source", "size", "number", "r_iou", "at_0"),
    [
        (None, None, 5, 0.5, 0.525),
        ("a", None, 4, 0.4375, 0.53125),
        ("b", None, 1, 0.75, 0.5),
        (None, TINY, 1, 0.0, 0.125),
        (None, SMALL, 2, 0.375, 0.5),
        (None, MIDDLE, 1, 0.75, 0.5),
        (None, LARGE, 1, 1.0, 1.0),
        ("a", MIDDLE, 0, None, None),
        ("b", MIDDLE, 1, 0.75, 0.5),
        ("b", TINY, 0, None, None),
    ],
)
def test_means_by_source_and_size(
    measurement: Measurement, source: str | None, size: int | None, number: int, r_iou: float | None, at_0: float | None
) -> None:
    assert measurement.num_masks(source, size) == number
    assert measurement.mean(source=source, size=size) == r_iou
    assert measurement.mean("r_iou_at_0", source=source, size=size) == at_0


def test_every_mask_has_the_same_weight_whatever_its_image_and_size() -> None:
    total = Measurement(256, 2)
    total.add(measured("a", (5, 0.5, 0.0), (50, 0.125, 0.0), (60, 0.375, 0.0)))
    total.add(measured("b", (5000, 1.0, 1.0)))
    assert total.mean() == 0.5
    assert total.mean(size=SMALL) == 0.25


def test_the_json_holds_the_same_figures(measurement: Measurement) -> None:
    values = measurement.json
    assert values["all"]["masks"] == 5
    assert values["all"]["r_iou"] == 0.5
    assert values["by_source"]["a"]["images"] == 2
    assert values["by_source"]["a"]["by_size"]["0.001-0.01"] == {"masks": 2, "r_iou": 0.375, "r_iou_at_0": 0.5}
    assert values["by_source"]["b"]["by_size"]["0-0.001"] == {"masks": 0, "r_iou": None, "r_iou_at_0": None}
    for of_source in (values["all"], *values["by_source"].values()):
        assert sum(entry["masks"] for entry in of_source["by_size"].values()) == of_source["masks"]
        assert list(of_source["by_size"]) == [kind.key for kind in SIZE_CLASSES]


@pytest.mark.parametrize(
    ("area", "pixels", "expected"),
    [
        (1, 1001, TINY),
        (1, 1000, SMALL),
        (9, 1000, SMALL),
        (10, 1000, MIDDLE),
        (99, 1000, MIDDLE),
        (100, 1000, LARGE),
        (1000, 1000, LARGE),
        (153, 481 * 321, TINY),
        (155, 481 * 321, SMALL),
    ],
)
def test_a_class_of_size_begins_with_its_lower_bound(area: int, pixels: int, expected: int) -> None:
    assert size_class(mask_of(area, pixels)) == expected


def test_histograms_hold_every_mask_once(measurement: Measurement) -> None:
    counts = measurement.histogram()
    assert len(counts) == HISTOGRAM_BINS
    assert {place: count for place, count in enumerate(counts.tolist()) if count} == {0: 1, 5: 1, 10: 1, 15: 1, 19: 1}
    assert measurement.histogram(source="b").tolist() == [0] * 15 + [1] + [0] * 4
    assert measurement.histogram("baseline").sum() == 0


def test_an_image_without_masks_changes_no_figure(measurement: Measurement) -> None:
    before = measurement.json["all"]
    measurement.add(MeasuredImage("a", (), np.empty((0, 2), np.int64), {}))
    after = measurement.json["all"]
    assert after.pop("images") == before.pop("images") + 1
    assert after == before


def test_nothing_measured_gives_no_figures() -> None:
    empty = Measurement(256, 2)
    assert empty.mean() is None
    assert empty.num_masks() == empty.num_images() == 0
    assert empty.json["all"]["collisions"]["share_of_images"] is None
    assert empty.json["all"]["codebook"][0] == {"used": 0, "of": 256, "share": None, "perplexity": None}


@pytest.mark.parametrize(
    ("ious", "message"),
    [
        ({"r_iou": np.zeros(2)}, r"r_iou: expected 1 IoUs of a variant, got shape \(2,\)"),
        ({"iou": np.zeros(1)}, r"iou: expected 1 IoUs of a variant, got shape \(1,\)"),
    ],
)
def test_wrong_ious_are_refused(ious: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Measurement(256, 2).add(MeasuredImage("a", (mask_of(5),), np.zeros((1, 2), np.int64), ious))


# --- words ----------------------------------------------------------------------------------------------------------


def statistics(*images: list[tuple[int, tuple[int, int]]]) -> WordStatistics:
    """Of each image the masks, by area (equal areas are equal masks), and their codes of four."""
    words = WordStatistics(4, 2)
    for image in images:
        words.add([mask_of(area) for area, _ in image], np.array([codes for _, codes in image]).reshape(-1, 2))
    return words


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([2, 2, 2, 2], 1.0),
        ([0, 1, 2, 3], 4.0),
        ([0, 0, 3, 3], 2.0),
        ([0, 0, 1, 2], 2 * math.sqrt(2)),  # entropy 1.5 bits
    ],
)
def test_perplexity(codes: list[int], expected: float) -> None:
    words = statistics(*[[(5, (code, 0))] for code in codes])
    assert words.perplexities == [pytest.approx(expected), 1.0]


def test_use_of_the_codes_is_counted_by_level() -> None:
    words = statistics([(5, (0, 3)), (6, (1, 3))], [(5, (0, 3))])
    assert words.counts.tolist() == [[2, 1, 0, 0], [0, 0, 0, 3]]
    first, second = words.json["levels"]
    assert (first["used"], first["of"], first["share"]) == (2, 4, 0.5)
    assert (second["used"], second["of"], second["share"], second["perplexity"]) == (1, 4, 0.25, 1.0)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        pytest.param([(5, (1, 1))], (0, 0, 0, 0), id="one mask"),
        pytest.param([(5, (1, 1)), (6, (1, 2))], (1, 0, 2, 0), id="words that differ in the last code"),
        pytest.param([(5, (1, 1)), (6, (1, 1))], (1, 1, 2, 2), id="one word"),
        pytest.param([(5, (1, 1)), (5, (1, 1))], (0, 0, 0, 0), id="the same mask twice"),
        pytest.param([(5, (1, 1)), (5, (1, 1)), (6, (2, 1))], (1, 0, 2, 0), id="twice, beside another"),
        pytest.param([(5, (1, 1)), (5, (1, 1)), (6, (1, 1))], (1, 1, 2, 2), id="twice, and another with its word"),
        pytest.param([(5, (1, 1)), (6, (1, 1)), (7, (2, 1))], (1, 1, 3, 2), id="two of three"),
        pytest.param([(5, (1, 1)), (6, (1, 1)), (7, (2, 1)), (8, (2, 1))], (1, 1, 4, 4), id="two pairs"),
    ],
)
def test_collisions(image: list[tuple[int, tuple[int, int]]], expected: tuple[int, int, int, int]) -> None:
    words = statistics(image)
    assert (words.images, words.images_with_collision, words.masks, words.masks_in_collision) == expected


def test_collisions_are_shares_of_images_that_could_have_one() -> None:
    lone = [(5, (1, 1))]
    words = statistics(lone, lone, [(5, (1, 1)), (6, (1, 1))], [(5, (0, 1)), (6, (1, 1)), (7, (2, 1))])
    collisions = words.json["collisions"]
    assert collisions["share_of_images"] == 0.5
    assert collisions["share_of_masks"] == 0.4
    assert words.counts.sum() == 2 * 7


def test_masks_of_two_images_may_share_a_word() -> None:
    assert statistics([(5, (1, 1)), (7, (0, 0))], [(6, (1, 1)), (8, (0, 0))]).images_with_collision == 0


def test_statistics_add_up() -> None:
    one, other = [(5, (1, 1)), (6, (1, 1))], [(5, (0, 3)), (7, (1, 2))]
    total = statistics(one)
    total += statistics(other)
    assert total.json == statistics(one, other).json


def test_words_of_all_sources_are_those_of_each() -> None:
    total = Measurement(256, 2)
    total.add(measured("a", (5, 1, 1), (6, 1, 1)))
    total.add(measured("b", (5, 1, 1)))
    assert total.words("a").counts[0, :2].tolist() == [1, 1]
    assert total.words("b").counts[0, :2].tolist() == [1, 0]
    assert total.words().counts[0, :2].tolist() == [2, 1]


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ([[0, 4]], r"expected codes in 0\.\.3, got some in 0\.\.4"),
        ([[-1, 0]], r"expected codes in 0\.\.3, got some in -1\.\.0"),
        ([[0, 0], [0, 0]], r"expected codes of shape \(1, 2\), got \(2, 2\)"),
    ],
)
def test_wrong_codes_are_refused(codes: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WordStatistics(4, 2).add([mask_of(5)], np.array(codes))
