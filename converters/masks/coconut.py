"""COCONut: COCO and Objects365 with panoptic masks by hand, in three parts that are published apart.

    base      coconut_b/data/train-00000-of-00004.parquet      mask {bytes}, segments_info {segments_info}, image_info
    large     panseg_object365_train_v2.json, panoptic_object365/objects365_v2_00000001.png
    xlarge    panseg_info/objects365_v2_00000002.json, panseg/objects365_v2_00000002.png
    images    train2017, unlabeled2017, object365/patch17, ...

Ids are those of COCO panoptic: id = R + 256 G + 65536 B, or the number itself where the PNG file has one channel; they
are small, so the files look black. To turn them into grey first would scale a red channel and follow a palette. A row
of the base is read as ``converters/files/parquet_rows.py`` says. The published training reads all three parts, things,
stuff and crowds, and leaves out images that it does not have. An image counts once, although 189 are in two parts: in
the first part that has it, in the order above. What COCONut's own script makes of the base, a JSON file and a folder of
PNG files, is read as coco-panoptic.

Format: bytedance/coconut_cvpr2024 (README.md, download_coconut.py, tutorials) and the converters of SAMTok's authors.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

from converters.files.json_files import read_json
from converters.files.listings import index_listing
from converters.files.parquet_rows import read_cell
from converters.files.unit_index import Entry, UnitRecord
from converters.masks.coco_panoptic import VOID, add_segments
from converters.masks.coconut_parts import (
    CELL,
    BasePart,
    ImageFolder,
    LargePart,
    PartName,
    XlargePart,
    find_base,
    find_images,
    find_large,
    find_xlarge,
    image_entries,
)
from converters.masks.indexed_source import Found, IndexedSource, RegionList
from converters.masks.options import (
    Treatment,
    checked_choice,
    checked_count,
    checked_limit,
    checked_treatment,
    checked_words,
    require_root,
)
from converters.masks.source import MaskSourceInfo, WantedFile
from samtok_data.errors import RecordError, SetupError
from samtok_data.label_maps import decode_label_map, encode_labels, map_size
from samtok_data.pictures import read_file, read_picture
from samtok_data.rejects import Reject
from samtok_data.storage import Folder

Segments = Literal["all", "things", "stuff"]
KIND = "coconut"
PARTS: tuple[PartName, ...] = get_args(PartName)
INFO = MaskSourceInfo(
    kind=KIND,
    title="COCONut",
    files=(
        WantedFile(
            place="coconut_base/train-*.parquet",
            content="masks of COCO's images",
            elsewhere=("coconut_b/data/train-*.parquet", "data/train-*.parquet"),
            is_optional=True,
        ),
        WantedFile(
            place="coconut_large/panseg_object365_train_v2.json",
            content="masks of images of Objects365; beside it the folder panoptic_object365",
            elsewhere=("panseg_object365_train_v2.json",),
            is_optional=True,
        ),
        WantedFile(
            place="coconut_xlarge/panseg_info/*.json",
            content="masks of more images of Objects365; beside it the folder panseg",
            elsewhere=("coconut_xlarge/coconuts_xlarge/panseg_info/*.json", "panseg_info/*.json"),
            is_optional=True,
        ),
        WantedFile(place="coco/train2017", content="COCO's images", elsewhere=("train2017",), is_optional=True),
        WantedFile(
            place="coco/unlabeled2017", content="COCO's further images", elsewhere=("unlabeled2017",), is_optional=True
        ),
        WantedFile(
            place="object365/patch*",
            content="Objects365's images, version 2: patches 17, 23, 25, 28, 32, 35, 38, 40, 42, 44 and 50",
            elsewhere=("objects365/patch*",),
            is_optional=True,
        ),
    ),
    licence="Masks under COCO's terms, not commercial; images under those of COCO's and of Objects365's owners.",
    home="https://github.com/bytedance/coconut_cvpr2024",
    images=488_000,
    masks=3_500_000,
)
_LAST_THING = 90  # of COCO's categories: those of stuff begin at 92


def open_coconut(
    root: Folder,
    index: str,
    *,
    name: str = KIND,
    parts: Sequence[str] | None = None,
    images: Sequence[str] | None = None,
    base: str | None = None,
    large_json: str | None = None,
    large_masks: str | None = None,
    xlarge_json: str | None = None,
    xlarge_masks: str | None = None,
    segments: str = "all",
    crowd: str = "keep",
    min_area: int = 1,
    masks_per_image: int | None = None,
    seed: int = 0,
) -> IndexedSource:
    """A source of COCONut; one unit is one image that has an annotation. The defaults are the published choice.

    Args:
        root: folder of the source.
        index: local folder of the indexes.
        name: of the source.
        parts: ``base``, ``large``, ``xlarge``, or some of them; None: those that are there.
        images: folders of images, in the order in which an image is looked for; with the folders ``patch...`` in them.
            None: coco/train2017 or train2017, the same of unlabeled2017, object365 or objects365: what is there.
        base: folder of the Parquet files; None: coconut_base, coconut_b, or data in them or in the root.
        large_json: annotation file of the large part; None: panseg_object365_train_v2.json, or in coconut_large.
        large_masks: folder of its PNG files; None: panoptic_object365, or in coconut_large.
        xlarge_json: folder of the extra-large part's JSON files; None: panseg_info, or in coconut_xlarge.
        xlarge_masks: folder of its PNG files; None: panseg, or in coconut_xlarge.
        segments: ``all``, or only ``things`` or ``stuff``.
        crowd: ``keep`` crowds, or ``skip`` them.
        min_area: smaller masks, in pixels, are left out.
        masks_per_image: at most so many, chosen at random; None: all.
        seed: of that choice.

    Raises:
        SetupError: an option is wrong, a file or folder is not there or of another format, or no image has masks.
    """
    options: dict[str, Any] = {
        "segments": checked_choice("segments", segments, get_args(Segments)),
        "crowd": checked_treatment("crowd", crowd),
        "min_area": checked_count("min_area", min_area, 1),
        "masks_per_image": checked_limit("masks_per_image", masks_per_image),
        "seed": checked_count("seed", seed, 0),
    }
    wanted = _wanted(parts)
    folder_names = None if images is None else checked_words("images", images)
    require_root(root)
    found = _Parts(
        find_base(root, base) if "base" in wanted else None,
        find_large(root, large_json, large_masks) if "large" in wanted else None,
        find_xlarge(root, xlarge_json, xlarge_masks) if "xlarge" in wanted else None,
    )
    found.require(root, () if parts is None else wanted)
    return _opened(root, index, name, found, find_images(root, folder_names), options)


def _opened(
    root: Folder, index: str, name: str, found: _Parts, images: tuple[ImageFolder, ...], options: dict[str, Any]
) -> IndexedSource:
    listed = partial(found.listed, images)
    digest, units = index_listing(KIND, index, listed, content=found.content, before=found.entries)
    if not units.num_paired:
        where = ", ".join(str(one.folder) for one in images)
        raise SetupError(f"{root}: no annotation belongs to an image of {where}; name their folders with images")
    settings = {"kind": KIND, "parts": list(found.names), **options, "content": found.content, "names": digest}
    reader = CoconutReader(parts=found, images=images, **options)
    return IndexedSource(name=name, settings=settings, index=units, reader=reader)


def _wanted(parts: Any) -> tuple[PartName, ...]:
    if parts is None:
        return PARTS
    named = [checked_choice("parts", one, PARTS) for one in checked_words("parts", parts)]
    if not named:
        raise SetupError(f"parts: expected some of {', '.join(PARTS)}, got none")
    return tuple(part for part in PARTS if part in named)


@dataclass(frozen=True, slots=True)
class _Parts:
    base: BasePart | None
    large: LargePart | None
    xlarge: XlargePart | None

    @property
    def names(self) -> tuple[PartName, ...]:
        return tuple(part for part in PARTS if getattr(self, part) is not None)

    @property
    def content(self) -> dict[str, Any]:
        found = {"base": self.base and self.base.content, "large": self.large and self.large.content}
        return {"parts": list(self.names), **{part: content for part, content in found.items() if content}}

    def require(self, root: Folder, wanted: Sequence[PartName]) -> None:
        missing = [part for part in wanted if part not in self.names]
        if missing or not self.names:
            raise SetupError(
                f"{root}: nothing is found of the part {' or '.join(missing or PARTS)}; expected "
                "coconut_base/*.parquet, coconut_large/panseg_object365_train_v2.json, coconut_xlarge/panseg_info; "
                "name them with the options base, large_json, xlarge_json"
            )

    def entries(self) -> Iterator[Entry]:
        """Of the annotation files. The first part stands first, so that its record of an image does."""
        for part in (self.base, self.large):
            if part is not None:
                yield from part.entries()

    def listed(self, folders: Sequence[ImageFolder]) -> Iterator[Entry]:
        """Of folders: images, and the extra-large part's files."""
        yield from image_entries(folders)
        if self.xlarge is not None:
            yield from self.xlarge.entries()


