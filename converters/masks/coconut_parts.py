"""The three parts of COCONut on a disk, and the images that they were drawn on, on their way into one index.

Records of annotations, by image: {"part", "segments", and where the label map is}. Segments are cut to what decides
whether they are masks. ``converters/masks/coconut.py`` says what lies where.
"""

from __future__ import annotations

import hashlib
import itertools
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from converters.files.coco_files import is_side
from converters.files.json_stream import chunks_of, items_of, noted, sha256_of
from converters.files.listings import PICTURE_SUFFIXES, list_folder, stem_of
from converters.files.parquet_rows import footer_digest, parquet_rows
from converters.files.unit_index import Entry, is_key
from converters.masks.options import find_folder, first_folder, folder_at, is_file
from samtok_data.errors import SetupError
from samtok_data.storage import ARCHIVES, Folder, is_contained

PartName = Literal["base", "large", "xlarge"]
CELL = "mask.bytes"
_COLUMNS = ("segments_info", "image_info")
_PARQUET = (".parquet",)
_NAMED = (".png", ".jpg", ".jpeg")
_BASE = ("coconut_base", "coconut_base/data", "coconut_b", "coconut_b/data", "data", ".")
_LARGE = ("coconut_large/", "")
_XLARGE = ("coconut_xlarge/", "coconut_xlarge/coconuts_xlarge/", "coconuts_xlarge/", "")
LARGE_JSON = "panseg_object365_train_v2.json"
_IMAGES = (
    ("coco/train2017", "train2017", "images/train2017"),
    ("coco/unlabeled2017", "unlabeled2017", "images/unlabeled2017"),
    ("object365", "objects365", "Objects365"),
)
_PATCH = "patch"
"""Objects365 comes in folders of this name and a number."""


def kept_segments(segments: Any) -> Any:
    """Segments without what is not used: areas, and categories where it is said whether they are things."""
    if not isinstance(segments, list):
        return segments
    return [_kept(segment) if isinstance(segment, Mapping) else segment for segment in segments]


def _kept(segment: Mapping[str, Any]) -> dict[str, Any]:
    fields = ("id", "iscrowd", "isthing" if segment.get("isthing") is not None else "category_id")
    return {field: segment[field] for field in fields if field in segment}


