"""Masks as COCO run-length encodings (RLE), and the boxes that are read off them.

Frame: pixel (0, 0) is the top left one; x grows to the right, y downwards. Sizes are (height, width).
Runs are column-major and start with background, as in COCO.
Format facts: pycocotools (cocoapi/common/maskApi.c) and the COCO annotation files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from samtok_data.errors import RecordError
from samtok_data.many_masks import plain, unpack

Mask = NDArray[np.bool_]

# A polygon needs three corners. pycocotools reads four numbers as a box [x, y, w, h]: never let them through.
MIN_POLYGON_NUMBERS = 6
_NO_RUNS = "RLE: expected whole, non-negative run lengths"


@dataclass(frozen=True, slots=True)
class RLE:
    """One binary mask, compressed.

    Attributes:
        height: rows, in pixels, at least 1.
        width: columns, in pixels, at least 1.
        counts: COCO's compressed run lengths, ASCII.
    """

    height: int
    width: int
    counts: str

    @property
    def coco(self) -> Any:
        """The form that pycocotools takes: ``{"size": [height, width], "counts": bytes}``."""
        return {"size": [self.height, self.width], "counts": self.counts.encode("ascii")}

    @property
    def json(self) -> dict[str, Any]:
        """The form that JSON files hold: ``{"size": [height, width], "counts": str}``."""
        return {"size": [self.height, self.width], "counts": self.counts}


def encode(mask_HW: Mask) -> RLE:
    """Compresses a mask.

    Args:
        mask_HW: bool, shape (height, width).
    """
    height, width = mask_HW.shape
    return _from_coco(coco.encode(np.asfortranarray(mask_HW, dtype=np.uint8)), height, width)


def decode(rle: RLE) -> Mask:
    """The mask as bool, shape (height, width)."""
    return coco.decode(rle.coco).astype(np.bool_)


def area(rle: RLE) -> int:
    """Foreground pixels."""
    return int(coco.area(rle.coco))


def union(parts: Sequence[RLE]) -> RLE:
    """The pixels that belong to any of the masks; all of one size, at least one."""
    first = parts[0]
    if len(parts) == 1:
        return first
    return _from_coco(coco.merge([part.coco for part in parts]), first.height, first.width)


def read_segmentation(segmentation: Any, height: int, width: int) -> RLE:
    """Reads any of the five encodings of a COCO ``segmentation`` field; the argument is not changed.

    1. list of polygons ``[[x1, y1, x2, y2, ...], ...]``, absolute pixels, united (overlaps count once);
    2. ``{"size": [h, w], "counts": [int, ...]}``, uncompressed RLE;
    3. ``{"size": [h, w], "counts": str | bytes}``, compressed RLE;
    4. list of such RLE dicts, united (RefCLEF);
    5. ``[]``, an empty mask.

    Args:
        segmentation: the field as a JSON or pickle parser returned it.
        height: rows of the image that the mask is drawn on.
        width: columns of that image.

    Raises:
        RecordError: ``mask-invalid`` (odd or short polygon, broken RLE), ``mask-size`` (RLE of another
            size), ``mask-empty`` (no foreground pixel).
    """
    return _measured(segmentation, height, width)[0]


def _measured(segmentation: Any, height: int, width: int) -> tuple[RLE, int]:
    """As ``read_segmentation``, with the foreground pixels."""
    if isinstance(segmentation, Mapping):
        rle = _read_rle(segmentation, height, width)
    elif isinstance(segmentation, Sequence) and not isinstance(segmentation, str | bytes):
        if not segmentation:
            raise RecordError("mask-empty", "segmentation: expected polygons or an RLE, got an empty list")
        read = _read_rle if isinstance(segmentation[0], Mapping) else _read_polygon
        rle = union([read(part, height, width) for part in segmentation])
    else:
        kind = type(segmentation).__name__
        raise RecordError("mask-invalid", f"segmentation: expected a list or an RLE, got {kind}")
    pixels = area(rle)
    if not pixels:
        raise RecordError("mask-empty", f"segmentation: no foreground pixel on {width}x{height}")
    return rle, pixels


def read_segmentations(segmentations: Sequence[Any], height: int, width: int) -> list[tuple[RLE, int] | RecordError]:
    """Reads the masks of an image as ``read_segmentation`` does, compressed RLEs all at once.

    Args:
        segmentations: the fields as a JSON or pickle parser returned them; they are not changed.
        height: rows of the image that the masks are drawn on.
        width: columns of that image.

    Returns:
        One by one, the mask with its foreground pixels, or the error that ``read_segmentation`` raises.
    """
    strings = [_compressed(one, [height, width]) for one in segmentations]
    is_plain_n, areas_n = plain(strings, height * width)
    found: list[tuple[RLE, int] | RecordError] = []
    for segmentation, string, is_plain, pixels in zip(
        segmentations, strings, is_plain_n.tolist(), areas_n.tolist(), strict=True
    ):
        if is_plain:
            found.append((RLE(height, width, string.decode("ascii")), pixels))
            continue
        try:
            found.append(_measured(segmentation, height, width))
        except RecordError as error:
            found.append(error)
    return found


def _compressed(segmentation: Any, size: list[int]) -> bytes:
    """The string of a compressed RLE of a size; no bytes for everything else."""
    if not isinstance(segmentation, Mapping):
        return b""
    stated = segmentation.get("size")
    if not isinstance(stated, list) or stated != size:
        return b""
    counts = segmentation.get("counts")
    if isinstance(counts, str):
        return counts.encode("ascii") if counts.isascii() else b""
    return counts if isinstance(counts, bytes) else b""


def _read_polygon(polygon: Any, height: int, width: int) -> RLE:
    if not isinstance(polygon, Sequence) or isinstance(polygon, str | bytes):
        raise RecordError("mask-invalid", f"polygon: expected a list of numbers, got {type(polygon).__name__}")
    if len(polygon) % 2:
        raise RecordError("mask-invalid", f"polygon: expected x, y pairs, got an odd number ({len(polygon)})")
    if len(polygon) < MIN_POLYGON_NUMBERS:
        raise RecordError("mask-invalid", f"polygon: expected 6 numbers or more, got {len(polygon)}")
    # pycocotools allocates by the polygon's circumference: a coordinate far outside would take all memory.
    reach = 2 * max(height, width)
    for number in polygon:
        if not isinstance(number, int | float) or not abs(number) <= reach:  # NaN is not, either
            raise RecordError("mask-invalid", f"polygon: {number!r} is no coordinate of a {width}x{height} image")
    return _from_coco(coco.frPyObjects([list(polygon)], height, width)[0], height, width)


def _read_rle(encoded: Any, height: int, width: int) -> RLE:
    if not isinstance(encoded, Mapping) or "counts" not in encoded or "size" not in encoded:
        raise RecordError("mask-invalid", "RLE: expected the fields 'size' and 'counts'")
    size = encoded["size"]
    if not isinstance(size, Sequence) or list(size) != [height, width]:
        raise RecordError("mask-size", f"RLE: expected size [{height}, {width}], got {size!r}")
    counts = encoded["counts"]
    if isinstance(counts, str | bytes):
        runs = _unpack_runs(counts)
    elif isinstance(counts, Sequence):
        runs = list(counts)
        if not all(isinstance(run, int) for run in runs):
            raise RecordError("mask-invalid", _NO_RUNS)
    else:
        raise RecordError("mask-invalid", f"RLE: expected counts as str or list, got {type(counts).__name__}")
    if min(runs, default=0) < 0:
        raise RecordError("mask-invalid", _NO_RUNS)
    if sum(runs) != height * width:
        raise RecordError("mask-size", f"RLE: expected {height * width} pixels, got runs of {sum(runs)}")
    uncompressed: Any = {"size": [height, width], "counts": runs}
    rle = _from_coco(coco.frPyObjects(uncompressed, height, width), height, width)
    # Foreign writers leave runs of no pixel between others; one mask is to have one spelling.
    return encode(decode(rle)) if 0 in runs[1:] else rle


def _unpack_runs(counts: str | bytes) -> list[int]:
    """Run lengths of COCO's compressed string."""
    try:
        data = counts.encode("ascii") if isinstance(counts, str) else counts
    except UnicodeEncodeError as error:
        raise RecordError("mask-invalid", "RLE: expected ASCII counts") from error
    found = unpack([data])
    if not found.is_whole_n[0]:
        raise RecordError("mask-invalid", "RLE: the counts string is cut or holds a foreign character")
    if not found.is_bounded_n[0]:
        raise RecordError("mask-invalid", _NO_RUNS)
    return found.runs_r.tolist()


