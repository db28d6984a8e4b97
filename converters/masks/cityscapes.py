"""Cityscapes: streets, with the polygons that were drawn on them, or with the label maps that were made of these.

    leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png
    gtFine/train/aachen/aachen_000000_000019_gtFine_polygons.json     {"imgHeight", "imgWidth", "objects": [...]}
    gtFine/train/aachen/aachen_000000_000019_gtFine_instanceIds.png   16 bits of grey

The published training reads the polygons, each alone: the list goes from back to front, and what a later one covers
stays part of an earlier one, so a road goes on under its cars. In the label map each pixel has one number: from 1000
on ``class * 1000 + k``, the instance k of a class of things; below it a class of stuff, void, or a group of things
that were not told apart. Format: mcordts/cityscapesScripts (README.md, helpers/labels.py, preparation).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

from converters.files.coco_files import is_side
from converters.files.json_files import read_json
from converters.files.listings import index_listing, list_folder, named_entry, paired
from converters.files.unit_index import Entry, Table, UnitIndex, UnitRecord
from converters.masks.indexed_source import Found, IndexedSource, RegionList
from converters.masks.options import (
    Treatment,
    checked_choice,
    checked_count,
    checked_limit,
    checked_treatment,
    checked_words,
    first_folder,
)
from converters.masks.source import MaskSourceInfo, WantedFile
from samtok_data import masks as mask_files
from samtok_data.errors import RecordError, SetupError
from samtok_data.label_maps import decode_label_map, encode_labels, map_size
from samtok_data.masks import RLE
from samtok_data.pictures import read_file, read_picture
from samtok_data.rejects import Reject
from samtok_data.storage import Folder

Masks = Literal["polygons", "instance-ids"]
KIND = "cityscapes"
INFO = MaskSourceInfo(
    kind=KIND,
    title="Cityscapes",
    files=(
        WantedFile(
            place="leftImg8bit/train/*/*_leftImg8bit.png",
            content="the photographs, or the archive as published",
            elsewhere=("leftImg8bit_trainvaltest.zip",),
        ),
        WantedFile(
            place="gtFine/train/*/*_gtFine_polygons.json",
            content="the polygons of each; the label maps beside them are read by option",
            elsewhere=("gtFine_trainvaltest.zip",),
        ),
    ),
    licence="Cityscapes' own terms: after registration, for purposes that are not commercial; no redistribution.",
    home="https://www.cityscapes-dataset.com",
    images=2_975,
    masks=223_000,
)
LEFT_OUT = ("building", "sky", "out of roi")
"""Labels that the published training leaves out."""

_SPLITS = ("train", "val", "test", "train_extra")
_PICTURE = re.compile(r"(?P<stem>.+)_leftImg8bit\.(png|jpg)")
_ENDINGS: Mapping[Masks, re.Pattern[str]] = {
    "polygons": re.compile(r"(?P<stem>.+)_gt(Fine|Coarse)_polygons\.json"),
    "instance-ids": re.compile(r"(?P<stem>.+)_gt(Fine|Coarse)_instanceIds\.png"),
}
_GROUP = "group"
_INSTANCES = 1000
_VOID = ("unlabeled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground")
_STUFF = (
    *("road", "sidewalk", "parking", "rail track", "building", "wall", "fence", "guard rail", "bridge", "tunnel"),
    *("pole", "polegroup", "traffic light", "traffic sign", "vegetation", "terrain", "sky"),
)
_THINGS = ("person", "rider", "car", "truck", "bus", "caravan", "trailer", "train", "motorcycle", "bicycle")
_CLASSES = (*_VOID, *_STUFF, *_THINGS)  # a class is its place in this list


def open_cityscapes(
    root: Folder,
    index: str,
    *,
    name: str = KIND,
    split: str = "train",
    images: str | None = None,
    annotations: str | None = None,
    masks: str = "polygons",
    leave_out: Sequence[str] = LEFT_OUT,
    groups: str = "keep",
    deleted: str = "keep",
    void: str | None = None,
    min_area: int = 1,
    masks_per_image: int | None = None,
    seed: int = 0,
) -> IndexedSource:
    """A source of streets; one unit is one image that has an annotation. The defaults are the published choice.

    Args:
        root: folder of the source.
        index: local folder of the indexes.
        name: of the source.
        split: ``train``, ``val``, ``test`` (whose annotations are blank) or ``train_extra`` (with ``gtCoarse``).
        images: the folder that holds the splits' images; None: leftImg8bit, or in leftImg8bit_trainvaltest.zip.
        annotations: the folder that holds the splits' annotations; None: gtFine, or in gtFine_trainvaltest.zip.
        masks: ``polygons``, each whole, or ``instance-ids``, what is seen of each.
        leave_out: labels, as they stand in the files, that are no mask.
        groups: ``keep`` groups of things (``cargroup``), or ``skip`` them.
        deleted: ``keep`` polygons that were marked as deleted, or ``skip`` them; label maps do not hold them.
        void: ``keep`` what is of no class (static, dynamic, ground, ego vehicle, rectification border, out of roi,
            unlabeled), or ``skip`` it; None: ``keep`` such polygons, and ``skip`` it in label maps.
        min_area: smaller masks, in pixels, are left out.
        masks_per_image: at most so many, chosen at random; None: all.
        seed: of that choice.

    Raises:
        SetupError: an option is wrong, a folder is not there, or no image has an annotation.
    """
    part = checked_choice("split", split, _SPLITS)
    which: Masks = checked_choice("masks", masks, get_args(Masks))
    usual_void: Treatment = "keep" if which == "polygons" else "skip"
    options: dict[str, Any] = {
        "masks": which,
        "leave_out": checked_words("leave_out", leave_out),
        "groups": checked_treatment("groups", groups),
        "deleted": checked_treatment("deleted", deleted),
        "void": usual_void if void is None else checked_treatment("void", void),
        "min_area": checked_count("min_area", min_area, 1),
        "masks_per_image": checked_limit("masks_per_image", masks_per_image),
        "seed": checked_count("seed", seed, 0),
    }
    pictures = first_folder(root, "images", images, ("leftImg8bit", "leftImg8bit_trainvaltest/leftImg8bit")) / part
    drawings = first_folder(root, "annotations", annotations, ("gtFine", "gtFine_trainvaltest/gtFine")) / part
    digest, units = _indexed(index, pictures, drawings, which)
    settings = {"kind": KIND, "split": part, **options, "leave_out": list(options["leave_out"]), "names": digest}
    reader = CityscapesReader(images=pictures, annotations=drawings, **options)
    return IndexedSource(name=name, settings=settings, index=units, reader=reader)


def _indexed(index: str, images: Folder, annotations: Folder, which: Masks) -> tuple[str, UnitIndex]:
    digest, units = index_listing(KIND, index, partial(_entries, images, annotations, which))
    if not units.num_paired:
        raise SetupError(
            f"no image of {images} has an annotation under {annotations}; expected <city>/<image>_leftImg8bit.png and "
            "<city>/<image>_gtFine_polygons.json, or _gtFine_instanceIds.png"
        )
    return digest, units


def _entries(images: Folder, annotations: Folder, which: Masks) -> Iterator[Entry]:
    yield from _files("images", images, _PICTURE)
    yield from _files("annotations", annotations, _ENDINGS[which])


def _files(table: Table, folder: Folder, ending: re.Pattern[str]) -> Iterator[Entry]:
    for city in list_folder(folder):
        for file in list_folder(folder / city.name) if city.is_folder else ():
            match = None if file.is_folder else ending.fullmatch(file.name)
            if match:
                yield named_entry(table, f"{city.name}/{match['stem']}", f"{city.name}/{file.name}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CityscapesReader:
    """Reads one image.

    Attributes:
        images: folder of the split's cities.
        annotations: folder of the split's cities.
        masks: what they are made of.
        leave_out: labels that are no mask.
        groups: whether groups are masks.
        deleted: whether deleted polygons are.
        void: whether what has no class is.
        min_area: in pixels.
        masks_per_image: at most so many; None: all.
        seed: of their choice.
    """

    images: Folder
    annotations: Folder
    masks: Masks
    leave_out: tuple[str, ...]
    groups: Treatment
    deleted: Treatment
    void: Treatment
    min_area: int
    masks_per_image: int | None
    seed: int

    def name_of(self, record: UnitRecord) -> str:
        """The image's name, or what its annotation calls it where it is missing."""
        return record.images[0] if record.images else str(record.key)

    def read(self, record: UnitRecord) -> Found:
        """The image with its masks; a broken polygon is one reject, a broken file is one."""
        found = RegionList(str(record.key), self.min_area, self.masks_per_image, self.seed)
        try:
            image, file = paired(self.images, record)
            height, width = self._add(found, file)
        except RecordError as error:
            yield Reject.of(error, found.scene, {"images": record.images, "files": record.annotations})
            return
        yield from found.image(image, height, width, partial(read_picture, self.images, image, height, width))

    def _add(self, found: RegionList, file: str) -> tuple[int, int]:
        return self._add_polygons(found, file) if self.masks == "polygons" else self._add_ids(found, file)

    def _add_polygons(self, found: RegionList, file: str) -> tuple[int, int]:
        height, width, objects = _drawing(read_json(self.annotations, file), file)
        for place, one in enumerate(objects):
            # An object has no id. Its place is part of what is published: the list is sorted from back to front.
            region, where = f"object-{place}", {"file": file, "object": place, "annotation": one}
            label = one.get("label") if isinstance(one, Mapping) else None
            if not isinstance(label, str) or "polygon" not in one:
                error = RecordError("record-invalid", f"{file}: expected a label and a polygon, got {one!r:.100}")
                found.reject(region, where, error)
            elif self._is_wanted(label, label.endswith(_GROUP)) and (self.deleted == "keep" or not one.get("deleted")):
                found.add(region, where, partial(_mask, one["polygon"], height, width))
        return height, width

    def _add_ids(self, found: RegionList, file: str) -> tuple[int, int]:
        data = read_file(self.annotations, file, missing="annotation-missing", kind="PNG file")
        height, width = map_size(data, file)
        encoded = encode_labels(decode_label_map(data, file, height, width, is_grey=True), void=None)
        for number, rle in encoded.items():
            where = {"file": file, "id": number}
            place = number // _INSTANCES or number
            if place >= len(_CLASSES) or (number >= _INSTANCES and _CLASSES[place] not in _THINGS):
                error = RecordError("mask-unlisted", f"{file}: it holds the id {number}, which is of no class")
                found.reject(str(number), where, error)
                continue
            label = _CLASSES[place]
            is_group = number < _INSTANCES and (label in _THINGS or label.endswith(_GROUP))
            if self._is_wanted(label, is_group):
                found.add(str(number), where, lambda rle=rle: rle)
        return height, width

    def _is_wanted(self, label: str, is_group: bool) -> bool:
        if label in self.leave_out or (self.void == "skip" and label in _VOID):
            return False
        return self.groups == "keep" or not is_group


def _drawing(value: Any, file: str) -> tuple[int, int, list[Any]]:
    fields = value if isinstance(value, Mapping) else {}
    height, width, objects = (fields.get(field) for field in ("imgHeight", "imgWidth", "objects"))
    if not is_side(height) or not is_side(width) or not isinstance(objects, list):
        raise RecordError("annotation-unreadable", f"{file}: expected imgHeight, imgWidth and objects")
    return height, width, objects


def _mask(polygon: Any, height: int, width: int) -> RLE:
    """The mask of ``[[x, y], ...]``, or of several such lists."""
    points = polygon if isinstance(polygon, list) else [polygon]
    is_nested = bool(points) and isinstance(points[0], list) and points[0] and isinstance(points[0][0], list)
    return mask_files.read_segmentation([_flat(one) for one in (points if is_nested else [points])], height, width)


def _flat(points: Any) -> list[Any]:
    if not isinstance(points, list) or not all(isinstance(point, list) and len(point) == 2 for point in points):
        raise RecordError("mask-invalid", f"polygon: expected a list of [x, y], got {points!r:.100}")
    return [number for point in points for number in point]
