"""LISA++: rows of questions about COCO's photographs, each of which names annotations of COCO; their masks, no words.

    Instance_Seg     [{"img_path": "000000000009.jpg", "ID": ["1038967", ...], "points": {...}, ...}, ...]
    COT, Caption     image_path; the ids are the keys of info
    Conversations    img_pth (so it is spelt); the ids are the keys of info
    COCO             annotations/instances_train2017.json and train2017

The polygons of the rows are not used: an id is looked up in COCO's file, as the published training does. There an
annotation that several rows name is a mask for each of them; here it is one mask of its image, once. The published
count of 114,000 is with these repeats. Format: the data cards of Senqiao/LISA_Plus_* and readers of them.
"""

from __future__ import annotations

import posixpath
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any

from converters.files.json_stream import chunks_of, items_of, noted, sha256_of
from converters.files.unit_index import Entry, UnitIndex, UnitRecord, build_index, index_path, is_key, open_index
from converters.masks.coco_instances import COCO_LICENCE, CocoInstancesReader, coco_places
from converters.masks.image_folders import COCO_PARTS, ImageFolders, coco_folders
from converters.masks.indexed_source import Found, IndexedSource
from converters.masks.options import checked_choice, checked_count, checked_file, checked_treatment, first_file
from converters.masks.source import MaskSourceInfo, WantedFile
from samtok_data.errors import RecordError, SetupError
from samtok_data.rejects import Reject
from samtok_data.storage import Folder

KIND = "lisa++"
NAME = "lisa-plus-plus"  # a name has letters, digits and hyphens
SUBSETS = {"instance-seg": "Instance_Seg", "cot": "COT", "caption": "Caption", "conversations": "Conversations"}
_IMAGE_FIELDS = ("img_path", "image_path", "img_pth")
_UNSAID = -1  # stands for the image of a row that names none
INFO = MaskSourceInfo(
    kind=KIND,
    title="LISA++",
    files=(
        WantedFile(
            place="LISA_Plus_Instance_Seg/data.json",
            content="rows that name annotations of COCO",
            elsewhere=("Senqiao/LISA_Plus_Instance_Seg/data.json", "LISA_Plus_Instance_Seg.json", "data.json"),
        ),
        WantedFile(
            place="annotations/instances_train2017.json",
            content="COCO's instances",
            elsewhere=("instances_train2017.json", "coco/annotations/instances_train2017.json"),
        ),
        WantedFile(
            place="train2017",
            content="COCO's photographs, or train2017.zip",
            elsewhere=("images/train2017", "coco/train2017", "coco/images/train2017"),
        ),
    ),
    licence=f"Rows Apache-2.0. COCO: {COCO_LICENCE}",
    home="https://huggingface.co/datasets/Senqiao/LISA_Plus_Instance_Seg",
    masks=114_000,
)


