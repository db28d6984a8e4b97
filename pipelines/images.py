"""Source images, read and checked; and work on CPU threads, ahead of the tokenizer."""

from __future__ import annotations

import errno
import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from PIL import Image, UnidentifiedImageError

from converters.source import Suffix
from samtok_data.errors import RecordError, SetupError
from samtok_data.storage import Folder

Item = TypeVar("Item")
Result = TypeVar("Result")

_FORMATS: dict[Suffix, str] = {"jpg": "JPEG", "png": "PNG"}
# What the file system says of a name that no file can have.
_NO_SUCH_NAME = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)


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
    try:
        data = folder.read(name)
    except OSError as error:
        if isinstance(error, FileNotFoundError) or error.errno in _NO_SUCH_NAME:
            raise RecordError("image-missing", f"{name}: no such image under {folder}") from error
        raise SetupError(
            f"{folder}/{name} cannot be read: {error.strerror or error}. What was finished stays; "
            "mend the access and run again to resume"
        ) from error
    try:
        with Image.open(io.BytesIO(data)) as opened:
            _check(opened, name, (width, height), suffix)
            return LoadedImage(data, suffix, opened.convert("RGB"))
    except UnidentifiedImageError as error:
        raise RecordError("image-unreadable", f"{name}: is no image ({len(data)} bytes)") from error
    except RecordError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise RecordError("image-unreadable", f"{name}: cannot be decoded: {error}") from error


def _check(opened: Image.Image, name: str, size: tuple[int, int], suffix: Suffix) -> None:
    """Looks at an image's header, before its pixels are decoded."""
    # A JPEG with further pictures behind it, as many cameras write, is still a JPEG.
    kind = "JPEG" if opened.format == "MPO" else opened.format
    if kind != _FORMATS[suffix]:
        wanted = _FORMATS[suffix]
        raise RecordError(
            "image-format", f"{name}: expected a {wanted}, as all of this dataset, got a {kind}; convert it"
        )
    if opened.size != size:
        drawn, got = (f"{width}x{height}" for width, height in (size, opened.size))
        raise RecordError("image-size", f"{name}: its masks are drawn on {drawn}, the image is {got}")
    if opened.mode.startswith(("I", "F")):
        raise RecordError("image-format", f"{name}: expected 8 bits a channel, got mode {opened.mode}; convert it")


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
