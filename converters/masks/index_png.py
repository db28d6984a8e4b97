"""Label maps in PNG files, class-agnostic, one or more an image, as BSDS500's segmentations are kept.

    images/train/100075.jpg           any format that PIL reads
    segments/train/100075_a0.png      the first annotator's map; <id>.png, without an annotator, is a map as well
    segments/train/100075_a1.png      the second one's; so an image's own name cannot end like this

Grey of up to 16 bits or a palette holds the label itself, RGB holds it by COCO panoptic's 24-bit rule. BSDS500 numbers
its segments from 1 and leaves no pixel out (Arbelaez et al., Contour Detection and Hierarchical Image Segmentation).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from converters.files.listings import index_listing, list_folder, named_entry, picture_entries, read_listed, stem_of
from converters.files.unit_index import Entry, UnitRecord
from converters.masks.indexed_source import Found, IndexedSource, RegionList
from converters.masks.options import checked_choice, checked_count, find_folder
from samtok_data.errors import RecordError, SetupError
from samtok_data.label_maps import decode_label_map, encode_labels
from samtok_data.pictures import decode_picture, picture_size, read_file
from samtok_data.rejects import Reject
from samtok_data.storage import Folder

Maps = Literal["all", "first"]
KIND = "index-png"
_ANNOTATOR = re.compile(r"(?P<image>.+)_a(?P<number>[0-9]+)", re.DOTALL)


def open_index_png(
    root: Folder,
    index: str,
    *,
    name: str = KIND,
    images: str,
    masks: str,
    maps: str = "all",
    void: int | None = 0,
    min_area: int = 1,
) -> IndexedSource:
    """A source of label maps; one unit is one image that has maps.

    Args:
        root: folder of the source.
        index: local folder of the indexes.
        name: of the source.
        images: the folder of images under the root.
        masks: the folder of maps under the root.
        maps: ``all`` maps of an image, or the ``first`` one (by the annotator's number).
        void: the label that is no mask; None where every label is one.
        min_area: smaller masks, in pixels, are left out.

    Raises:
        SetupError: an option is wrong, a folder is not there, or no image has a map.
    """
    which: Maps = checked_choice("maps", maps, get_args(Maps))
    if void is not None:
        checked_count("void", void, 0)
    area = checked_count("min_area", min_area, 1)
    pictures, labels = find_folder(root, "images", images), find_folder(root, "masks", masks)
    digest, units = index_listing(KIND, index, partial(_entries, pictures, labels))
    if not units.num_paired:
        raise SetupError(
            f"{root}: no map under {masks} belongs to an image under {images}; expected <image>.png or <image>_a1.png"
        )
    settings = {"kind": KIND, "maps": which, "void": void, "min_area": area, "names": digest}
    reader = IndexPngReader(images=pictures, masks=labels, maps=which, void=void, min_area=area)
    return IndexedSource(name=name, settings=settings, index=units, reader=reader)


def _entries(images: Folder, labels: Folder) -> Iterator[Entry]:
    yield from picture_entries(images)
    for listed in list_folder(labels):
        if not listed.is_folder and stem_of(listed.name, (".png",)) is not None:
            yield named_entry("annotations", _split(listed.name)[0], listed.name)


def _split(file: str) -> tuple[str, int | None]:
    """The image and the annotator that a map's name says; no annotator where it has none."""
    stem = posixpath.splitext(file)[0]
    match = _ANNOTATOR.fullmatch(stem)
    return (match["image"], int(match["number"])) if match else (stem, None)


def _order(file: str) -> tuple[int, str]:
    annotator = _split(file)[1]
    return (-1 if annotator is None else annotator, file)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexPngReader:
    """Reads one image with its label maps.

    Attributes:
        images: folder of the images.
        masks: folder of the maps.
        maps: all of an image or the first.
        void: the label that is no mask.
        min_area: in pixels.
    """

    images: Folder
    masks: Folder
    maps: Maps
    void: int | None
    min_area: int

    def name_of(self, record: UnitRecord) -> str:
        """The image's file name, or its maps' stem where it is missing."""
        return record.images[0] if record.images else str(record.key)

    def read(self, record: UnitRecord) -> Found:
        """The image with the masks of its maps; a broken map is one reject."""
        scene = str(record.key)
        files = sorted(record.annotations, key=_order)
        chosen = files if self.maps == "all" else files[:1]
        try:
            name, data = read_listed(self.images, record)
            height, width = picture_size(data, name)
        except RecordError as error:
            yield Reject.of(error, scene, {"image": record.images, "maps": chosen})
            return
        found = RegionList(scene, self.min_area)
        for file in chosen:
            self._add(found, file, height, width)
        yield from found.image(name, height, width, partial(decode_picture, data, name, height, width))

    def _add(self, found: RegionList, file: str, height: int, width: int) -> None:
        annotator = _split(file)[1]
        try:
            data = read_file(self.masks, file, missing="annotation-missing", kind="map")
            encoded = encode_labels(decode_label_map(data, file, height, width), void=self.void)
        except RecordError as error:
            found.reject("map" if annotator is None else f"a{annotator}", {"map": file}, error)
            return
        for label, rle in encoded.items():
            region = f"{label}" if annotator is None else f"a{annotator}-{label}"
            found.add(region, {"map": file, "label": label}, lambda rle=rle: rle)
