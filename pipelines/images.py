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

from samtok_data.errors import RecordError, SetupError
from samtok_data.storage import Folder

Item = TypeVar("Item")
Result = TypeVar("Result")

_FORMATS = {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG"}
# What the file system says of a name that no file can have.
_NO_SUCH_NAME = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """One image file.

    Attributes:
        data: its bytes as they are on disk.
        suffix: the member suffix that its format calls for, ``jpg`` or ``png``.
        picture: RGB; the orientation of EXIF is not applied, as the annotations are drawn on the stored pixels.
    """

    data: bytes
    suffix: str
    picture: Image.Image


def load_image(folder: Folder, name: str, height: int, width: int) -> LoadedImage:
    """Reads one image and checks it against what the annotations say.

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
    picture, kind = _decode(data, name)
    if picture.size != (width, height):
        got = f"{picture.width}x{picture.height}"
        raise RecordError("image-size", f"{name}: its masks are drawn on {width}x{height}, the image is {got}")
    return LoadedImage(data, "png" if kind == "PNG" else "jpg", picture)


def image_bytes(folder: Folder, name: str) -> int | None:
    """Size of an image file; None where there is none that could be asked."""
    try:
        return folder.size(name)
    except OSError:
        return None


def _decode(data: bytes, name: str) -> tuple[Image.Image, str]:
    """The picture as RGB, and its format; only the format that the name's ending stands for is decoded."""
    try:
        with Image.open(io.BytesIO(data)) as opened:
            # A JPEG with further pictures behind it, as many cameras write, is still a JPEG.
            kind = "JPEG" if opened.format == "MPO" else str(opened.format)
            if kind == _FORMATS.get(name.rpartition(".")[2].lower()):
                return opened.convert("RGB"), kind
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise RecordError("image-unreadable", f"{name}: cannot be decoded: {error}") from error
    raise RecordError("image-format", f"{name}: expected what the ending says, got a {kind}; rename or convert it")


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
