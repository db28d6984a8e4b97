"""COCO instances: polygons and RLEs in one JSON file, images in a folder. Also LVIS v0.5, EntitySeg and COCO's kin.

    annotations  id, image_id, segmentation, iscrowd
    segmentation polygons in absolute pixels, or an RLE, compressed or not (COCO's crowds)

Format: cocodataset.org/#format-data. Boxes and areas of the file are not used: sources disagree on what they mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

from converters.coco_files import CocoFormat, CocoImage, coco_image, index_coco
from converters.indexed_source import Found, IndexedSource, RegionList
from converters.mask_options import checked_choice, checked_count, checked_file, find_folder
from converters.mask_source import MaskedImage
from converters.unit_index import UnitRecord, is_key
from samtok_data import masks
from samtok_data.errors import RecordError
from samtok_data.masks import RLE
from samtok_data.pictures import read_picture
from samtok_data.rejects import Reject
from samtok_data.scenes import Scene
from samtok_data.storage import Folder

Crowd = Literal["keep", "skip"]
KIND = "coco-instances"
_FORM = CocoFormat(kind=KIND, wanted="segmentation", fields=("id", "segmentation", "iscrowd"))


def open_coco_instances(
    root: Folder, index: str, *, name: str = KIND, json: str, images: str, crowd: str = "keep", min_area: int = 1
) -> IndexedSource:
    """A source of COCO instances; one unit is one image that has annotations.

    Args:
        root: folder of the source.
        index: local folder of the indexes.
        name: of the source.
        json: the annotation file under the root.
        images: the folder of images under the root, which ``file_name`` is relative to.
        crowd: ``keep`` crowds, as the published training does, or ``skip`` them.
        min_area: smaller masks, in pixels, are left out.

    Raises:
        SetupError: an option is wrong, a file or folder is not there, or the file is of another kind.
    """
    treatment: Crowd = checked_choice("crowd", crowd, get_args(Crowd))
    area = checked_count("min_area", min_area, 1)
    folder = find_folder(root, "images", images)
    indexed = index_coco(root, checked_file("json", json), index, _FORM)
    settings = {"kind": KIND, "crowd": treatment, "min_area": area, "sha256": indexed.sha256}
    reader = CocoInstancesReader(images=folder, crowd=treatment, min_area=area)
    return IndexedSource(name=name, settings=settings, index=indexed.units, reader=reader)


@dataclass(frozen=True, slots=True, kw_only=True)
class CocoInstancesReader:
    """Reads one image of a COCO instances file.

    Attributes:
        images: folder of the images.
        crowd: whether crowds are masks.
        min_area: in pixels.
    """

    images: Folder
    crowd: Crowd
    min_area: int

    def name_of(self, record: UnitRecord) -> str:
        """The image's file name, or its id where the file does not list it."""
        image = coco_image(record)
        return image.file_name if isinstance(image, CocoImage) else f"image {record.key}"

    def read(self, record: UnitRecord) -> Found:
        """The image with the masks of its annotations; a broken annotation rejects one mask."""
        image = coco_image(record)
        if isinstance(image, Reject):
            yield image
            return
        found = RegionList(str(record.key), self.min_area)
        for place, annotation in enumerate(record.annotations):
            self._add(found, annotation, image, place)
        yield from found.rejects
        if found.regions:
            scene = Scene(found.scene, image.file_name, image.height, image.width, tuple(found.regions), ())
            yield MaskedImage(scene, partial(read_picture, self.images, image.file_name, image.height, image.width))

    def _add(self, found: RegionList, annotation: Any, image: CocoImage, place: int) -> None:
        where = {"image": image.file_name, "annotation": annotation}
        if not isinstance(annotation, Mapping) or not is_key(annotation.get("id")):
            error = RecordError("record-invalid", f"annotation: expected an object with an id, got {annotation!r:.100}")
            found.reject(f"annotation-{place}", where, error)
        elif self.crowd == "keep" or not annotation.get("iscrowd"):
            found.add(str(annotation["id"]), where, partial(_mask, annotation, image))


def _mask(annotation: Mapping[str, Any], image: CocoImage) -> RLE:
    if "segmentation" not in annotation:
        raise RecordError("record-invalid", "annotation: expected a segmentation, got none")
    return masks.read_segmentation(annotation["segmentation"], image.height, image.width)
