"""One finished source: the files to write, a thumbnail of each image, and what decides that two are the same."""

from __future__ import annotations

import hashlib
import io
import json
import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from recipes.small.prepare.leaks import COPY, Seen, likeness, thumbnail_of
from recipes.small.prepare.table import Source
from samtok_data import masks
from samtok_data.masks import Mask

MIN_PIXELS = 64  # smaller masks are left out, after the image was made smaller
_UNUSUAL = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(frozen=True, slots=True)
class Found:
    """One image of a source, not read yet.

    Attributes:
        name: that it would have; the ending does not count.
        read: the image and its masks, drawn on it; no masks: it is left out.
    """

    name: str
    read: Callable[[], tuple[Image.Image, list[Mask]]]


@dataclass(slots=True)
class Collection:
    """One source as it is written.

    Attributes:
        folder: under the output folder.
        files: bytes by name, relative to ``folder``.
        seen: its images.
        num_masks: or label maps.
    """

    folder: str
    files: dict[str, bytes] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    num_masks: int = 0
    _hash: Any = field(default_factory=hashlib.sha256)

    @property
    def digest(self) -> str:
        """SHA-256 of the masks, in order: of JSON files their bytes, of label maps name, size and labels."""
        return self._hash.hexdigest()

    def add_image(self, name: str, data: bytes, image: Image.Image, *, is_test: bool = False) -> None:
        """An image file, with the image that its thumbnail is made from."""
        self.files[name] = data
        self.seen.append(Seen(posixpath.join(self.folder, name), is_test, thumbnail_of(image)))

    def add_json(self, name: str, content: Any) -> None:
        """A file of annotations."""
        data = json.dumps(content, separators=(",", ":")).encode()
        self.files[name] = data
        self._hash.update(data)

    def add_labels(self, name: str, labels_HW: Mask) -> None:
        """A label map, written as 8-bit PNG.

        Args:
            name: of the file.
            labels_HW: whole numbers below 256.
        """
        labels = np.ascontiguousarray(labels_HW, np.uint8)
        self._hash.update(f"{name} {labels.shape}".encode() + labels.tobytes())
        out = io.BytesIO()
        Image.fromarray(labels).save(out, "PNG", optimize=True, compress_level=9)
        self.files[name] = out.getvalue()
        self.num_masks += 1


def open_image(data: bytes) -> Image.Image:
    """RGB, upright."""
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")


def jpeg_bytes(image: Image.Image, quality: int) -> bytes:
    """An image as JPEG."""
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality, optimize=True)
    return out.getvalue()


def smaller_size(image: Image.Image, longest_side: int | None) -> tuple[int, int]:
    """(width, height) with at most that longest side."""
    share = min(1.0, longest_side / max(image.size)) if longest_side else 1.0
    return max(1, round(image.width * share)), max(1, round(image.height * share))


class Instances:
    """Collects a source as COCO instances: images made smaller, masks as compressed RLE, near-equal images once."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._collection = Collection(source.folder)
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(self, found: Found) -> bool:
        """Takes an image, unless one of that name is here, one that looks the same, or no mask is large enough."""
        name = posixpath.splitext(_UNUSUAL.sub("_", found.name))[0] + ".jpg"
        if f"images/{name}" in self._collection.files:
            return False
        image, drawn = found.read()
        if not drawn or self._is_copy(image):
            return False
        size = smaller_size(image, self._source.longest_side)
        kept = [mask for mask in (_resized(mask, size) for mask in drawn) if mask.sum() >= MIN_PIXELS]
        if not kept:
            return False
        small = image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)
        self._collection.add_image(f"images/{name}", jpeg_bytes(small, self._source.jpeg_quality), image)
        self._images.append({"id": len(self._images) + 1, "file_name": name, "width": size[0], "height": size[1]})
        for mask in kept:
            self._annotate(mask)
        return True

    def finished(self) -> Collection:
        """The collection, with its annotation file last."""
        content = {
            "images": self._images,
            "annotations": self._annotations,
            "categories": [{"id": 1, "name": "segment"}],
        }
        self._collection.add_json(f"{self._source.name}.json", content)
        self._collection.num_masks = len(self._annotations)
        return self._collection

    def _is_copy(self, image: Image.Image) -> bool:
        seen = self._collection.seen
        if not seen:
            return False
        return bool(likeness(thumbnail_of(image), np.stack([each.thumbnail for each in seen])).max() > COPY)

    def _annotate(self, mask: Mask) -> None:
        rle = masks.encode(mask)
        annotation = {
            "id": len(self._annotations) + 1,
            "image_id": len(self._images),
            "category_id": 1,
            "segmentation": {"size": [rle.height, rle.width], "counts": rle.counts},
            "bbox": [float(number) for number in masks.coco_box(rle)],
            "area": masks.area(rle),
            "iscrowd": 0,
        }
        self._annotations.append(annotation)


def _resized(mask: Mask, size: tuple[int, int]) -> Mask:
    """A mask of another size, by nearest neighbour."""
    if mask.shape == (size[1], size[0]):
        return mask
    picture = Image.fromarray(mask.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    return np.asarray(picture).astype(np.bool_)
