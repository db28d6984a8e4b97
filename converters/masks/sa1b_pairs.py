"""One pair of SA-1B, a picture and its JSON file; and halves of pairs on their way out of a tar."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

from PIL import Image

from converters.files.coco_files import is_side
from converters.masks.indexed_source import Found, RegionList
from samtok_data.errors import RecordError, SetupError
from samtok_data.rejects import Reject

# SA-1B's own are below 10 MB and 1 MB. A larger file is a reject and is not read.
MAX_IMAGE_BYTES = 1 << 27
MAX_JSON_BYTES = 1 << 24
# Halves of pairs beyond this lie in a temporary file: nothing says that a tar holds the halves side by side.
_HELD_BYTES = 1 << 26


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedMasks:
    """Which masks of an image are given.

    Attributes:
        min_area: smaller ones, in pixels, are left out.
        masks_per_image: at most so many of the others, drawn for each image; None: all.
        seed: of their choice.
    """

    min_area: int
    masks_per_image: int | None
    seed: int


def read_pair(
    scene: str,
    image: str,
    text: bytes,
    where: Mapping[str, Any],
    *,
    wanted: WantedMasks,
    opener: Callable[[str, int, int], Image.Image],
    archive: str | None = None,
) -> Found:
    """The image of a pair with its masks; a broken mask is one reject, a broken JSON file is one.

    Args:
        scene: id of the scene.
        image: the picture's name, for the scene and for messages.
        text: the JSON file's bytes.
        where: what finds the JSON file, for rejects.
        wanted: which of its masks.
        opener: gives the picture; takes its name, height and width.
        archive: as ``MaskedImage`` says.
    """
    try:
        height, width, annotations = _parsed(text)
    except RecordError as error:
        yield Reject.of(error, scene, dict(where))
        return
    found = RegionList(scene, wanted.min_area, wanted.masks_per_image, wanted.seed)
    found.add_annotations(annotations, where, height, width)
    yield from found.image(image, height, width, partial(opener, image, height, width), archive=archive)


def _parsed(text: bytes) -> tuple[int, int, list[Any]]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecordError("annotation-unreadable", f"no JSON that can be read: {error}") from error
    image = value.get("image") if isinstance(value, Mapping) else None
    annotations = value.get("annotations") if isinstance(value, Mapping) else None
    if not isinstance(image, Mapping) or not isinstance(annotations, list):
        raise RecordError("annotation-unreadable", "expected an object with 'image' and 'annotations', as SA-1B's")
    height, width = image.get("height"), image.get("width")
    if not is_side(height) or not is_side(width):
        raise RecordError("record-invalid", f"image: expected height and width in pixels, got {height!r} and {width!r}")
    return height, width, annotations


@dataclass(frozen=True, slots=True, kw_only=True)
class Half:
    """One file of a pair.

    Attributes:
        name: without folders.
        is_json: or a picture.
        size: in bytes.
        data: its bytes; None where it is too large to be read.
    """

    name: str
    is_json: bool
    size: int
    data: bytes | None

    def read(self) -> bytes:
        """Its bytes.

        Raises:
            RecordError: ``annotation-unreadable`` or ``image-unreadable`` where it is too large.
        """
        if self.data is None:
            limit = MAX_JSON_BYTES if self.is_json else MAX_IMAGE_BYTES
            raise RecordError(
                "annotation-unreadable" if self.is_json else "image-unreadable",
                f"{self.name}: {self.size:,} bytes, more than the {limit:,} that are read",
            )
        return self.data


class Waiting:
    """Halves whose other half has not come yet: some in memory, the others in a temporary file. A context manager."""

    def __init__(self) -> None:
        self._halves: dict[str, tuple[Half, int | None]] = {}  # with the place in the file
        self._held = 0
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Waiting:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._file is not None:
            self._file.close()

    def put(self, stem: str, half: Half) -> None:
        """Keeps a half until its other half comes.

        Raises:
            SetupError: the temporary file cannot be written.
        """
        if half.data is None or self._held + half.size <= _HELD_BYTES:
            self._held += half.size if half.data is not None else 0
            self._halves[stem] = half, None
            return
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile()
            place = self._file.seek(0, 2)
            self._file.write(half.data)
        except OSError as error:
            folder = tempfile.gettempdir()
            raise SetupError(
                f"{half.name} waits for its other half and cannot be written to {folder}: {error.strerror or error}; "
                "name another folder with TMPDIR"
            ) from error
        self._halves[stem] = Half(name=half.name, is_json=half.is_json, size=half.size, data=b""), place

    def take(self, stem: str) -> Half | None:
        """The half that waits under this name, with its bytes; it waits no longer."""
        if stem not in self._halves:
            return None
        half, place = self._halves.pop(stem)
        if place is None:
            self._held -= half.size if half.data is not None else 0
            return half
        if self._file is None:
            raise RuntimeError("a half lies in a file that was never opened")
        self._file.seek(place)
        return Half(name=half.name, is_json=half.is_json, size=half.size, data=self._file.read(half.size))

    def rest(self) -> Iterator[tuple[str, Half]]:
        """What still waits, by name, without its bytes."""
        for stem in sorted(self._halves):
            yield stem, self._halves[stem][0]
