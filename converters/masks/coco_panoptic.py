"""COCO panoptic: a JSON file of segments, a folder of PNG files that hold them, images in a folder. Also ADE20K's.

    annotations    image_id, file_name (of the PNG), segments_info: [{id, iscrowd, ...}]
    PNG            id = R + 256 G + 65536 B, 0 is void; grey and palettes hold the id itself (COCONut)

Format: cocodataset.org/#format-data and cocodataset/panopticapi. Boxes and areas of the file are not used: a segment
may be painted over, and its area then counts pixels that it no longer has (ADE20K).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from converters.files.coco_files import CocoFormat, CocoImage, coco_image, index_coco
from converters.files.unit_index import UnitRecord
from converters.masks.coco_instances import COCO_IMAGES, COCO_LICENCE, SPLITS, coco_places, image_places
from converters.masks.indexed_source import Found, IndexedSource, RegionList
from converters.masks.options import (
    Treatment,
    checked_choice,
    checked_count,
    checked_treatment,
    find_folder,
    first_file,
    first_folder,
)
from converters.masks.source import MaskSourceInfo, WantedFile
from samtok_data.errors import RecordError
from samtok_data.label_maps import decode_label_map, encode_labels
from samtok_data.masks import RLE
from samtok_data.pictures import read_file, read_picture
from samtok_data.rejects import Reject
from samtok_data.storage import Folder, is_contained

KIND = "coco-panoptic"
INFO = MaskSourceInfo(
    kind=KIND,
    title="COCO panoptic",
    files=(
        WantedFile(
            place="annotations/panoptic_train2017.json",
            content="the segments of every image",
            elsewhere=("panoptic_train2017.json",),
        ),
        WantedFile(
            place="annotations/panoptic_train2017",
            content="a PNG file for every image, or panoptic_train2017.zip as published",
            elsewhere=("panoptic_train2017",),
        ),
        COCO_IMAGES,
    ),
    licence=COCO_LICENCE,
    home="https://cocodataset.org",
)
VOID = 0
_MAX_LABEL = 2**24 - 1


def _reduced(annotation: dict[str, Any]) -> dict[str, Any]:
    segments = annotation.get("segments_info")
    if not isinstance(segments, list):
        return annotation
    kept = [
        {field: segment[field] for field in ("id", "iscrowd") if field in segment}
        if isinstance(segment, Mapping)
        else segment
        for segment in segments
    ]
    return {**annotation, "segments_info": kept}


PANOPTIC = CocoFormat(kind=KIND, wanted="segments_info", fields=("file_name", "segments_info"), reduce=_reduced)


def open_coco_panoptic(
    root: Folder,
    index: str,
    *,
    name: str = KIND,
    split: str = "train",
    json: str | None = None,
    images: str | None = None,
    masks: str | None = None,
    crowd: str = "skip",
    min_area: int = 1,
) -> IndexedSource:
    """A source of panoptic segments; one unit is one image that has an annotation.

    Args:
        root: folder of the source.
        index: local folder of the indexes.
        name: of the source.
        split: of COCO 2017, ``train`` or ``val``; it says where to look for what the next two do not name.
        json: the annotation file under the root; None: annotations/panoptic_train2017.json, panoptic_train2017.json,
            annotations/panoptic_train.json.
        images: the folder of images under the root, which ``file_name`` is relative to; None: train2017,
            images/train2017, images/train.
        masks: the folder of PNG files under the root; None: the annotation file's name without its ending, as COCO has.
        crowd: ``skip`` crowds, as the published training does, or ``keep`` them.
        min_area: smaller masks, in pixels, are left out.

    Raises:
        SetupError: an option is wrong, a file or folder is not there, or the file is of another kind.
    """
    part = checked_choice("split", split, SPLITS)
    treatment = checked_treatment("crowd", crowd)
    area = checked_count("min_area", min_area, 1)
    file = first_file(root, "json", json, coco_places("panoptic", part))
    pictures = first_folder(root, "images", images, image_places(part))
    labels = find_folder(root, "masks", file.removesuffix(".json") if masks is None else masks)
    indexed = index_coco(root, file, index, PANOPTIC)
    settings = {"kind": KIND, "crowd": treatment, "min_area": area, "sha256": indexed.sha256}
    reader = CocoPanopticReader(images=pictures, masks=labels, crowd=treatment, min_area=area)
    return IndexedSource(name=name, settings=settings, index=indexed.units, reader=reader)


@dataclass(frozen=True, slots=True, kw_only=True)
class CocoPanopticReader:
    """Reads one image of a COCO panoptic file.

    Attributes:
        images: folder of the images.
        masks: folder of the PNG files.
        crowd: whether crowds are masks.
        min_area: in pixels.
        masks_per_image: at most so many; None: all.
        seed: of their choice.
    """

    images: Folder
    masks: Folder
    crowd: Treatment
    min_area: int
    masks_per_image: int | None = None
    seed: int = 0

    def name_of(self, record: UnitRecord) -> str:
        """The image's file name, or its id where the file does not list it."""
        image = coco_image(record)
        return image.file_name if isinstance(image, CocoImage) else f"image {record.key}"

    def read(self, record: UnitRecord) -> Found:
        """The image with its segments. What is listed without pixels, or has pixels and is not listed, is a reject."""
        image = coco_image(record)
        if isinstance(image, Reject):
            yield image
            return
        found = RegionList(str(record.key), self.min_area, self.masks_per_image, self.seed)
        first, *more = record.annotations
        try:
            self._add(found, first, image)
        except RecordError as error:
            found.reject("map", {"image": image.file_name, "annotation": first}, error)
        for other in more:
            error = RecordError("record-duplicate", f"image {record.key}: it has a second annotation")
            found.reject("map", {"image": image.file_name, "annotation": other}, error)
        yield from found.image(
            image.file_name,
            image.height,
            image.width,
            partial(read_picture, self.images, image.file_name, image.height, image.width),
        )

    def _add(self, found: RegionList, annotation: Any, image: CocoImage) -> None:
        file, segments = _fields(annotation)
        data = read_file(self.masks, file, missing="annotation-missing", kind="PNG file")
        encoded = encode_labels(decode_label_map(data, file, image.height, image.width), void=VOID)
        where = {"image": image.file_name, "map": file}
        add_segments(found, segments, encoded, where, lambda one: self.crowd == "keep" or not one.get("iscrowd"))


