"""PixelWeb: screenshots of web pages, and for every pixel the element that it belongs to.

    annotated/<split>/<name>-screenshot.png
    annotated/<split>/<name>-mask.json       [[1, 1, 2, ...], ...]: a number for each pixel, as text, several megabytes
    annotated/<split>/<name>-class.json      ["body", "none", "button", ...]: number k is the k-th of these, from 1 on

A pixel has one number, so an element that others cover has few pixels or none: that is no fault. Format: Hugging Face,
cyberalchemist/PixelWeb (arXiv 2504.16419), and the published training's own reading of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from converters.files.integer_matrix import parse_matrix
from converters.files.json_files import read_json, read_text
from converters.files.listings import index_listing, list_folder, listed_name, named_entry, stem_of
from converters.files.unit_index import Entry, UnitRecord
from converters.masks.image_folders import ImageFolders, image_folders
from converters.masks.indexed_source import Found, IndexedSource, RegionList
from converters.masks.options import (
    Treatment,
    checked_count,
    checked_limit,
    checked_treatment,
    find_folder,
    first_folder,
)
from converters.masks.source import MaskSourceInfo, WantedFile
from samtok_data.errors import RecordError, SetupError
from samtok_data.label_maps import encode_labels
from samtok_data.pictures import decode_picture, picture_size, read_file
from samtok_data.rejects import Reject
from samtok_data.storage import ARCHIVES, Folder

KIND = "pixelweb"
NOTHING = 0
PAGE = 1  # the first element, presumably the page itself
NO_CLASS = "none"
# Text of 60 million numbers of two digits; the longest screenshots have about 20 million pixels.
MAX_MATRIX_BYTES = 1 << 28
_SCREENSHOT, _MASK, _CLASS = "-screenshot.png", "-mask.json", "-class.json"
_PLACES = ("annotated", "pixelweb_100k/annotated", ".")
INFO = MaskSourceInfo(
    kind=KIND,
    title="PixelWeb",
    files=(
        WantedFile(
            place="annotated/*/*-screenshot.png",
            content="screenshots, in a folder for each split or in one for all",
            elsewhere=("pixelweb_100k/annotated/*/*-screenshot.png", "*/*-screenshot.png", "*-screenshot.png"),
        ),
        WantedFile(
            place="annotated/*/*-mask.json",
            content="the element of every pixel, beside its screenshot",
            elsewhere=("pixelweb_100k/annotated/*/*-mask.json", "*/*-mask.json", "*-mask.json"),
        ),
        WantedFile(
            place="annotated/*/*-class.json",
            content="the class of every element, beside its screenshot",
            elsewhere=("pixelweb_100k/annotated/*/*-class.json", "*/*-class.json", "*-class.json"),
        ),
    ),
    licence="The published pages state none that is known here; ask the authors.",
    home="https://huggingface.co/datasets/cyberalchemist/PixelWeb",
    images=100_000,
    masks=1_800_000,
)


def open_pixelweb(
    root: Folder,
    index: str,
    *,
    name: str = KIND,
    folder: str | None = None,
    split: str | None = None,
    unclassed: str = "skip",
    page: str = "skip",
    min_area: int = 1,
    masks_per_image: int | None = None,
    seed: int = 0,
) -> IndexedSource:
    """A source of the elements of web pages; one unit is one page.

    Args:
        root: folder of the source.
        index: local folder of the indexes.
        name: of the source.
        folder: of the splits, or of the pages, under the root; None: annotated, pixelweb_100k/annotated, the root.
        split: the folder of one split; None: all.
        unclassed: ``skip`` elements of the class "none", as the published training does, or ``keep`` them.
        page: ``skip`` the first element of every page, as the published training does, or ``keep`` it.
        min_area: smaller masks, in pixels, are left out.
        masks_per_image: at most so many of a page; None: all, as the published training.
        seed: of their choice.

    Raises:
        SetupError: an option is wrong, a folder is not there, or holds no page.
    """
    none, first = checked_treatment("unclassed", unclassed), checked_treatment("page", page)
    area = checked_count("min_area", min_area, 1)
    limit, chance = checked_limit("masks_per_image", masks_per_image), checked_count("seed", seed, 0)
    pages = _folders(first_folder(root, "folder", folder, _PLACES), split)
    digest, units = index_listing(KIND, index, partial(_entries, pages, split))
    settings = {
        "kind": KIND,
        "split": split,
        "unclassed": none,
        "page": first,
        "min_area": area,
        "masks_per_image": limit,
        "seed": chance,
        "names": digest,
    }
    reader = PixelWebReader(pages=pages, unclassed=none, page=first, min_area=area, masks_per_image=limit, seed=chance)
    return IndexedSource(name=name, settings=settings, index=units, reader=reader)


def _folders(whole: Folder, split: str | None) -> ImageFolders:
    """The splits that are packed, or the one that is asked for."""
    if split is not None:
        return ImageFolders(whole, ((split, find_folder(whole, "split", split)),))
    files = sorted(listed.name for listed in list_folder(whole) if not listed.is_folder)
    return image_folders(whole, [stem for file in files if (stem := stem_of(file, ARCHIVES)) is not None])


def _entries(pages: ImageFolders, split: str | None) -> Iterator[Entry]:
    endings: set[str] = set()
    for entry in _files(pages, split):
        endings.update(ending for ending in (_SCREENSHOT, _MASK, _CLASS) if entry.record.endswith(ending))
        yield entry
    if len(endings) < 3:
        raise SetupError(
            f"{pages.whole}: expected pages as three files, <name>{_SCREENSHOT}, <name>{_MASK} and <name>{_CLASS}, "
            "there or in the folder of a split; name their folder with the option folder"
        )


def _files(pages: ImageFolders, split: str | None) -> Iterator[Entry]:
    for name, folder in pages.parts:
        yield from _pages(folder, f"{name}/")
    if split is None:
        yield from _pages(pages.whole, "")
        for listed in list_folder(pages.whole):
            if listed.is_folder and listed.name not in dict(pages.parts):
                yield from _pages(pages.whole / listed.name, f"{listed.name}/")


def _pages(folder: Folder, prefix: str) -> Iterator[Entry]:
    for listed in list_folder(folder):
        for ending in (_SCREENSHOT, _MASK, _CLASS):
            if listed.name.endswith(ending) and not listed.is_folder:
                page, file = prefix + listed.name.removesuffix(ending), prefix + listed.name
                if ending == _SCREENSHOT:
                    yield named_entry("images", page, file)
                yield named_entry("annotations", page, file)  # a screenshot as well, so that it has a row of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelWebReader:
    """Reads one page.

    Attributes:
        pages: folder of the splits, or of the pages, and the splits that are packed.
        unclassed: what becomes of elements of no class.
        page: what becomes of the first element.
        min_area: in pixels.
        masks_per_image: at most so many; None: all.
        seed: of their choice.
    """

    pages: ImageFolders
    unclassed: Treatment
    page: Treatment
    min_area: int
    masks_per_image: int | None
    seed: int

    def name_of(self, record: UnitRecord) -> str:
        """The screenshot's name, or the page's where it is missing."""
        return record.images[0] if record.images else str(record.key)

    def read(self, record: UnitRecord) -> Found:
        """The screenshot with the masks of its elements; a page that lacks a file is one reject."""
        found = RegionList(str(record.key), self.min_area, self.masks_per_image, self.seed)
        try:
            name = listed_name(self.pages.whole, record)
            data = read_file(*self.pages.at(name))
            height, width = picture_size(data, name)
            self._add(found, record, height, width)
        except RecordError as error:
            yield Reject.of(error, found.scene, {"images": record.images, "files": record.annotations})
            return
        yield from found.image(name, height, width, partial(decode_picture, data, name, height, width))

    def _add(self, found: RegionList, record: UnitRecord, height: int, width: int) -> None:
        file = _one(record, _CLASS)
        classes = _classes(read_json(*self.pages.at(file)), file)
        file = _one(record, _MASK)
        labels_HW = parse_matrix(read_text(*self.pages.at(file), most=MAX_MATRIX_BYTES), file)
        if labels_HW.shape != (height, width):
            got = f"{labels_HW.shape[1]}x{labels_HW.shape[0]}"
            raise RecordError("mask-size", f"{file}: expected {width}x{height} numbers, as its screenshot, got {got}")
        for label, rle in encode_labels(labels_HW, void=NOTHING).items():
            where = {"image": record.images[0], "map": file, "label": label}
            if label > len(classes):
                number = f"the number {label}, but {len(classes)} elements have a class"
                found.reject(str(label), where, RecordError("mask-unlisted", f"{file}: it holds {number}"))
            elif self._is_wanted(label, classes[label - 1]):
                found.add(str(label), where, lambda rle=rle: rle)

    def _is_wanted(self, label: int, name: str) -> bool:
        return (self.page == "keep" or label != PAGE) and (self.unclassed == "keep" or name != NO_CLASS)


def _one(record: UnitRecord, ending: str) -> str:
    """The file of this ending that belongs to a page."""
    files = [file for file in record.annotations if file.endswith(ending)]
    if not files:
        raise RecordError("annotation-missing", f"{record.key}: no {record.key}{ending} beside its screenshot")
    return files[0]


def _classes(value: Any, file: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        got = f"{value!r:.100}"
        raise RecordError("annotation-unreadable", f"{file}: expected a list of the elements' classes, got {got}")
    return value