@dataclass(frozen=True, slots=True, kw_only=True)
class CoconutReader:
    """Reads one image.

    Attributes:
        parts: where they are.
        images: folders of the images.
        segments: which of them are masks.
        crowd: whether crowds are masks.
        min_area: in pixels.
        masks_per_image: at most so many; None: all.
        seed: of their choice.
    """

    parts: _Parts
    images: tuple[ImageFolder, ...]
    segments: Segments
    crowd: Treatment
    min_area: int
    masks_per_image: int | None
    seed: int

    def name_of(self, record: UnitRecord) -> str:
        """The image's name, or what its annotation calls it where it is missing."""
        return record.images[0][1] if record.images else str(record.key)

    def read(self, record: UnitRecord) -> Found:
        """The image with its segments. What is listed without pixels, or has pixels and is not listed, is a reject."""
        if record.key is None:
            for place, annotation in enumerate(record.annotations):
                error = RecordError("record-invalid", "expected the name of an image, got none that can be used")
                yield Reject.of(error, f"none/{annotation['part']}-{place}", annotation)
            return
        found = RegionList(str(record.key), self.min_area, self.masks_per_image, self.seed)
        first, *more = record.annotations
        for other in more:
            error = RecordError("record-duplicate", f"{found.scene}: the part {first['part']} has this image already")
            found.reject(other["part"], other, error)
        try:
            place, file = self._image(record)
            image = posixpath.join(place.label, file)
            height, width = self._add(found, first, image)
        except RecordError as error:
            yield from found.rejects
            yield Reject.of(error, found.scene, {"images": record.images, "annotation": first})
            return
        yield from found.image(image, height, width, partial(read_picture, place.folder, file, height, width))

    def _image(self, record: UnitRecord) -> tuple[ImageFolder, str]:
        """The image's folder, the first one where several have it, and its name there."""
        if not record.images:
            where = ", ".join(one.label for one in self.images)
            raise RecordError("image-missing", f"{record.key}: no image of this name in {where}")
        place = min(number for number, _ in record.images)
        files = sorted(file for number, file in record.images if number == place)
        if len(files) > 1:
            raise RecordError("record-duplicate", f"{record.key}: several images: {', '.join(files)}")
        return self.images[place], files[0]

    def _add(self, found: RegionList, annotation: Mapping[str, Any], image: str) -> tuple[int, int]:
        label, data, segments = self._map(found.scene, annotation)
        if not isinstance(data, bytes):
            raise RecordError("annotation-missing", f"{label}: it holds no PNG file")
        if not isinstance(segments, list):
            raise RecordError("record-invalid", f"{label}: expected a list of segments, got {segments!r:.100}")
        height, width = map_size(data, label)
        labels_HW = decode_label_map(data, label, *(annotation.get("size") or (height, width)))
        encoded = encode_labels(labels_HW, void=VOID)
        add_segments(found, segments, encoded, {"image": image, "map": label}, self._is_wanted)
        return height, width

    def _map(self, stem: str, annotation: Mapping[str, Any]) -> tuple[str, Any, Any]:
        """What messages call a label map, its bytes, and its segments."""
        parts, file = self.parts, f"{stem}.png"
        if annotation["part"] == "base" and parts.base is not None:
            rows, group, row = annotation["file"], annotation["group"], annotation["row"]
            data = read_cell(parts.base.folder, rows, dict(parts.base.files)[rows], group, row, CELL)
            return f"{rows}, group {group}, row {row}", data, annotation["segments"]
        if annotation["part"] == "large" and parts.large is not None:
            return file, _png(parts.large.masks, file), annotation["segments"]
        if annotation["part"] == "xlarge" and parts.xlarge is not None:
            segments = read_json(parts.xlarge.infos, annotation["file"])
            return file, _png(parts.xlarge.masks, file), segments
        raise SetupError(f"the index speaks of the part {annotation['part']}, which is not open; delete it")

    def _is_wanted(self, segment: Mapping[str, Any]) -> bool:
        if self.crowd == "skip" and segment.get("iscrowd"):
            return False
        return self.segments == "all" or (self.segments == "things") == _is_thing(segment)


def _png(folder: Folder, file: str) -> bytes:
    return read_file(folder, file, missing="annotation-missing", kind="PNG file")


def _is_thing(segment: Mapping[str, Any]) -> bool:
    says, category = segment.get("isthing"), segment.get("category_id")
    if says in (0, 1):
        return bool(says)
    if says is None and type(category) is int:
        return category <= _LAST_THING
    raise RecordError("record-invalid", f"segment: expected isthing or a category_id, got {segment!r:.100}")