def _fields(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _entry(name: Any, record: dict[str, Any]) -> Entry:
    """A record that belongs to the image whose file, or whose label map, has this name."""
    file = posixpath.basename(name) if isinstance(name, str) else ""
    stem = stem_of(file, _NAMED) or file
    return Entry("annotations", stem if stem and is_key(stem) and is_contained(stem) else None, record)


@dataclass(frozen=True, slots=True)
class BasePart:
    """Parquet files, each row an image.

    Attributes:
        folder: of the files.
        files: names and digests, by name.
    """

    folder: Folder
    files: tuple[tuple[str, str], ...]

    @property
    def content(self) -> Any:
        """What decides the entries."""
        return [list(file) for file in self.files]

    def entries(self) -> Iterator[Entry]:
        """A record for every row."""
        for file, _digest in self.files:
            for group, row, values in parquet_rows(self.folder, file, _COLUMNS, CELL):
                annotation, image = (_fields(values[column]) for column in _COLUMNS)
                size = [image.get("height"), image.get("width")]
                place = {"file": file, "group": group, "row": row}
                record = {"part": "base", **place, "segments": kept_segments(annotation.get("segments_info"))}
                if all(map(is_side, size)):
                    record["size"] = size
                yield _entry(image.get("file_name") or annotation.get("file_name"), record)


@dataclass(frozen=True, slots=True)
class LargePart:
    """One JSON file, and a folder of PNG files.

    Attributes:
        root: folder of the source.
        json: the file under it.
        masks: folder of the PNG files.
        sha256: of the JSON file.
    """

    root: Folder
    json: str
    masks: Folder
    sha256: str

    @property
    def content(self) -> Any:
        """What decides the entries."""
        return self.sha256

    def entries(self) -> Iterator[Entry]:
        """A record for every annotation: of both shapes, with the image's name in one field or in another."""
        label = f"{self.root}: {self.json}"
        has_segments, digest = False, hashlib.sha256()
        chunks = noted(chunks_of(self.root, self.json, label, "large_json"), digest.update)
        for (items,) in items_of(chunks, label, ("annotations.item",)):
            for annotation in items:
                fields = _fields(annotation)
                has_segments = has_segments or "segments_info" in fields
                name = fields.get("object365_file_name") or fields.get("file_name")
                record = {"part": "large", "name": name, "segments": kept_segments(fields.get("segments_info"))}
                yield _entry(name, record)
        if not has_segments:
            raise SetupError(f"{label}: expected annotations with segments_info, found none; is it the right file?")
        if digest.hexdigest() != self.sha256:
            raise SetupError(f"{label}: it changed while it was read; start again")


@dataclass(frozen=True, slots=True)
class XlargePart:
    """A JSON file and a PNG file for each image, in two folders.

    Attributes:
        infos: folder of the JSON files.
        masks: folder of the PNG files.
    """

    infos: Folder
    masks: Folder

    def entries(self) -> Iterator[Entry]:
        """A record for every JSON file."""
        for listed in list_folder(self.infos):
            stem = stem_of(listed.name, (".json",))
            if stem is not None and not listed.is_folder:
                yield _entry(stem, {"part": "xlarge", "file": listed.name})


def find_base(root: Folder, value: str | None) -> BasePart | None:
    """The Parquet files; None where none are found and no folder is named."""
    places = [find_folder(root, "base", value)] if value is not None else _existing(root, _BASE)
    for folder in places:
        names = sorted(one.name for one in list_folder(folder) if not one.is_folder and one.name.endswith(_PARQUET))
        if names:
            return BasePart(folder, tuple((name, footer_digest(folder, name)) for name in names))
    if value is not None:
        raise SetupError(f"{root}: no file *.parquet in {value}; name their folder with the option base")
    return None


def _existing(root: Folder, places: Iterable[str]) -> Iterator[Folder]:
    for place in places:
        folder = root if place == "." else folder_at(root, place)
        if folder is not None:
            yield folder


def find_large(root: Folder, json: str | None, masks: str | None) -> LargePart | None:
    """The JSON file and the folder; None where there is no such file and none is named."""
    places = [json] if json is not None else [f"{above}{LARGE_JSON}" for above in _LARGE]
    file = next((place for place in places if json is not None or is_file(root, place)), None)
    if file is None:
        return None
    folder = first_folder(root, "large_masks", masks, [f"{above}panoptic_object365" for above in _LARGE])
    return LargePart(root, file, folder, sha256_of(root, file, f"{root}: {file}", "large_json"))


def find_xlarge(root: Folder, infos: str | None, masks: str | None) -> XlargePart | None:
    """The two folders; None where the one of the JSON files is not there and is not named."""
    found = next(_existing(root, (f"{above}panseg_info" for above in _XLARGE)), None)
    if infos is not None:
        found = find_folder(root, "xlarge_json", infos)
    if found is None:
        return None
    return XlargePart(found, first_folder(root, "xlarge_masks", masks, [f"{above}panseg" for above in _XLARGE]))


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """Images that lie directly in a folder.

    Attributes:
        label: its name, with which scenes call their images.
        folder: where it is.
    """

    label: str
    folder: Folder


def find_images(root: Folder, names: Sequence[str] | None) -> tuple[ImageFolder, ...]:
    """The folders of images, and the patches in those of Objects365, each as a folder, zip or tar.

    Raises:
        SetupError: a folder that is named is not there, or none is there.
    """
    found: list[ImageFolder] = []
    for name, folder in _image_places(root, names):
        found.append(ImageFolder(_label(name), folder))
        patches = {_label(one.name) for one in list_folder(folder) if one.name.startswith(_PATCH)}
        inside = ((patch, folder_at(folder, patch)) for patch in sorted(patches, key=_number))
        found += (ImageFolder(patch, one) for patch, one in inside if one is not None)
    if not found:
        raise SetupError(
            f"{root}: none of the folders {', '.join(place for group in _IMAGES for place in group)}; name the folders "
            "of COCO's and Objects365's images with the option images"
        )
    return tuple(found)


def _image_places(root: Folder, names: Sequence[str] | None) -> Iterator[tuple[str, Folder]]:
    if names is not None:
        yield from ((name, find_folder(root, "images", name)) for name in names)
        return
    for group in _IMAGES:
        there = ((place, folder_at(root, place)) for place in group)
        yield from itertools.islice(((place, folder) for place, folder in there if folder is not None), 1)


def _label(name: str) -> str:
    base = posixpath.basename(name.rstrip("/."))
    stem, ending = posixpath.splitext(base)
    return stem if ending.lower() in ARCHIVES else base


def _number(patch: str) -> tuple[int, str]:
    digits = patch.removeprefix(_PATCH)
    return (int(digits) if digits.isdecimal() else 0, patch)


def image_entries(folders: Sequence[ImageFolder]) -> Iterator[Entry]:
    """A record for every image: the place of its folder among these, and its name."""
    for place, folder in enumerate(folders):
        for listed in list_folder(folder.folder):
            stem = stem_of(listed.name, PICTURE_SUFFIXES)
            if stem is not None and not listed.is_folder:
                usable = is_key(stem) and is_contained(listed.name)
                yield Entry("images", stem if usable else None, [place, listed.name])
