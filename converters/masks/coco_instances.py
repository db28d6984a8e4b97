"""COCO instances: polygons and RLEs in one JSON file, images in a folder; and what COCO's kin need of it.

    annotations  id, image_id, segmentation, iscrowd
    segmentation polygons in absolute pixels, or an RLE, compressed or not (COCO's crowds)

Format: cocodataset.org/#format-data. Boxes and areas of the file are not used: sources disagree on what they mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from PIL import Image

from converters.files.coco_files import CocoFormat, CocoImage, coco_image, index_coco
from converters.files.unit_index import UnitRecord
from converters.masks.indexed_source import Found, IndexedSource, RegionList
from converters.masks.options import (
    Treatment,
    checked_choice,
    checked_count,
    checked_treatment,
    first_file,
    first_folder,
)
from converters.masks.source import MaskSourceInfo, WantedFile
from samtok_data.pictures import read_picture
from samtok_data.rejects import Reject
from samtok_data.storage import Folder

KIND = "coco-instances"
INSTANCES = CocoFormat(kind=KIND, wanted="segmentation", fields=("id", "segmentation", "iscrowd"))
SPLITS = ("train", "val")
COCO_LICENCE = "Annotations CC BY 4.0; the photographs under the terms that their owners chose on Flickr."
COCO_IMAGES = WantedFile(
    place="train2017",
    content="the photographs, or train2017.zip as published",
    elsewhere=("images/train2017",),
)
INFO = MaskSourceInfo(
    kind=KIND,
    title="COCO instances",
    files=(
        WantedFile(
            place="annotations/instances_train2017.json",
            content="polygons, and RLEs of crowds",
            elsewhere=("instances_train2017.json",),
        ),
        COCO_IMAGES,
    ),
    licence=COCO_LICENCE,
    home="https://cocodataset.org",
)


def coco_places(kind: str, split: str) -> tuple[str, ...]:
    """Where COCO's annotation file of 2017 lies, and last the name that other sets in its layout have.

    Args:
        kind: ``instances`` or ``panoptic``.
        split: ``train`` or ``val``.
    """
    return f"annotations/{kind}_{split}2017.json", f"{kind}_{split}2017.json", f"annotations/{kind}_{split}.json"


def image_places(split: str) -> tuple[str, ...]:
    """Where COCO's images of a split of 2017 lie, and last those of other sets in its layout."""
    return f"{split}2017", f"images/{split}2017", f"images/{split}"


def open_coco_instances(
    root: Folder,
    index: str,
    *,
    name: str = KIND,
    split: str = "train",
    json: str | None = None,
    images: str | None = None,
    crowd: str = "keep",
    min_area: int = 1,
) -> IndexedSource:
    """A source of COCO instances; one unit is one image that has annotations.

    Args:
        root: folder of the source.
        index: local folder of the indexes.
        name: of the source.
        split: of COCO 2017, ``train`` or ``val``; it says where to look for what the next two do not name.
        json: the annotation file under the root; None: annotations/instances_train2017.json, instances_train2017.json,
            annotations/instances_train.json.
        images: the folder of images under the root, which ``file_name`` is relative to; None: train2017,
            images/train2017, images/train.
        crowd: ``keep`` crowds, as the published training does, or ``skip`` them.
        min_area: smaller masks, in pixels, are left out.

    Raises:
        SetupError: an option is wrong, a file or folder is not there, or the file is of another kind.
    """
    part = checked_choice("split", split, SPLITS)
    treatment = checked_treatment("crowd", crowd)
    area = checked_count("min_area", min_area, 1)
    file = first_file(root, "json", json, coco_places("instances", part))
    folder = first_folder(root, "images", images, image_places(part))
    indexed = index_coco(root, file, index, INSTANCES)
    settings = {"kind": KIND, "crowd": treatment, "min_area": area, "sha256": indexed.sha256}
    reader = CocoInstancesReader(opener=partial(read_picture, folder), crowd=treatment, min_area=area)
    return IndexedSource(name=name, settings=settings, index=indexed.units, reader=reader)


@dataclass(frozen=True, slots=True, kw_only=True)
class CocoInstancesReader:
    """Reads one image of a COCO instances file.

    Attributes:
        opener: gives the picture; takes its name, height and width. Can be pickled.
        crowd: whether crowds are masks.
        min_area: in pixels.
        masks_per_image: at most so many; None: all.
        seed: of their choice.
    """

    opener: Callable[[str, int, int], Image.Image]
    crowd: Treatment
    min_area: int
    masks_per_image: int | None = None
    seed: int = 0

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
        found = RegionList(str(record.key), self.min_area, self.masks_per_image, self.seed)
        where = {"image": image.file_name}
        found.add_annotations(record.annotations, where, image.height, image.width, crowds=self.crowd == "keep")
        yield from found.image(
            image.file_name, image.height, image.width, partial(self.opener, image.file_name, image.height, image.width)
        )