def _from_coco(encoded: Any, height: int, width: int) -> RLE:
    return RLE(height, width, encoded["counts"].decode("ascii"))


def intersection_over_union(mask_HW: Mask, other_HW: Mask) -> float:
    """IoU of two masks of one size, at least one of them not empty; 0..1."""
    united = np.logical_or(mask_HW, other_HW).sum()
    return float(np.logical_and(mask_HW, other_HW).sum() / united)


def coco_box(rle: RLE) -> tuple[int, int, int, int]:
    """The box in COCO's convention: (x, y, width, height), whole pixels, the last pixel included in the extent.

    ``x + width`` is one past the last foreground column, so the box can be used to crop. Empty mask: zeros.
    """
    x, y, width, height = (int(number) for number in coco.toBbox(rle.coco))
    return x, y, width, height


def prompt_box(rle: RLE) -> tuple[float, float, float, float]:
    """The box as the mask tokenizer was trained to read it. The mask must not be empty.

    Returns:
        (x0, y0, x1, y1) as fractions of width, height, width, height; x1 and y1 are the last foreground
        column and row, so the box is one pixel smaller than ``coco_box``. Kept so that tokens match
        (SAMTok takes the box with torchvision's ``masks_to_boxes``, whose end is inclusive).
    """
    x, y, width, height = coco_box(rle)
    return x / rle.width, y / rle.height, (x + width - 1) / rle.width, (y + height - 1) / rle.height


def prompt_box_of(mask_HW: Mask) -> tuple[float, float, float, float]:
    """``prompt_box`` of a mask that is not compressed: bool, shape (height, width), not empty."""
    height, width = mask_HW.shape
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    return columns[0] / width, rows[0] / height, columns[-1] / width, rows[-1] / height
