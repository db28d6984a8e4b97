"""ADE20K as its authors keep it: the releases 2016_07_26 and 2021_17_01, with photographs in their full size.

    <scene>/<name>.jpg
    <scene>/<name>_seg.png                     RGB: class = (R div 10) * 256 + G; B tells the objects of an image apart
    <scene>/<name>_parts_1.png, _parts_2.png   the same for parts of objects, parts of parts
    <scene>/<name>.json                        of 2021: object: [{"id", "parts": {"part_level"}, "instance_mask"}]
    <scene>/<name>/instance_000_<name>.png     of 2021: an object, 255 what is seen of it, 128 what is hidden

A scene is a folder or several (a/abbey, urban/street). Class 0 and B = 0 are void; B takes any values, not 1 .. N.
Format: CSAILVision/ADE20K, and what its samples hold.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from converters.files.coco_files import is_side
from converters.files.json_files import read_json
from converters.files.listings import index_listing, list_folder, list_tree, listed_name, named_entry, stem_of
from converters.files.unit_index import Entry, UnitIndex, UnitRecord, is_key
from converters.masks.indexed_source import Found, RegionList
from converters.masks.options import Treatment
from samtok_data import masks
from samtok_data.errors import RecordError, SetupError
from samtok_data.label_maps import Colours, Labels, decode_binary_map, decode_colours, encode_labels, map_size
from samtok_data.masks import RLE
from samtok_data.pictures import read_file, read_picture
from samtok_data.rejects import Reject
from samtok_data.storage import Folder, is_contained

Shapes = Literal["visible", "amodal"]
_PICTURES = (".jpg", ".jpeg")
_MAP = re.compile(r"(?P<stem>.+)_(seg|parts_(?P<level>[0-9]+))\.png", re.DOTALL)
_MAX_DEPTH = 8  # of folders; the releases have three
_VOID = 0


def index_full(kind: str, folder: Folder, index: str) -> tuple[str, UnitIndex]:
    """The index of a release's folder.

    Args:
        kind: part of the index's name.
        folder: of the scenes of a split.
        index: local folder of the indexes.

    Returns:
        A hash of the names, and the index: one row an image that has a map.

    Raises:
        SetupError: no image has a map; the folder cannot be read.
    """
    digest, units = index_listing(kind, index, partial(_entries, folder))
    if not units.num_paired:
        raise SetupError(f"{folder}: expected pairs of <name>.jpg and <name>_seg.png, here or in folders below")
    return digest, units


def _entries(folder: Folder) -> Iterator[Entry]:
    for name in list_tree(folder, _MAX_DEPTH) if folder.is_archive else _names(folder, "", _MAX_DEPTH):
        match, stem = _MAP.fullmatch(name), stem_of(name, _PICTURES)
        if match:
            yield named_entry("annotations", match["stem"], name)
        elif stem is not None:
            yield named_entry("images", stem, name)


def _names(folder: Folder, prefix: str, depth: int) -> Iterator[str]:
    """As ``list_tree``, without the folders of objects: there are as many as images."""
    stems: set[str | None] = set()  # of one folder: the largest has two thousand images
    below: list[str] = []
    for listed in list_folder(folder):
        if listed.is_folder:
            below.append(listed.name)
        else:
            stems.add(stem_of(listed.name, _PICTURES))
            yield prefix + listed.name
    for name in below:
        if name not in stems and depth:  # a folder with an image's name holds that image's objects
            yield from _names(folder / name, f"{prefix}{name}/", depth - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ade20kFullReader:
    """Reads one image.

    Attributes:
        root: folder of the scenes.
        shapes: what is seen of objects, or all of each.
        parts: whether parts of objects are masks as well.
        min_area: in pixels.
        masks_per_image: at most so many; None: all.
        seed: of their choice.
    """

    root: Folder
    shapes: Shapes
    parts: Treatment
    min_area: int
    masks_per_image: int | None
    seed: int

    def name_of(self, record: UnitRecord) -> str:
        """The image's name, or its maps' stem where it is missing."""
        return record.images[0] if record.images else str(record.key)

    def read(self, record: UnitRecord) -> Found:
        """The image with its masks; a broken object or map of parts is one reject."""
        found = RegionList(str(record.key), self.min_area, self.masks_per_image, self.seed)
        try:
            image = listed_name(self.root, record)
            height, width = self._add_objects(found) if self.shapes == "amodal" else self._add_maps(found, record)
        except RecordError as error:
            yield Reject.of(error, found.scene, {"images": record.images, "maps": record.annotations})
            return
        yield from found.image(image, height, width, partial(read_picture, self.root, image, height, width))

    def _add_maps(self, found: RegionList, record: UnitRecord) -> tuple[int, int]:
        maps = {_level(file): file for file in record.annotations}
        if 0 not in maps:
            raise RecordError("annotation-missing", f"{record.key}: no {posixpath.basename(found.scene)}_seg.png")
        data = self._png(maps[0])
        height, width = map_size(data, maps[0])
        self._add_map(found, data, maps[0], "", (height, width))
        for level in sorted(maps)[1:] if self.parts == "keep" else ():
            try:
                self._add_map(found, self._png(maps[level]), maps[level], f"parts{level}-", (height, width))
            except RecordError as error:
                found.reject(f"parts{level}", {"map": maps[level]}, error)
        return height, width

    def _add_map(self, found: RegionList, data: bytes, file: str, prefix: str, size: tuple[int, int]) -> None:
        for label, rle in encode_labels(_labels(decode_colours(data, file, *size)), void=_VOID).items():
            number, instance = divmod(label, 256)
            where = {"map": file, "class": number, "instance": instance}
            found.add(f"{prefix}{number}-{instance}", where, lambda rle=rle: rle)

    def _add_objects(self, found: RegionList) -> tuple[int, int]:
        file = f"{found.scene}.json"
        height, width, objects = _annotation(read_json(self.root, file), file)
        for place, one in enumerate(objects):
            where = {"file": file, "object": one}
            number = one.get("id") if isinstance(one, Mapping) else None
            region = f"instance-{number}" if is_key(number) else f"object-{place}"
            try:
                if self.parts == "keep" or not _part_level(one):
                    found.add(region, where, partial(self._object, one, posixpath.dirname(file), height, width))
            except RecordError as error:
                found.reject(region, where, error)
        return height, width

    def _object(self, one: Mapping[str, Any], folder: str, height: int, width: int) -> RLE:
        file = one.get("instance_mask")
        if not is_key(one.get("id")) or not isinstance(file, str) or not is_contained(file) or not file.isprintable():
            raise RecordError("record-invalid", f"object: expected an id and instance_mask, got {one!r:.100}")
        name = posixpath.join(folder, file)
        return masks.encode(decode_binary_map(self._png(name), name, height, width))

    def _png(self, file: str) -> bytes:
        return read_file(self.root, file, missing="annotation-missing", kind="PNG file")


def _level(file: str) -> int:
    match = _MAP.fullmatch(file)
    return int((match and match["level"]) or 0)


def _labels(colours_CHW: Colours) -> Labels:
    """One number for each pair of class and instance; void where either is."""
    red_HW, green_HW, instances_HW = colours_CHW.astype(np.uint32)
    classes_HW = red_HW // 10 * 256 + green_HW
    return np.where((classes_HW == _VOID) | (instances_HW == _VOID), _VOID, classes_HW * 256 + instances_HW)


def _annotation(value: Any, file: str) -> tuple[int, int, list[Any]]:
    fields = value.get("annotation") if isinstance(value, Mapping) else None
    size, objects = (fields.get(one) if isinstance(fields, Mapping) else None for one in ("imsize", "object"))
    objects = [objects] if isinstance(objects, Mapping) else objects
    if not isinstance(size, list) or len(size) < 2 or not all(map(is_side, size[:2])) or not isinstance(objects, list):
        raise RecordError("annotation-unreadable", f"{file}: expected an annotation with imsize and object")
    return size[0], size[1], objects


def _part_level(one: Any) -> int:
    parts = one.get("parts") if isinstance(one, Mapping) else None
    level = parts.get("part_level") if isinstance(parts, Mapping) else None
    if type(level) is not int:
        raise RecordError("record-invalid", f"object: expected parts with a part_level, got {one!r:.100}")
    return level
