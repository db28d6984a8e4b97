"""EntitySeg: things and stuff of 33,227 photographs as COCO instances, in full size and in a small one (``lr``).

    entityseg_train_lr.json                  annotations as COCO's, polygons or RLEs, drawn on the images of one size
    images_lr/entity_01_11580/<name>.jpg     images; file_name is entity_01_11580/<name>.jpg
    images/entity_01_11580/<name>.jpg        the same in full size, with annotation files of their own

The annotation files go by three names. The small images have a short side of 800 pixels and a long one of at most
1,333. Train and val number their images and annotations each for itself. Format: adobe-research/EntitySeg-Dataset.
"""

from __future__ import annotations

from functools import partial

from converters.files.coco_files import index_coco
from converters.masks.coco_instances import INSTANCES, SPLITS, CocoInstancesReader
from converters.masks.image_folders import ImageFolders, image_folders
from converters.masks.indexed_source import IndexedSource
from converters.masks.options import (
    checked_choice,
    checked_count,
    checked_limit,
    checked_treatment,
    first_file,
    first_folder,
)
from converters.masks.source import MaskSourceInfo, WantedFile
from samtok_data.storage import Folder

KIND = "entityseg"
SIZES = ("low", "full")
# DATA.md of the release, most of its users, and the published evaluation (which spells it so).
_NAMES = ("entityseg_{}", "entityv2_010203_entity_{}", "entitysef_{}")
_PARTS = ("entity_01_11580", "entity_02_11598", "entity_03_10049")
INFO = MaskSourceInfo(
    kind=KIND,
    title="EntitySeg",
    files=(
        WantedFile(
            place="entityseg_train_lr.json",
            content="polygons or RLEs, drawn on the small images",
            elsewhere=(
                "entityv2_010203_entity_train_lr.json",
                "entitysef_train_lr.json",
                "annotations/entityseg_train_lr.json",
            ),
        ),
        WantedFile(
            place="images_lr",
            content="the small images in entity_01_11580, entity_02_11598 and entity_03_10049, as folders or zips",
            elsewhere=("entity_lr", "images_lr.zip"),
        ),
    ),
    licence="Adobe Research License: annotations for non-commercial research; the photographs are not Adobe's.",
    home="https://github.com/adobe-research/EntitySeg-Dataset",
    images=33_227,  # of train and val: no table gives them apart
    masks=1_400_000,
)


def open_entityseg(
    root: Folder,
    index: str,
    *,
    name: str = KIND,
    split: str = "train",
    size: str = "low",
    json: str | None = None,
    images: str | None = None,
    crowd: str = "keep",
    min_area: int = 1,
    masks_per_image: int | None = None,
    seed: int = 0,
) -> IndexedSource:
    """A source of EntitySeg's masks; one unit is one image that has annotations.

    Args:
        root: folder of the source.
        index: local folder of the indexes.
        name: of the source.
        split: ``train`` or ``val``.
        size: ``low``, as the published training reads, or ``full``.
        json: the annotation file under the root; None: entityseg_train_lr.json, entityv2_010203_entity_train_lr.json or
            entitysef_train_lr.json, there or in annotations; without ``_lr`` for the full size.
        images: the folder under the root that ``file_name`` is relative to; None: images_lr or entity_lr, and images
            for the full size.
        crowd: ``keep`` crowds, as the published training does, or ``skip`` them.
        min_area: smaller masks, in pixels, are left out.
        masks_per_image: at most so many of an image; None: all, as the published training.
        seed: of their choice.

    Raises:
        SetupError: an option is wrong, a file or folder is not there, or the file is of another kind.
    """
    part = checked_choice("split", split, SPLITS)
    ending = "_lr" if checked_choice("size", size, SIZES) == "low" else ""
    treatment = checked_treatment("crowd", crowd)
    area = checked_count("min_area", min_area, 1)
    limit, chance = checked_limit("masks_per_image", masks_per_image), checked_count("seed", seed, 0)
    files = [f"{called.format(part)}{ending}.json" for called in _NAMES]
    file = first_file(root, "json", json, [*files, *(f"annotations/{one}" for one in files)])
    folders = _folders(root, images, ending)
    indexed = index_coco(root, file, index, INSTANCES)
    settings = {
        "kind": KIND,
        "split": part,
        "size": size,
        "crowd": treatment,
        "min_area": area,
        "masks_per_image": limit,
        "seed": chance,
        "sha256": indexed.sha256,
    }
    reader = CocoInstancesReader(
        opener=partial(ImageFolders.read, folders), crowd=treatment, min_area=area, masks_per_image=limit, seed=chance
    )
    return IndexedSource(name=name, settings=settings, index=indexed.units, reader=reader)


def _folders(root: Folder, images: str | None, ending: str) -> ImageFolders:
    whole = first_folder(root, "images", images, ("images_lr", "entity_lr") if ending else ("images",))
    return image_folders(whole, _PARTS)
