"""ADE20K in the three forms in which it is found.

    panoptic     ade20k_panoptic_train.json and a PNG file for each image, as COCO panoptic's: Mask2Former's
                 preparation, which the published training reads
    challenge    annotations/*.png: 0 void, 1 .. 150 the class; annotations_instance/*.png: R class, G instance
    full         the releases of 2016 and 2021: ``converters/masks/ade20k_full.py``

The preparation makes the first of the second: it paints the 50 classes of stuff, and over them every instance of the
100 classes of things; pixels of a thing that no instance holds are void. From the challenge's files the same is done
here, and gives the same masks, but for two classes: the preparation paints roads and skyscrapers in one colour, so an
image that has both has one mask of them there, which the file lists twice (a reject ``record-duplicate``), and two
here. Stuff that instances hide altogether is listed there (a reject ``mask-empty``), and is nothing here. Without
annotations_instance, a class of things is one mask. The releases have masks of their own: objects of 3,000 classes.

Format: README of CSAILVision/sceneparsing and placeschallenge; facebookresearch/Mask2Former prepare_ade20k_pan_seg.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np

from converters.files.coco_files import index_coco
from converters.files.listings import index_listing, list_folder, named_entry, paired, picture_entries, stem_of
from converters.files.unit_index import Entry, UnitIndex, UnitRecord
from converters.masks.ade20k_full import Ade20kFullReader, Shapes, index_full
from converters.masks.coco_panoptic import PANOPTIC, CocoPanopticReader
from converters.masks.indexed_source import Found, IndexedSource, RegionList, UnitReader
from converters.masks.options import (
    checked_choice,
    checked_count,
    checked_limit,
    checked_treatment,
    find_folder,
    first_file,
    first_folder,
    folder_at,
    is_file,
    require_root,
)
from converters.masks.source import MaskSourceInfo, WantedFile
from samtok_data.errors import RecordError, SetupError
from samtok_data.label_maps import Labels, decode_colours, decode_label_map, encode_labels, map_size
from samtok_data.pictures import read_file, read_picture
from samtok_data.rejects import Reject
from samtok_data.storage import Folder

Layout = Literal["panoptic", "challenge", "full"]
Things = Literal["instances", "classes"]
KIND = "ade20k"
INFO = MaskSourceInfo(
    kind=KIND,
    title="ADE20K",
    files=(
        WantedFile(
            place="ADEChallengeData2016/images/training/*.jpg",
            content="the photographs of the challenge",
            elsewhere=("images/training/*.jpg", "ADE20K_2021_17_01/images/ADE/training/*/*/*.jpg"),
        ),
        WantedFile(
            place="ADEChallengeData2016/ade20k_panoptic_train.json",
            content="the segments, as Mask2Former prepares them; beside it the folder ade20k_panoptic_train",
            elsewhere=("ade20k_panoptic_train.json",),
            is_optional=True,
        ),
        WantedFile(
            place="ADEChallengeData2016/annotations/training/*.png",
            content="classes, read where the prepared file is not there; annotations_instance beside it",
            elsewhere=("annotations/training/*.png",),
            is_optional=True,
        ),
    ),
    licence="ADE20K's terms of use, after registration: research and education that are not commercial.",
    home="https://groups.csail.mit.edu/vision/datasets/ADE20K",
    images=20_210,
    masks=197_000,
)
_FOLDERS = {"train": "training", "val": "validation"}
_ABOVE = ("ADEChallengeData2016/", "")
_NUM_CLASSES, _NUM_THINGS = 150, 100
_STUFF = (
    *(1, 2, 3, 4, 5, 6, 7, 10, 12, 14, 17, 18, 22, 26, 27, 29, 30, 35, 41, 47, 49, 52, 53, 55, 60, 61, 62, 64, 69, 78),
    *(80, 85, 92, 95, 97, 100, 101, 102, 106, 107, 110, 114, 115, 118, 123, 129, 132, 141, 142, 146),
)
_VOID = 0
_THING = 1 << 16  # added to what an instance's pixels hold, so that it is no class


_LAYOUTS_OF: Mapping[str, tuple[Layout, ...]] = {
    "json": ("panoptic",),
    "crowd": ("panoptic",),
    "annotations": ("panoptic", "challenge"),
    "instances": ("challenge",),
    "things": ("challenge",),
    "shapes": ("full",),
    "parts": ("full",),
}


def open_ade20k(
    root: Folder,
    index: str,
    *,
    name: str = KIND,
    layout: str | None = None,
    split: str = "train",
    images: str | None = None,
    json: str | None = None,
    crowd: str | None = None,
    annotations: str | None = None,
    instances: str | None = None,
    things: str | None = None,
    shapes: str | None = None,
    parts: str | None = None,
    min_area: int = 1,
    masks_per_image: int | None = None,
    seed: int = 0,
) -> IndexedSource:
    """A source of scenes; one unit is one image that has an annotation. The defaults are the published choice.

    Args:
        root: folder of the source: ADEChallengeData2016, ADE20K_2021_17_01, ADE20K_2016_07_26, or the one above.
        index: local folder of the indexes.
        name: of the source.
        layout: ``panoptic``, ``challenge`` or ``full``; None: the first of them that is there.
        split: ``train`` or ``val``.
        images: the folder of images; of the layout full, the folder of scenes.
        json: of panoptic only: the annotation file.
        crowd: of panoptic only: ``skip`` crowds (None as well), or ``keep`` them.
        annotations: of panoptic: the folder of PNG files; of challenge: the folder of classes.
        instances: of challenge only: the folder of instances.
        things: of challenge only: ``instances``, or a mask for each of the ``classes``; None: what is there.
        shapes: of full only: what is ``visible`` of an object (None as well), or all of it, ``amodal`` (2021 only).
        parts: of full only: ``skip`` parts of objects (None as well), or ``keep`` them.
        min_area: smaller masks, in pixels, are left out.
        masks_per_image: at most so many, chosen at random; None: all.
        seed: of that choice.

    Raises:
        SetupError: an option is wrong or of another layout, a file or folder is not there, or no image has masks.
    """
    options: dict[str, Any] = {
        "min_area": checked_count("min_area", min_area, 1),
        "masks_per_image": checked_limit("masks_per_image", masks_per_image),
        "seed": checked_count("seed", seed, 0),
    }
    part = checked_choice("split", split, tuple(_FOLDERS))
    own = {"json": json, "crowd": crowd, "annotations": annotations, "instances": instances, "things": things}
    own |= {"shapes": shapes, "parts": parts}
    chosen: Layout = _found(root, part, own) if layout is None else checked_choice("layout", layout, get_args(Layout))
    for option, value in own.items():
        if value is not None and chosen not in _LAYOUTS_OF[option]:
            wanted = " or ".join(_LAYOUTS_OF[option])
            raise SetupError(f"{option}: the layout {chosen} has no such option; set layout: {wanted}, or leave it out")
    make = {"panoptic": _open_panoptic, "challenge": _open_challenge, "full": _open_full}[chosen]
    settings, units, reader = make(root, index, part, images, own, options)
    settings = {"kind": KIND, "layout": chosen, "split": part, **options, **settings}
    return IndexedSource(name=name, settings=settings, index=units, reader=reader)


def _found(root: Folder, part: str, own: Mapping[str, Any]) -> Layout:
    require_root(root)
    if own["json"] is not None or any(is_file(root, place) for place in _jsons(part)):
        return "panoptic"
    if own["annotations"] is not None or any(folder_at(root, place) for place in _places("annotations", part)):
        return "challenge"
    if any(folder_at(root, place) for place in _scenes(part)):
        return "full"
    raise SetupError(
        f"{root}: none of {_jsons(part)[0]}, {_places('annotations', part)[0]}, {', '.join(_scenes(part)[::2])} is "
        "there; name the source's folder with root, or its parts with layout, images and annotations"
    )


def _jsons(part: str) -> tuple[str, ...]:
    return tuple(f"{above}ade20k_panoptic_{part}.json" for above in _ABOVE)


def _places(folder: str, part: str) -> tuple[str, ...]:
    return tuple(f"{above}{folder}/{_FOLDERS[part]}" for above in _ABOVE)


def _scenes(part: str) -> tuple[str, ...]:
    below = _FOLDERS[part]
    return (
        *(f"ADE20K_2021_17_01/images/ADE/{below}", f"images/ADE/{below}"),
        *(f"ADE20K_2016_07_26/images/{below}", f"images/{below}", below),
    )


_Opened = tuple[Mapping[str, Any], UnitIndex, UnitReader]


def _open_panoptic(
    root: Folder, index: str, part: str, images: str | None, own: Mapping[str, Any], options: dict[str, Any]
) -> _Opened:
    crowd = checked_treatment("crowd", "skip" if own["crowd"] is None else own["crowd"])
    file = first_file(root, "json", own["json"], _jsons(part))
    pictures = first_folder(root, "images", images, _places("images", part))
    labels = find_folder(root, "annotations", own["annotations"] or file.removesuffix(".json"))
    indexed = index_coco(root, file, index, PANOPTIC)
    reader = CocoPanopticReader(images=pictures, masks=labels, crowd=crowd, **options)
    return {"crowd": crowd, "sha256": indexed.sha256}, indexed.units, reader


def _open_challenge(
    root: Folder, index: str, part: str, images: str | None, own: Mapping[str, Any], options: dict[str, Any]
) -> _Opened:
    things: Things | None = None if own["things"] is None else checked_choice("things", own["things"], get_args(Things))
    pictures = first_folder(root, "images", images, _places("images", part))
    classes = first_folder(root, "annotations", own["annotations"], _places("annotations", part))
    places = _places("annotations_instance", part)
    instances = None
    if things == "instances" or own["instances"] is not None:
        instances = first_folder(root, "instances", own["instances"], places)
    elif things is None:
        instances = next(filter(None, (folder_at(root, place) for place in places)), None)
    digest, units = index_listing(f"{KIND}-challenge", index, partial(_entries, pictures, classes))
    if not units.num_paired:
        raise SetupError(f"{root}: no map of {classes} belongs to an image of {pictures}; expected <image>.png")
    settings = {"things": "classes" if instances is None else "instances", "names": digest}
    return settings, units, ChallengeReader(images=pictures, classes=classes, instances=instances, **options)


def _open_full(
    root: Folder, index: str, part: str, images: str | None, own: Mapping[str, Any], options: dict[str, Any]
) -> _Opened:
    shapes: Shapes = checked_choice("shapes", own["shapes"] or "visible", get_args(Shapes))
    parts = checked_treatment("parts", "skip" if own["parts"] is None else own["parts"])
    folder = first_folder(root, "images", images, _scenes(part))
    digest, units = index_full(f"{KIND}-full", folder, index)
    reader = Ade20kFullReader(root=folder, shapes=shapes, parts=parts, **options)
    return {"shapes": shapes, "parts": parts, "names": digest}, units, reader


def _entries(images: Folder, classes: Folder) -> Iterator[Entry]:
    yield from picture_entries(images)
    for listed in list_folder(classes):
        stem = stem_of(listed.name, (".png",))
        if stem is not None and not listed.is_folder:
            yield named_entry("annotations", stem, listed.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChallengeReader:
    """Reads one image of the challenge's files.

    Attributes:
        images: folder of the images.
        classes: folder of the maps of classes.
        instances: folder of the maps of instances, of the same names; None: a class of things is one mask.
        min_area: in pixels.
        masks_per_image: at most so many; None: all.
        seed: of their choice.
    """

    images: Folder
    classes: Folder
    instances: Folder | None
    min_area: int
    masks_per_image: int | None
    seed: int

    def name_of(self, record: UnitRecord) -> str:
        """The image's name, or its map's stem where it is missing."""
        return record.images[0] if record.images else str(record.key)

    def read(self, record: UnitRecord) -> Found:
        """The image with its masks. Without one of its maps it has none: what things cover is no stuff."""
        found = RegionList(str(record.key), self.min_area, self.masks_per_image, self.seed)
        try:
            image, file = paired(self.images, record)
            height, width = self._add(found, file)
        except RecordError as error:
            yield Reject.of(error, found.scene, {"images": record.images, "maps": record.annotations})
            return
        yield from found.image(image, height, width, partial(read_picture, self.images, image, height, width))

    def _add(self, found: RegionList, file: str) -> tuple[int, int]:
        data = _png(self.classes, file)
        height, width = map_size(data, file)
        labels_HW = decode_label_map(data, file, height, width, is_grey=True)
        if self.instances is not None:
            things_CHW = decode_colours(_png(self.instances, file), f"instances: {file}", height, width)
            labels_HW = _painted(labels_HW, things_CHW.astype(np.uint32))
        for label, rle in encode_labels(labels_HW, void=_VOID).items():
            of_thing, instance = divmod(label - _THING, 256)
            is_thing = label >= _THING
            region = f"thing-{of_thing}-{instance}" if is_thing else f"class-{label}"
            where = {"map": file, "region": region}
            if of_thing not in range(1, _NUM_THINGS + 1) if is_thing else label > _NUM_CLASSES:
                error = RecordError("mask-unlisted", f"{file}: it holds {region}, and there is no such class")
                found.reject(region, where, error)
            else:
                found.add(region, where, lambda rle=rle: rle)
        return height, width


def _painted(classes_HW: Labels, things_CHW: Labels) -> Labels:
    """Stuff, and over it every instance of a thing; what is neither is void."""
    red_HW, numbers_HW, _ = things_CHW
    is_stuff_HW = np.isin(classes_HW, _STUFF) | (classes_HW > _NUM_CLASSES)  # such a class is none: a reject
    stuff_HW = np.where(is_stuff_HW, classes_HW, _VOID)
    return np.where(numbers_HW > 0, _THING + red_HW * 256 + numbers_HW, stuff_HW).astype(np.uint32)


def _png(folder: Folder, file: str) -> bytes:
    return read_file(folder, file, missing="annotation-missing", kind="PNG file")
