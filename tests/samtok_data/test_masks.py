"""Reading the five encodings of a COCO mask, and what is read off a mask."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from samtok_data import masks
from samtok_data.errors import RecordError
from samtok_data.masks import RLE, Mask

# 4 rows, 5 columns; column-major the pixels 5..7 and 9..10 are foreground.
HEIGHT, WIDTH = 4, 5
RUNS = [5, 3, 1, 2, 9]
COUNTS = "531O8"
MASK = np.array([[0, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 1, 1, 0, 0], [0, 1, 0, 0, 0]], dtype=np.bool_)

SQUARE = [1, 1, 3, 1, 3, 3, 1, 3]  # pixels (1..2, 1..2)

some_masks = hnp.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))
marked_masks = some_masks.filter(lambda mask: bool(mask.any()))


def read(segmentation: Any) -> Mask:
    return masks.decode(masks.read_segmentation(segmentation, HEIGHT, WIDTH))


def naive_runs(mask_HW: Mask) -> list[int]:
    """Run lengths by counting, column-major, background first."""
    runs, value = [0], False
    for pixel in mask_HW.T.ravel().tolist():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return runs


@pytest.mark.parametrize(
    "segmentation",
    [
        pytest.param({"size": [4, 5], "counts": RUNS}, id="uncompressed"),
        pytest.param({"size": (4, 5), "counts": tuple(RUNS)}, id="uncompressed-tuples"),
        pytest.param({"size": [4, 5], "counts": COUNTS}, id="compressed-str"),
        pytest.param({"size": [4, 5], "counts": COUNTS.encode()}, id="compressed-bytes"),
        pytest.param({"counts": COUNTS, "size": [4, 5], "id": 7, "label": None}, id="further-fields-say-nothing"),
        pytest.param([{"size": [4, 5], "counts": COUNTS}], id="list-of-one"),
        pytest.param([{"size": [4, 5], "counts": [5, 3, 12]}, {"size": [4, 5], "counts": "929"}], id="list-of-two"),
        pytest.param([{"size": [4, 5], "counts": COUNTS}] * 3, id="list-of-the-same"),
    ],
)
def test_every_rle_encoding_gives_the_same_mask(segmentation: Any) -> None:
    np.testing.assert_array_equal(read(segmentation), MASK)
    assert masks.read_segmentation(segmentation, HEIGHT, WIDTH) == RLE(HEIGHT, WIDTH, COUNTS)


@pytest.mark.parametrize(
    ("polygons", "foreground"),
    [
        pytest.param([SQUARE], 4, id="ints"),
        pytest.param([[float(number) for number in SQUARE]], 4, id="floats"),
        pytest.param((tuple(SQUARE),), 4, id="tuples"),
        pytest.param([SQUARE, SQUARE], 4, id="overlap-counts-once"),
        pytest.param([SQUARE, [2, 2, 5, 2, 5, 4, 2, 4]], 9, id="union"),
        pytest.param([[-1, -1, 6, -1, 6, 5, -1, 5]], 20, id="over-the-edge"),
        pytest.param([SQUARE, [4.2, 1, 4.2, 1, 4.2, 1]], 4, id="a-part-without-pixels"),
    ],
)
def test_polygons_are_drawn_and_united(polygons: Any, foreground: int) -> None:
    assert read(polygons).sum() == foreground


_POINT = "segmentation: no foreground pixel on 5x4"
_SIZE = "RLE: expected size [4, 5], got {}"
_CUT = "RLE: the counts string is cut or holds a foreign character"
_RUNS = "RLE: expected whole, non-negative run lengths"
_FIELDS = "RLE: expected the fields 'size' and 'counts'"


def _rle(counts: Any, size: Any = (4, 5)) -> dict[str, Any]:
    return {"size": list(size) if isinstance(size, tuple) else size, "counts": counts}


@pytest.mark.parametrize(
    ("segmentation", "reason", "message"),
    [
        ([], "mask-empty", "segmentation: expected polygons or an RLE, got an empty list"),
        (None, "mask-invalid", "segmentation: expected a list or an RLE, got NoneType"),
        ("531O8", "mask-invalid", "segmentation: expected a list or an RLE, got str"),
        (b"531O8", "mask-invalid", "segmentation: expected a list or an RLE, got bytes"),
        (7, "mask-invalid", "segmentation: expected a list or an RLE, got int"),
        (np.zeros((4, 5)), "mask-invalid", "segmentation: expected a list or an RLE, got ndarray"),
        # Polygons.
        ([1, 1, 3, 1, 3, 3], "mask-invalid", "polygon: expected a list of numbers, got int"),
        (["113133"], "mask-invalid", "polygon: expected a list of numbers, got str"),
        ([[1, 1, 3, 3]], "mask-invalid", "polygon: expected 6 numbers or more, got 4"),
        ([SQUARE, [1, 1, 3, 3]], "mask-invalid", "polygon: expected 6 numbers or more, got 4"),
        ([[]], "mask-invalid", "polygon: expected 6 numbers or more, got 0"),
        ([[1, 1, 3, 1, 3, 3, 1]], "mask-invalid", "polygon: expected x, y pairs, got an odd number (7)"),
        ([[1, 1, 3, 1, 3]], "mask-invalid", "polygon: expected x, y pairs, got an odd number (5)"),
        ([[1, 1, 3, 1, 3, float("nan")]], "mask-invalid", "polygon: nan is no coordinate of a 5x4 image"),
        ([[1, 1, 3, 1, 3, float("inf")]], "mask-invalid", "polygon: inf is no coordinate of a 5x4 image"),
        ([[1, 1, 3, 1, 3, -float("inf")]], "mask-invalid", "polygon: -inf is no coordinate of a 5x4 image"),
        ([[1, 1, 3, 1, 3, 1e9]], "mask-invalid", "polygon: 1000000000.0 is no coordinate of a 5x4 image"),
        ([[1, 1, 3, 1, 3, 10**400]], "mask-invalid", f"polygon: {10**400} is no coordinate of a 5x4 image"),
        ([[1, 1, 3, 1, 3, "3"]], "mask-invalid", "polygon: '3' is no coordinate of a 5x4 image"),
        ([[1, 1, 3, 1, 3, None]], "mask-invalid", "polygon: None is no coordinate of a 5x4 image"),
        ([[[1, 1], [3, 1]] * 3], "mask-invalid", "polygon: [1, 1] is no coordinate of a 5x4 image"),
        ([SQUARE, _rle(RUNS)], "mask-invalid", "polygon: expected a list of numbers, got dict"),
        ([[2, 2, 2, 2, 2, 2]], "mask-empty", _POINT),
        ([[-5, -5, -3, -5, -3, -3]], "mask-empty", _POINT),
        # RLEs.
        ({}, "mask-invalid", _FIELDS),
        ({"size": [4, 5]}, "mask-invalid", _FIELDS),
        ({"counts": RUNS}, "mask-invalid", _FIELDS),
        ([_rle(RUNS), SQUARE], "mask-invalid", _FIELDS),
        (_rle(RUNS, (5, 4)), "mask-size", _SIZE.format("[5, 4]")),
        (_rle(RUNS, (4, 5, 1)), "mask-size", _SIZE.format("[4, 5, 1]")),
        (_rle(RUNS, 20), "mask-size", _SIZE.format("20")),
        (_rle(RUNS, None), "mask-size", _SIZE.format("None")),
        ([_rle(RUNS), _rle("531O8", (5, 4))], "mask-size", _SIZE.format("[5, 4]")),
        (_rle([5, 3, 11]), "mask-size", "RLE: expected 20 pixels, got runs of 19"),
        (_rle([5, 3, 13]), "mask-size", "RLE: expected 20 pixels, got runs of 21"),
        (_rle("53="), "mask-size", "RLE: expected 20 pixels, got runs of 21"),
        (_rle([]), "mask-size", "RLE: expected 20 pixels, got runs of 0"),
        (_rle(""), "mask-size", "RLE: expected 20 pixels, got runs of 0"),
        (_rle([10**30, 3]), "mask-size", f"RLE: expected 20 pixels, got runs of {10**30 + 3}"),
        (_rle([5, -3, 18]), "mask-invalid", _RUNS),
        (_rle([5, 3.0, 12]), "mask-invalid", _RUNS),
        (_rle([5, "3", 12]), "mask-invalid", _RUNS),
        (_rle([5, None, 15]), "mask-invalid", _RUNS),
        (_rle("5M"), "mask-invalid", _RUNS),  # 5, -3
        (_rle(20), "mask-invalid", "RLE: expected counts as str or list, got int"),
        (_rle(None), "mask-invalid", "RLE: expected counts as str or list, got NoneType"),
        (_rle("531O\u00e9"), "mask-invalid", "RLE: expected ASCII counts"),
        (_rle("53 1O8"), "mask-invalid", _CUT),
        (_rle("531O8\n"), "mask-invalid", _CUT),
        (_rle(b"531O8\xff"), "mask-invalid", _CUT),
        (_rle("53p"), "mask-invalid", _CUT),
        (_rle("5P"), "mask-invalid", _CUT),  # "P" says that more bits follow
        (_rle("P" * 100_000), "mask-invalid", _CUT),
        (_rle("o" * 5000 + "1"), "mask-invalid", _CUT),  # one number of 7,500 digits
        (_rle("o" * 12 + "1"), "mask-invalid", _CUT),
        (_rle("o" * 11 + "?"), "mask-invalid", _RUNS),  # 12 characters: 2**59 - 1
        (_rle(("o" * 11 + "?") * 32), "mask-invalid", _RUNS),  # whose sum would be -32 in 64 bits
        (_rle([20]), "mask-empty", _POINT),
        (_rle([20, 0]), "mask-empty", _POINT),
        (_rle([0, 0, 20]), "mask-empty", _POINT),
        ([_rle([20]), _rle([20])], "mask-empty", _POINT),
    ],
)  # fmt: skip
def test_what_is_no_mask_is_refused_by_name(segmentation: Any, reason: str, message: str) -> None:
    with pytest.raises(RecordError) as caught:
        masks.read_segmentation(segmentation, HEIGHT, WIDTH)
    assert (caught.value.reason, caught.value.message) == (reason, message)


def test_four_numbers_are_not_drawn_as_a_box() -> None:
    """pycocotools draws [x, y, w, h] of them; and only the first polygon's length decides how all are read."""
    for polygons in ([[0, 0, 4, 4]], [[0, 0, 4, 4], SQUARE], [SQUARE, [0, 0, 4, 4]]):
        with pytest.raises(RecordError, match=re.escape("expected 6 numbers or more, got 4 [mask-invalid]")):
            masks.read_segmentation(polygons, HEIGHT, WIDTH)


