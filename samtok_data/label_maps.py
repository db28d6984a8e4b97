"""Label maps: one number a pixel, each number a mask. Read from PNG files and encoded in one pass.

Array letters: H rows, W columns, R runs (column-major, as in COCO's RLE).
Formats: 24-bit rule of COCO panoptic (panopticapi), id = R + 256 G + 65536 B; everything else holds the number itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from samtok_data.errors import RecordError
from samtok_data.masks import RLE, Mask
from samtok_data.pictures import open_picture

Labels = NDArray[np.uint32]
Colours = NDArray[np.uint8]

# Where a PNG's header has them. PIL stretches grey of 2 and 4 bits over 0..255 and cuts 16 bits of RGB to 8, and says
# neither; a label is the number that the file holds.
_DEPTH, _COLOUR = 24, 25
_GREY, _RGB = 0, 2
# Of a map whose own header says its size; ADE20K's largest photographs have 30 million.
_MAX_PIXELS = 1 << 26


def encode_labels(labels_HW: Labels, *, void: int | None = 0) -> dict[int, RLE]:
    """The mask of every label, without a full-size mask for each: the runs are found once for all.

    Args:
        labels_HW: whole numbers, shape (height, width), at least one pixel.
        void: the label that is no mask; None: every label is one.

    Returns:
        By label, ascending; each equals ``masks.encode(labels_HW == label)``.
    """
    height, width = labels_HW.shape
    column_major = labels_HW.T.ravel()
    changes = np.flatnonzero(column_major[1:] != column_major[:-1]) + 1
    starts_R = np.concatenate(([0], changes))
    ends_R = np.concatenate((changes, [column_major.size]))
    labels_R = column_major[starts_R]
    order = np.argsort(labels_R, kind="stable")  # runs of one label side by side, in the order of their pixels
    found, firsts = np.unique(labels_R[order], return_index=True)
    groups = np.split(order, firsts[1:])
    wanted = [(int(label), group) for label, group in zip(found, groups, strict=True) if label != void]
    if not wanted:
        return {}
    uncompressed = []
    for _label, group in wanted:
        edges = np.stack((starts_R[group], ends_R[group]), axis=1).ravel()
        if edges[-1] != column_major.size:
            edges = np.append(edges, column_major.size)
        counts = np.diff(edges, prepend=0)
        uncompressed.append({"size": [height, width], "counts": counts})
    encoded = coco.frPyObjects(uncompressed, height, width)
    return {
        label: RLE(height, width, one["counts"].decode("ascii"))
        for (label, _), one in zip(wanted, encoded, strict=True)
    }


def map_size(data: bytes, name: str) -> tuple[int, int]:
    """(height, width) of a PNG file, from its header alone: of masks whose image's size is stated nowhere else.

    Args:
        data: the file's bytes.
        name: for messages.

    Raises:
        RecordError: ``annotation-unreadable`` (no PNG, or of more pixels than any photograph has).
    """
    with open_picture(data, name, reason="annotation-unreadable", formats=("PNG",)) as opened:
        width, height = opened.size
    if height * width > _MAX_PIXELS:
        raise RecordError(
            "annotation-unreadable", f"{name}: {width}x{height}, more than the {_MAX_PIXELS:,} pixels that are read"
        )
    return height, width


def decode_label_map(data: bytes, name: str, height: int, width: int, *, is_grey: bool = False) -> Labels:
    """The labels of a PNG file.

    Args:
        data: the file's bytes.
        name: for messages.
        height: rows of the image that it belongs to.
        width: columns.
        is_grey: whether the format has no RGB, which then is a fault.

    Returns:
        uint32, shape (height, width). Of a palette the index, of 1 to 16 grey bits the value, of RGB the number by
        the 24-bit rule.

    Raises:
        RecordError: ``annotation-unreadable`` (no PNG, truncated, or with an alpha channel), ``mask-size``.
    """
    with open_picture(data, name, reason="annotation-unreadable", formats=("PNG",)) as opened:
        _require_size(opened, name, height, width)
        if is_grey and opened.mode == "RGB":
            raise RecordError("annotation-unreadable", f"{name}: expected grey or a palette, got mode RGB")
        pixels = _pixels(opened, name, data).astype(np.uint32)
    if pixels.ndim == 3:
        return pixels[..., 0] + 256 * pixels[..., 1] + 65536 * pixels[..., 2]
    depth = data[_DEPTH]
    if data[_COLOUR] == _GREY and depth in (2, 4):
        pixels //= 255 // (2**depth - 1)
    return pixels


def decode_colours(data: bytes, name: str, height: int, width: int) -> Colours:
    """The three channels of a PNG file whose rule is not COCO panoptic's.

    Args:
        data: the file's bytes.
        name: for messages.
        height: rows of the image that it belongs to.
        width: columns.

    Returns:
        uint8, shape (3, height, width).

    Raises:
        RecordError: ``annotation-unreadable`` (no PNG, truncated, not RGB), ``mask-size``.
    """
    with open_picture(data, name, reason="annotation-unreadable", formats=("PNG",)) as opened:
        _require_size(opened, name, height, width)
        if opened.mode != "RGB":
            raise RecordError("annotation-unreadable", f"{name}: expected RGB, got mode {opened.mode}")
        return np.moveaxis(_pixels(opened, name, data).astype(np.uint8, copy=False), 2, 0)


def decode_binary_map(data: bytes, name: str, height: int, width: int) -> Mask:
    """The one mask of a PNG file: every pixel that is not 0 (in RGB: not black).

    Args:
        data: the file's bytes.
        name: for messages.
        height: rows of the image that it belongs to.
        width: columns.

    Returns:
        bool, shape (height, width); may be empty.

    Raises:
        RecordError: as ``decode_label_map``.
    """
    with open_picture(data, name, reason="annotation-unreadable", formats=("PNG",)) as opened:
        _require_size(opened, name, height, width)
        mask = _pixels(opened, name, data) != 0
    return mask.any(axis=2) if mask.ndim == 3 else mask


def _require_size(opened: Image.Image, name: str, height: int, width: int) -> None:
    if opened.size != (width, height):
        got = f"{opened.width}x{opened.height}"
        raise RecordError("mask-size", f"{name}: expected {width}x{height} pixels, as its image, got {got}")


def _pixels(opened: Image.Image, name: str, data: bytes) -> NDArray[np.generic]:
    if opened.mode not in ("1", "L", "P", "RGB", "I;16", "I"):
        raise RecordError("annotation-unreadable", f"{name}: expected grey, a palette or RGB, got mode {opened.mode}")
    if data[_COLOUR] == _RGB and data[_DEPTH] != 8:
        raise RecordError("annotation-unreadable", f"{name}: expected RGB of 8 bits a channel, got {data[_DEPTH]}")
    return np.asarray(opened)