def open_lisa_plus(
    root: Folder,
    index: str,
    *,
    name: str = NAME,
    subset: str = "instance-seg",
    json: str | None = None,
    instances: str | None = None,
    instances_val: str | None = None,
    images: str | None = None,
    crowd: str = "keep",
    min_area: int = 1,
) -> IndexedSource:
    """A source of the masks that LISA++ speaks of; one unit is one image that a row names an annotation of.

    Args:
        root: folder of the source.
        index: local folder of the indexes.
        name: of the source.
        subset: ``instance-seg``, as the published training reads, ``cot``, ``caption`` or ``conversations``; it says
            where to look for what the next option does not name.
        json: the rows' file under the root; None: LISA_Plus_Instance_Seg/data.json, there or in Senqiao,
            LISA_Plus_Instance_Seg.json, data.json.
        instances: COCO's instances_train2017.json under the root; None: in annotations, the root or coco/annotations.
        instances_val: COCO's instances_val2017.json under the root, to look ids up in as well; None: it is not read.
        images: the folder under the root that holds train2017; None: the root, images, coco or coco/images.
        crowd: ``keep`` crowds, as the published training does, or ``skip`` them.
        min_area: smaller masks, in pixels, are left out.

    Raises:
        SetupError: an option is wrong, a file or folder is not there, or no row names an annotation of COCO's file.
    """
    called = SUBSETS[checked_choice("subset", subset, tuple(SUBSETS))]
    treatment = checked_treatment("crowd", crowd)
    area = checked_count("min_area", min_area, 1)
    places = [f"{above}LISA_Plus_{called}/data.json" for above in ("", "Senqiao/")]
    rows = _hashed(root, "json", first_file(root, "json", json, [*places, f"LISA_Plus_{called}.json", "data.json"]))
    usual = coco_places("instances", "train")
    train = first_file(root, "instances", instances, [*usual, f"coco/{usual[0]}"])
    coco = [_hashed(root, "instances", train)]
    if instances_val is not None:
        coco.append(_hashed(root, "instances_val", checked_file("instances_val", instances_val)))
    folders = coco_folders(root, images)
    settings = {
        "kind": KIND,
        "subset": subset,
        "crowd": treatment,
        "min_area": area,
        "sha256": rows.sha256,
        "coco": [one.sha256 for one in coco],
    }
    opener = partial(ImageFolders.read, folders)
    reader = LisaPlusReader(CocoInstancesReader(opener=opener, crowd=treatment, min_area=area))
    return IndexedSource(name=name, settings=settings, index=_indexed(rows, coco, index), reader=reader)


@dataclass(frozen=True, slots=True)
class _File:
    """A JSON file and its hash."""

    root: Folder
    name: str
    label: str
    option: str
    sha256: str

    def chunks(self) -> Iterator[bytes]:
        """Its bytes; the last piece comes only if they are those of the hash."""
        digest = sha256()
        yield from noted(chunks_of(self.root, self.name, self.label, self.option), digest.update)
        if digest.hexdigest() != self.sha256:
            raise SetupError(f"{self.label}: it changed while it was read; start again")


def _hashed(root: Folder, option: str, name: str) -> _File:
    label = f"{root}: {name}"
    return _File(root, name, label, option, sha256_of(root, name, label, option))


def _indexed(rows: _File, coco: list[_File], index: str) -> UnitIndex:
    path = index_path(index, {"kind": KIND, "sha256": rows.sha256, "coco": [one.sha256 for one in coco]})
    units = open_index(path) or build_index(path, _entries(rows, coco))
    if not units.num_paired:
        raise SetupError(f"{rows.label}: no row names an annotation of an image that COCO's file lists")
    return units


def _entries(rows: _File, coco: list[_File]) -> Iterator[Entry]:
    """The annotations that rows name, with COCO's images; and what is wrong with the others.

    The names lie in a database of SQLite's own, which is a temporary file as soon as it is large.
    """
    with closing(sqlite3.connect("")) as named:
        named.execute(
            "CREATE TABLE named (annotation INTEGER, image INTEGER, place INTEGER, is_found INTEGER, "
            "PRIMARY KEY (annotation, image)) WITHOUT ROWID"
        )
        yield from _store(named, rows)
        for part, file in zip(COCO_PARTS, coco, strict=False):
            yield from _joined(named, part, file)
        (number,) = named.execute("SELECT count(*) FROM named").fetchone()
        (found,) = named.execute("SELECT count(*) FROM named WHERE is_found").fetchone()
        if not found:
            files = " and ".join(one.label for one in coco)
            raise SetupError(f"{rows.label}: none of the {number:,} annotations that it names is in {files}")
        lost = named.execute("SELECT annotation, image, place FROM named WHERE NOT is_found")
        for number, image, place in lost:
            error = RecordError("annotation-missing", f"{number}: COCO's file lists no such annotation")
            yield _fault(image, str(number), error, {"row": place, "annotation": number})


def _store(named: sqlite3.Connection, rows: _File) -> Iterator[Entry]:
    place = -1
    for (items,) in items_of(rows.chunks(), rows.label, ("item",)):
        for row in items:
            place += 1
            image = _image_of(row)
            try:
                listed = _ids(row)
            except RecordError as error:
                yield _fault(image, f"row-{place}", error, {"row": place})
                continue
            for annotation in listed:
                try:
                    number = _number(annotation)
                except RecordError as error:
                    yield _fault(image, f"row-{place}", error, {"row": place, "annotation": annotation})
                    continue
                named.execute("INSERT OR IGNORE INTO named VALUES (?, ?, ?, 0)", (number, image, place))
    if place < 0:
        raise SetupError(f"{rows.label}: expected a list of rows, found none; is it the right file?")


