"""LVIS: masks of more than a thousand categories on COCO's photographs of 2017.

    lvis_v1_train.json       polygons only, no crowds; an image has a coco_url: .../train2017/000000391895.jpg
    lvis_v0.5_train.json     has a file_name as well, COCO_val2014_000000391895.jpg, that no file of 2017 bears
    train2017, val2017       COCO's images; the val split of v1 needs both

The name of an image's file is the end of its coco_url. Format: lvisdataset.org and the sample of lvis-dataset/lvis-api.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from converters.files.coco_files import CocoFormat, index_coco
from converters.masks.coco_instances import SPLITS, CocoInstancesReader
from converters.masks.image_folders import ImageFolders, coco_folders
from converters.masks.indexed_source import IndexedSource
from converters.masks.options import checked_choice, checked_count, checked_limit, first_file
from converters.masks.source import MaskSourceInfo, WantedFile
from samtok_data.storage import Folder

KIND = "lvis"
VERSIONS = ("v1", "v0.5")
INFO = MaskSourceInfo(
    kind=KIND,
    title="LVIS",
    files=(
        WantedFile(
            place="lvis_v1_train.json",
            content="polygons",
            elsewhere=("annotations/lvis_v1_train.json", "lvis_v0.5_train.json", "annotations/lvis_v0.5_train.json"),
        ),
        WantedFile(
            place="train2017",
            content="COCO's photographs, or train2017.zip; the val split needs val2017 as well",
            elsewhere=("images/train2017", "coco/train2017"),
        ),
    ),
    licence="Annotations CC BY 4.0; the photographs under the terms that their owners chose on Flickr.",
    home="https://www.lvisdataset.org",
)


def _named(image: dict[str, Any]) -> dict[str, Any]:
    """The image under the name that its file has in COCO's folders of 2017."""
    url = image.pop("coco_url", None)
    if isinstance(url, str) and url.count("/") > 1:
        return {**image, "file_name": "/".join(url.split("/")[-2:])}
    return image


_FORM = CocoFormat(
    kind=KIND,
    wanted="segmentation",
    fields=("id", "segmentation"),
    image_fields=("id", "file_name", "coco_url", "height", "width"),
    reduce_image=_named,
)


def open_lvis(
    root: Folder,
    index: str,
    *,
    name: str = KIND,
    split: str = "train",
    version: str | None = None,
    json: str | None = None,
    images: str | None = None,
    min_area: int = 1,
    masks_per_image: int | None = None,
    seed: int = 0,
) -> IndexedSource:
    """A source of LVIS's masks; one unit is one image that has annotations.

    Args:
        root: folder of the source.
        index: local folder of the indexes.
        name: of the source.
        split: ``train`` or ``val``.
        version: ``v1`` or ``v0.5``; None: the first of them that is there.
        json: the annotation file under the root; None: lvis_v1_train.json, there or in annotations.
        images: the folder under the root that holds train2017 and val2017; None: the root, images, coco or
            coco/images.
        min_area: smaller masks, in pixels, are left out.
        masks_per_image: at most so many of an image; None: all.
        seed: of their choice.

    Raises:
        SetupError: an option is wrong, a file or folder is not there, or the file is of another kind.
    """
    part = checked_choice("split", split, SPLITS)
    versions = VERSIONS if version is None else (checked_choice("version", version, VERSIONS),)
    area = checked_count("min_area", min_area, 1)
    limit, chance = checked_limit("masks_per_image", masks_per_image), checked_count("seed", seed, 0)
    files = [f"{place}lvis_{one}_{part}.json" for one in versions for place in ("", "annotations/")]
    file = first_file(root, "json", json, files)
    folders = coco_folders(root, images)
    indexed = index_coco(root, file, index, _FORM)
    settings = {
        "kind": KIND,
        "split": part,
        "version": version,
        "min_area": area,
        "masks_per_image": limit,
        "seed": chance,
        "sha256": indexed.sha256,
    }
    reader = CocoInstancesReader(
        opener=partial(ImageFolders.read, folders), crowd="keep", min_area=area, masks_per_image=limit, seed=chance
    )
    return IndexedSource(name=name, settings=settings, index=indexed.units, reader=reader)
