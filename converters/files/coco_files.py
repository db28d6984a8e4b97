"""COCO annotation files as a stream, into a unit index: they are larger than memory should be.

    {"images": [{"id", "file_name", "height", "width"}, ...], "annotations": [{"image_id", ...}, ...], ...}

The lists stand in any order, and so do the annotations. Format: cocodataset.org/#format-data; the same frame holds
instances and panoptic annotations.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from converters.files.json_stream import chunks_of, items_of, noted, sha256_of
from converters.files.unit_index import Entry, UnitIndex, UnitRecord, build_index, index_path, is_key, open_index
from samtok_data.errors import RecordError, SetupError
from samtok_data.rejects import Reject
from samtok_data.storage import Folder, is_contained

_MAX_SIDE = 65_535  # of a JPEG; memory for a polygon grows with the sides
# So many annotations without the wanted field, and the file is of another kind.
_PATIENCE = 1000
_KINDS = {
    "segments_info": "COCO panoptic annotations (kind coco-panoptic)",
    "segmentation": "COCO instances (kind coco-instances)",
    "caption": "COCO captions",
    "keypoints": "COCO keypoints",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CocoFormat:
    """What is kept of the annotations of one kind of file.

    Attributes:
        kind: as the registry calls it; part of the index's name.
        wanted: the field that tells this kind from others.
        fields: of an annotation that are kept.
        reduce: what to keep of an annotation that has those fields only; None: all of it.
        image_fields: of an entry of ``images`` that are kept.
        reduce_image: makes ``id``, ``file_name``, ``height`` and ``width`` of those; None: they are these already.
    """

    kind: str
    wanted: str
    fields: tuple[str, ...]
    reduce: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    image_fields: tuple[str, ...] = ("id", "file_name", "height", "width")
    reduce_image: Callable[[dict[str, Any]], dict[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class CocoIndex:
    """An annotation file with its index.

    Attributes:
        sha256: of the annotation file, hex.
        units: one row an image that has annotations.
    """

    sha256: str
    units: UnitIndex


def index_coco(root: Folder, name: str, index: str, form: CocoFormat) -> CocoIndex:
    """The index of an annotation file; built where there is none of these bytes yet.

    For a made-up COCO instances file of 306 MB (78,000 images) that takes 33 s of CPU time and a peak
    of 82 MiB, once; opening it again 0.3 s (its hash), reading a row 0.23 ms (``python -m benchmarks.mask_sources``).

    Args:
        root: folder of the source.
        name: of the annotation file under it.
        index: local folder of the indexes.
        form: kind of the file.

    Raises:
        SetupError: the file is not there, is no JSON, of another kind, or names no image that has annotations; the
            index cannot be written; ijson is not installed.
    """
    label = f"{root}: {name}"
    sha256 = sha256_of(root, name, label)
    path = index_path(index, {"kind": form.kind, "sha256": sha256})
    units = open_index(path) or build_index(path, _entries(root, name, label, sha256, form))
    if not units.num_paired:
        raise SetupError(f"{label}: no annotation belongs to an image that the file lists; is the file complete?")
    return CocoIndex(sha256, units)


def _entries(root: Folder, name: str, label: str, sha256: str, form: CocoFormat) -> Iterator[Entry]:
    watch = _Watch(label, form)
    digest = hashlib.sha256()
    chunks = noted(chunks_of(root, name, label), digest.update)
    for images, belonging in items_of(chunks, label, ("images.item", "annotations.item")):
        for image in images:
            if isinstance(image, Mapping):
                key = image.get("id")
                kept = {field: image[field] for field in form.image_fields if field in image}
                kept = form.reduce_image(kept) if form.reduce_image else kept
                yield Entry("images", key if is_key(key) else None, kept)
        for annotation in belonging:
            watch.see(annotation)
            if not isinstance(annotation, Mapping):
                yield Entry("annotations", None, annotation)
                continue
            key = annotation.get("image_id")
            kept = {field: annotation[field] for field in form.fields if field in annotation}
            yield Entry("annotations", key if is_key(key) else None, form.reduce(kept) if form.reduce else kept)
    watch.require()
    if digest.hexdigest() != sha256:
        raise SetupError(f"{label}: it changed while it was read; start again")


class _Watch:
    """Notices a file of another kind before all of it was read."""

    def __init__(self, label: str, form: CocoFormat) -> None:
        self._label = label
        self._form = form
        self._seen = 0
        self._right = False
        self._looks: str | None = None

    def see(self, annotation: Any) -> None:
        """Notes one entry of ``annotations``."""
        self._seen += 1
        if self._right or not isinstance(annotation, Mapping):
            return
        self._right = self._form.wanted in annotation
        self._looks = self._looks or next((kind for field, kind in _KINDS.items() if field in annotation), None)
        if self._seen >= _PATIENCE:
            self.require()

    def require(self) -> None:
        """Refuses a file that is of another kind, by what was seen of it."""
        if self._right:
            return
        wanted = f"expected annotations with the field '{self._form.wanted}'"
        if self._looks:
            raise SetupError(f"{self._label}: {wanted}; it looks like {self._looks}")
        raise SetupError(f"{self._label}: {wanted}, found none among {self._seen:,}; is it the right file?")


def is_side(value: Any) -> TypeGuard[int]:
    """Whether a value is a height or width that an image can have."""
    return type(value) is int and 0 < value <= _MAX_SIDE


@dataclass(frozen=True, slots=True)
class CocoImage:
    """An entry of ``images``.

    Attributes:
        file_name: relative to the folder of images.
        height: rows in pixels.
        width: columns.
    """

    file_name: str
    height: int
    width: int


def coco_image(record: UnitRecord) -> CocoImage | Reject:
    """The image of a row, or the one reject for all annotations of a row that has no usable image."""
    where = {"image_id": record.key, "images": record.images, "annotations": len(record.annotations)}
    key = str(record.key)
    if not record.images:
        number = len(record.annotations)
        error = RecordError(
            "image-unlisted", f"image {record.key}: {number} annotations, but the file lists no such image"
        )
        return Reject.of(error, key, where)
    image = record.images[0]
    if any(other != image for other in record.images):
        error = RecordError("record-duplicate", f"image {record.key}: listed {len(record.images)} times, differently")
        return Reject.of(error, key, where)
    name, height, width = (image.get(field) for field in ("file_name", "height", "width"))
    if not isinstance(name, str) or not is_contained(name) or not name.isprintable():
        error = RecordError("record-invalid", f"image {record.key}: file_name: expected a relative name, got {name!r}")
        return Reject.of(error, key, where)
    if not is_side(height) or not is_side(width):
        error = RecordError(
            "record-invalid", f"image {record.key}: expected height and width in pixels, got {height!r} and {width!r}"
        )
        return Reject.of(error, key, where)
    return CocoImage(name, height, width)