def test_a_coordinate_may_lie_an_image_outside_but_not_further() -> None:
    assert read([[-10, -10, 10, -10, 10, 10, -10, 10]]).all()
    with pytest.raises(RecordError, match=re.escape("polygon: 10.5 is no coordinate")):
        read([[-10, -10, 10.5, -10, 10, 10, -10, 10]])


def test_runs_of_no_pixel_do_not_change_the_mask_or_its_spelling() -> None:
    for runs in ([5, 3, 1, 2, 9, 0], [5, 1, 0, 2, 1, 2, 9], [5, 3, 1, 2, 4, 0, 5], [0, 0, *RUNS]):
        rle = masks.read_segmentation(_rle(runs), HEIGHT, WIDTH)
        assert (rle.counts, masks.coco_box(rle)) == (COUNTS, (1, 1, 2, 3))


@pytest.mark.parametrize("segmentation", [[SQUARE, SQUARE], _rle(list(RUNS)), _rle(COUNTS), [_rle(list(RUNS))] * 2])
def test_the_argument_is_not_changed(segmentation: Any) -> None:
    before = copy.deepcopy(segmentation)
    masks.read_segmentation(segmentation, HEIGHT, WIDTH)
    assert segmentation == before


def test_an_rle_of_known_bytes() -> None:
    rle = masks.encode(MASK)
    assert rle == RLE(4, 5, "531O8")
    assert rle.json == {"size": [4, 5], "counts": "531O8"}
    assert rle.coco == {"size": [4, 5], "counts": b"531O8"}
    assert json.loads(json.dumps(rle.json)) == rle.json
    assert (masks.area(rle), masks.coco_box(rle)) == (5, (1, 1, 2, 3))
    assert masks.prompt_box(rle) == (1 / 5, 1 / 4, 2 / 5, 3 / 4)