def _image_of(row: Any) -> int:
    """COCO's number of the image that a row names; ``_UNSAID`` where it names none."""
    said = (row[field] for field in _IMAGE_FIELDS if field in row) if isinstance(row, Mapping) else iter(())
    path = next(said, None)
    match = re.search("[0-9]{1,18}$", posixpath.splitext(path)[0]) if isinstance(path, str) else None
    return int(match[0]) if match else _UNSAID


def _ids(row: Any) -> Iterable[Any]:
    listed = row.get("ID", row.get("info", row.get("points"))) if isinstance(row, Mapping) else None
    if not isinstance(listed, list | Mapping):
        raise RecordError("record-invalid", f"row: expected an object with ids in ID or info, got {row!r:.100}")
    return listed


def _number(annotation: Any) -> int:
    is_text = isinstance(annotation, str) and re.fullmatch(" *[0-9]{1,18} *", annotation)
    number = int(annotation) if is_text else annotation
    if type(number) is not int or not is_key(number):
        raise RecordError("record-invalid", f"row: expected ids of COCO's annotations, got {annotation!r:.100}")
    return number


def _joined(named: sqlite3.Connection, part: str, file: _File) -> Iterator[Entry]:
    for images, belonging in items_of(file.chunks(), file.label, ("images.item", "annotations.item")):
        for image in images:
            if isinstance(image, Mapping) and is_key(image.get("id")):
                kept = {field: image[field] for field in ("id", "file_name", "height", "width") if field in image}
                if isinstance(kept.get("file_name"), str):
                    kept["file_name"] = f"{part}/{kept['file_name']}"
                yield Entry("images", image["id"], kept)
        for annotation in belonging:
            if isinstance(annotation, Mapping) and is_key(annotation.get("id")):
                yield from _wanted(named, annotation)


def _wanted(named: sqlite3.Connection, annotation: Mapping[str, Any]) -> Iterator[Entry]:
    number, own = annotation["id"], annotation.get("image_id")
    stated = named.execute("SELECT image, place FROM named WHERE annotation = ?", (number,)).fetchall()
    if not stated:
        return
    named.execute("UPDATE named SET is_found = 1 WHERE annotation = ?", (number,))
    if any(image in (own, _UNSAID) for image, _ in stated):
        kept = {field: annotation[field] for field in ("id", "segmentation", "iscrowd") if field in annotation}
        yield Entry("annotations", own if is_key(own) else None, kept)
    for image, place in stated:
        if image not in (own, _UNSAID):
            message = f"{number}: a row names it with image {image}, in COCO's file it belongs to image {own!r:.100}"
            error = RecordError("annotation-image", message)
            yield _fault(image, str(number), error, {"row": place, "annotation": number})


def _fault(image: int, region: str, error: RecordError, where: dict[str, Any]) -> Entry:
    record = {"fault": error.reason, "region": region, "message": error.message, "where": where}
    return Entry("annotations", None if image == _UNSAID else image, record)


@dataclass(frozen=True, slots=True)
class LisaPlusReader:
    """Reads one image of COCO with the annotations that rows name.

    Attributes:
        coco: reads the image and its annotations.
    """

    coco: CocoInstancesReader

    def name_of(self, record: UnitRecord) -> str:
        """The image's file name, or its id where COCO's file does not list it."""
        return self.coco.name_of(record)

    def read(self, record: UnitRecord) -> Found:
        """The image with the masks that rows name; what a row names in vain is a reject."""
        sound: list[Any] = []
        for one in record.annotations:
            if "fault" in one:
                yield Reject(f"{record.key}/{one['region']}", one["fault"], one["message"], one["where"])
            else:
                sound.append(one)
        if sound:
            yield from self.coco.read(UnitRecord(record.key, record.images, sound))
