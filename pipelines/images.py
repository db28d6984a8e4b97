"""Source images of a dataset of one format; and work on CPU threads, ahead of the tokenizer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from PIL import Image

from converters.dialogues.source import Suffix
from samtok_data.errors import RecordError
from samtok_data.pictures import open_picture, picture_format, read_file, require_size, to_rgb
from samtok_data.storage import Folder

Item = TypeVar("Item")
Result = TypeVar("Result")

_FORMATS: dict[Suffix, str] = {"jpg": "JPEG", "png": "PNG"}


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """One image file.

    Attributes:
        data: its bytes as they are on disk.
        suffix: the member suffix of its format.
        picture: RGB; the orientation of EXIF is not applied, as the annotations are drawn on the stored pixels.
    """

    data: bytes
    suffix: Suffix
    picture: Image.Image


def load_image(folder: Folder, name: str, height: int, width: int, suffix: Suffix) -> LoadedImage:
    """Reads one image and checks it against what the annotations say.

    Args:
        folder: of the images.
        name: in that folder.
        height: rows that the annotations are drawn on.
        width: columns.
        suffix: the format that every image of the dataset has; the name's ending does not count.

    Raises:
        RecordError: ``image-missing``, ``image-unreadable``, ``image-format`` (a PNG named .jpg) or ``image-size``.
        SetupError: the file system itself fails.
    """
    data = read_file(folder, name)
    with open_picture(data, name) as opened:
        kind, wanted = picture_format(opened), _FORMATS[suffix]
        if kind != wanted:
            raise RecordError(
                "image-format", f"{name}: expected a {wanted}, as all of this dataset, got a {kind}; convert it"
            )
        require_size(opened, name, height, width)
        return LoadedImage(data, suffix, to_rgb(opened, name))


def image_bytes(folder: Folder, name: str) -> int | None:
    """Size of an image file; None where there is none that could be asked."""
    try:
        return folder.size(name)
    except OSError:
        return None


def ahead(function: Callable[[Item], Result], items: Iterable[Item], *, threads: int, limit: int) -> Iterator[Result]:
    """Results of a function in the items' order, computed on threads; at most ``limit`` before they are asked for."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="images") as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > limit:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def beside(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Results of a function in the items' order, one computed at a time, while the caller draws the next item and uses
    the last result."""
    return ahead(function, items, threads=1, limit=1)


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Items in lists of so many; the last may have fewer."""
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