def test_the_boxes_of_one_pixel_and_of_no_pixel() -> None:
    pixel_HW = np.zeros((4, 5), dtype=np.bool_)
    assert masks.coco_box(masks.encode(pixel_HW)) == (0, 0, 0, 0)
    pixel_HW[3, 4] = True
    assert masks.coco_box(masks.encode(pixel_HW)) == (4, 3, 1, 1)
    assert masks.prompt_box(masks.encode(pixel_HW)) == (4 / 5, 3 / 4, 4 / 5, 3 / 4)


@given(some_masks)
def test_encode_and_decode_are_inverse(mask_HW: Mask) -> None:
    before = mask_HW.copy()
    rle = masks.encode(mask_HW)
    np.testing.assert_array_equal(mask_HW, before)
    decoded_HW = masks.decode(rle)
    assert decoded_HW.dtype == np.bool_
    np.testing.assert_array_equal(decoded_HW, mask_HW)
    assert masks.area(rle) == mask_HW.sum()


@given(some_masks)
def test_memory_layout_does_not_matter(mask_HW: Mask) -> None:
    rle = masks.encode(np.ascontiguousarray(mask_HW))
    assert masks.encode(np.asfortranarray(mask_HW)) == rle
    assert masks.encode(np.repeat(mask_HW, 2, axis=1)[:, ::2]) == rle


