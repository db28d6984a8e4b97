"""The masks of one frame of a video, in the encodings of the video sets.

An object that is not in the frame is null, an empty list or object, or an RLE without a foreground pixel: then it has
no mask, which is no fault. A list of RLEs is one mask, the union of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from converters.files.coco_files import is_side
from converters.masks.videos.video_frames import MAX_PIXELS
from samtok_data import masks
from samtok_data.errors import RecordError
from samtok_data.label_maps import decode_binary_map, decode_label_map, encode_labels, map_size
from samtok_data.masks import RLE
from samtok_data.pictures import read_file
from samtok_data.storage import Folder

Size = tuple[int, int]
"""(height, width) in pixels."""


@dataclass(frozen=True, slots=True)
class FrameMasks:
    """The masks of a frame.

    Attributes:
        size: that they are drawn on; None where none of them says a usable one.
        masks: by the object's id, not empty, of that size; why there is none, where a mask cannot be read. Objects that
            are not in the frame are left out.
    """

    size: Size | None
    masks: list[tuple[Any, RLE | RecordError]]


def frame_masks(encoded: Iterable[tuple[Any, Any]], size: Size | None = None) -> FrameMasks:
    """Reads the RLEs of a frame.

    Args:
        encoded: the objects' ids, and what the annotation has for each.
        size: of the frame; None: what most of the RLEs say, the first of them where it is a draw.
    """
    present = [(one, mask) for one, value in encoded if (mask := _without_null(value)) is not None]
    if size is None:
        size = _commonest(found for _, mask in present if (found := _size_of(mask)) is not None)
    read = ((one, _read(mask, size)) for one, mask in present)
    return FrameMasks(size, [(one, mask) for one, mask in read if mask is not None])


def _commonest(sizes: Iterable[Size]) -> Size | None:
    counts = Counter(sizes)
    return counts.most_common(1)[0][0] if counts else None


def _without_null(value: Any) -> Any:
    if isinstance(value, list):
        value = [part for part in value if part]
    return value or None


def _size_of(mask: Any) -> Size | None:
    first = mask[0] if isinstance(mask, list) else mask
    size = first.get("size") if isinstance(first, Mapping) else None
    if not isinstance(size, list) or len(size) != 2:
        return None
    height, width = size
    return (height, width) if is_side(height) and is_side(width) and height * width <= MAX_PIXELS else None


def _read(mask: Any, size: Size | None) -> RLE | RecordError | None:
    if size is None:
        return RecordError("mask-invalid", f"RLE: expected a size of a frame and counts, got {mask!r:.100}")
    try:
        return masks.read_segmentation(mask, *size)
    except RecordError as error:
        return None if error.reason == "mask-empty" else error


def given(mask: RLE | RecordError) -> RLE:
    """A mask of ``FrameMasks``.

    Raises:
        RecordError: there is none.
    """
    if isinstance(mask, RecordError):
        raise mask
    return mask


def decode_object_map(data: bytes, name: str) -> FrameMasks:
    """The objects of a frame's PNG file: the value of a pixel is its object, 0 is background.

    Args:
        data: the file's bytes.
        name: for messages.

    Raises:
        RecordError: ``annotation-unreadable``: no PNG, truncated, or in colours, of which the objects cannot be told.
    """
    size = map_size(data, name)
    return FrameMasks(size, list(encode_labels(decode_label_map(data, name, *size, is_grey=True)).items()))


def decode_object_pngs(folder: Folder, files: Sequence[tuple[str, str]]) -> FrameMasks:
    """The objects of a frame that has a PNG file for each: every pixel that is not 0 belongs to the object.

    Args:
        folder: of the files.
        files: the object's id, and the file's name in the folder.

    Raises:
        SetupError: the file system itself fails.
    """
    read: list[tuple[str, str, bytes, Size]] = []
    found: list[tuple[Any, RLE | RecordError]] = []
    for one, name in files:
        try:
            data = read_file(folder, name, missing="annotation-missing", kind="PNG file")
            read.append((one, name, data, map_size(data, name)))
        except RecordError as error:
            found.append((one, error))
    size = _commonest(own for _, _, _, own in read)
    if size is None:
        return FrameMasks(None, found)
    for one, name, data, _ in read:
        try:
            mask_HW = decode_binary_map(data, name, *size)
        except RecordError as error:
            found.append((one, error))
            continue
        if mask_HW.any():
            found.append((one, masks.encode(mask_HW)))
    return FrameMasks(size, found)