def add_segments(
    found: RegionList,
    segments: list[Any],
    encoded: Mapping[int, RLE],
    where: Mapping[str, Any],
    is_wanted: Callable[[Mapping[str, Any]], bool],
) -> None:
    """Adds the segments of one image; listed without pixels, or with pixels and not listed, they are rejects.

    Args:
        found: takes them.
        segments: as listed, ``{"id", ...}`` each.
        encoded: the mask of every id of the label map, without void.
        where: what finds the image in the source; ``map`` is the label map's name.
        is_wanted: whether a listed segment is to be a mask; may raise RecordError.
    """
    listed: set[int] = set()
    for place, segment in enumerate(segments):
        record = {**where, "segment": segment}
        label = segment.get("id") if isinstance(segment, Mapping) else None
        if type(label) is not int or not VOID < label <= _MAX_LABEL:
            error = RecordError("record-invalid", f"segment: expected an id of 1..{_MAX_LABEL}, got {segment!r:.100}")
            found.reject(f"segment-{place}", record, error)
            continue
        listed.add(label)
        try:
            if is_wanted(segment):
                found.add(str(label), record, partial(_mask, encoded, label, where["map"]))
        except RecordError as error:
            found.reject(str(label), record, error)
    for label in sorted(encoded.keys() - listed):
        file = where["map"]
        error = RecordError("mask-unlisted", f"{file}: it holds the id {label}, which segments_info does not list")
        found.reject(str(label), {**where, "segment": {"id": label}}, error)


def _fields(annotation: Any) -> tuple[str, list[Any]]:
    file = annotation.get("file_name") if isinstance(annotation, Mapping) else None
    segments = annotation.get("segments_info") if isinstance(annotation, Mapping) else None
    if not isinstance(file, str) or not is_contained(file) or not file.isprintable():
        raise RecordError("record-invalid", f"annotation: file_name: expected a relative name, got {file!r}")
    if not isinstance(segments, list):
        raise RecordError("record-invalid", f"annotation: segments_info: expected a list, got {segments!r:.100}")
    return file, segments


def _mask(encoded: Mapping[int, RLE], label: int, file: str) -> RLE:
    if label not in encoded:
        raise RecordError("mask-empty", f"{file}: no pixel has the id {label}, which segments_info lists")
    return encoded[label]