@given(marked_masks)
def test_all_encodings_of_a_mask_are_read_as_one(mask_HW: Mask) -> None:
    height, width = mask_HW.shape
    rle = masks.encode(mask_HW)
    uncompressed = {"size": [height, width], "counts": naive_runs(mask_HW)}
    for segmentation in (rle.json, rle.coco, uncompressed, [rle.json, uncompressed]):
        assert masks.read_segmentation(segmentation, height, width) == rle


@given(marked_masks)
def test_the_boxes_are_those_of_numpy(mask_HW: Mask) -> None:
    height, width = mask_HW.shape
    rows, columns = np.nonzero(mask_HW)
    x0, y0, x1, y1 = columns.min(), rows.min(), columns.max(), rows.max()
    rle = masks.encode(mask_HW)
    x, y, w, h = masks.coco_box(rle)
    assert (x, y, w, h) == (x0, y0, x1 - x0 + 1, y1 - y0 + 1)
    assert mask_HW[y : y + h, x : x + w].sum() == mask_HW.sum()
    assert masks.prompt_box(rle) == (x0 / width, y0 / height, x1 / width, y1 / height)


@given(hnp.arrays(np.bool_, st.tuples(st.integers(1, 4), st.integers(1, 8), st.integers(1, 8))))
def test_a_union_holds_the_pixels_of_any_part(masks_NHW: Mask) -> None:
    parts = [masks.encode(mask_HW) for mask_HW in masks_NHW]
    united = masks.union(parts)
    np.testing.assert_array_equal(masks.decode(united), masks_NHW.any(axis=0))
    assert masks.union(parts[::-1]) == masks.union([united, *parts]) == united


@given(marked_masks, st.integers(1, 50))
def test_a_cut_counts_string_is_never_read(mask_HW: Mask, cut: int) -> None:
    height, width = mask_HW.shape
    counts = masks.encode(mask_HW).counts
    with pytest.raises(RecordError):
        masks.read_segmentation({"size": [height, width], "counts": counts[: -min(cut, len(counts))]}, height, width)


@given(st.text(st.characters(max_codepoint=127), max_size=12))
def test_any_ascii_counts_string_is_read_or_refused(counts: str) -> None:
    """Never another error, and never a crash in pycocotools' C code."""
    try:
        rle = masks.read_segmentation({"size": [4, 5], "counts": counts}, 4, 5)
    except RecordError:
        return
    assert masks.encode(masks.decode(rle)) == rle


def test_a_real_crowd_annotation_has_the_area_of_its_runs(samples: Path) -> None:
    """Its "area" field is that of another annotation tool: it is not to be trusted."""
    annotation = json.loads((samples / "refseg/gref_issues/issue7_iscrowd_annotation.json").read_text())
    height, width = annotation["segmentation"]["size"]
    rle = masks.read_segmentation(annotation["segmentation"], height, width)
    assert (int(annotation["area"]), masks.area(rle)) == (2517, 2188)
    assert masks.area(rle) == sum(annotation["segmentation"]["counts"][1::2])


def test_real_compressed_results_are_read_as_they_are(samples: Path) -> None:
    results = json.loads((samples / "refseg/cocoapi/instances_val2014_fakesegm100_results.json").read_text())
    assert len(results) == 734
    for result in results:
        height, width = result["segmentation"]["size"]
        rle = masks.read_segmentation(result["segmentation"], height, width)
        assert rle.json == result["segmentation"]
        assert masks.encode(masks.decode(rle)) == rle


def test_real_polygons_have_the_annotated_box_and_area(samples: Path) -> None:
    source = json.loads((samples / "refseg/mmpose_coco/test_coco.json").read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in source["images"]}
    polygons = [one for one in source["annotations"] if isinstance(one["segmentation"], list)]
    assert len(polygons) > 5
    for annotation in polygons:
        rle = masks.read_segmentation(annotation["segmentation"], *sizes[annotation["image_id"]])
        assert masks.area(rle) == pytest.approx(annotation["area"], rel=0.05)
        np.testing.assert_allclose(masks.coco_box(rle), annotation["bbox"], atol=1.5)
