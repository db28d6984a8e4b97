"""One picture, read and checked against the size that its masks are drawn on.

The EXIF orientation is never applied: annotations are drawn on the stored pixels. The header is looked at before any
pixel is decoded, so a file that claims a size of its own costs nothing.
"""

from __future__ import annotations

import errno
import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, UnidentifiedImageError

from samtok_data.errors import Reason, RecordError, SetupError
from samtok_data.storage import Folder

# What the file system says of a name that no file can have.
_NO_SUCH_NAME = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
# What PIL's decoders raise on damaged bytes (a PNG's wrong checksum is a SyntaxError): all that 180,000 files of ten
# formats with wrong bytes brought with Pillow 13, and what its decoders use inside.
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError, EOFError, struct.error, zlib.error)


def read_file(folder: Folder, name: str, *, missing: Reason = "image-missing", kind: str = "image") -> bytes:
    """The bytes of an image file, or of another file that belongs to one image.

    Args:
        folder: of the files.
        name: in that folder.
        missing: the reason where there is no such file.
        kind: what the file is, for messages.

    Raises:
        RecordError: with the reason ``missing``.
        SetupError: the file system itself fails.
    """
    try:
        return folder.read(name)
    except OSError as error:
        if isinstance(error, FileNotFoundError) or error.errno in _NO_SUCH_NAME:
            raise RecordError(missing, f"{name}: no such {kind} under {folder}") from error
        raise SetupError(
            f"{folder}/{name} cannot be read: {error.strerror or error}. What was finished stays; "
            "mend the access and run again to resume"
        ) from error


@contextmanager
def open_picture(
    data: bytes, name: str, *, reason: Reason = "image-unreadable", formats: tuple[str, ...] | None = None
) -> Iterator[Image.Image]:
    """An image whose header was read; pixels are decoded when they are asked for.

    Args:
        data: the file's bytes.
        name: for messages.
        reason: the reason where PIL cannot read it, now or while the pixels are decoded in the block.
        formats: PIL's names of the formats to try; None: all.

    Raises:
        RecordError: with that reason; one that the block raises is passed on.
    """
    try:
        with Image.open(io.BytesIO(data), formats=formats) as opened:
            yield opened
    except UnidentifiedImageError as error:
        what = "image" if formats is None else " or ".join(formats)
        raise RecordError(reason, f"{name}: is no {what} ({len(data)} bytes)") from error
    except RecordError:
        raise
    except _DECODE_ERRORS as error:
        raise RecordError(reason, f"{name}: cannot be decoded: {error}") from error


def picture_format(opened: Image.Image) -> str | None:
    """PIL's name of the format; a JPEG with further pictures behind it, as many cameras write, is still a JPEG."""
    return "JPEG" if opened.format == "MPO" else opened.format


def require_size(opened: Image.Image, name: str, height: int, width: int) -> None:
    """Refuses a picture of another size than its masks are drawn on.

    Raises:
        RecordError: ``image-size``.
    """
    if opened.size != (width, height):
        drawn, got = (f"{columns}x{rows}" for columns, rows in ((width, height), opened.size))
        raise RecordError("image-size", f"{name}: its masks are drawn on {drawn}, the image is {got}")


def to_rgb(opened: Image.Image, name: str) -> Image.Image:
    """Decodes the pixels: RGB, 8 bits a channel.

    Raises:
        RecordError: ``image-format`` where a channel has more than 8 bits: PIL would cut them off, not scale them.
    """
    if opened.mode.startswith(("I", "F")):
        raise RecordError("image-format", f"{name}: expected 8 bits a channel, got mode {opened.mode}; convert it")
    if opened.mode == "RGB" and picture_format(opened) == "JPEG":
        opened.load()  # ``convert`` would copy it, and no other format's pixels are sure to be done with the file
        return opened
    return opened.convert("RGB")


def decode_picture(data: bytes, name: str, height: int, width: int) -> Image.Image:
    """A picture in any format that PIL knows.

    Args:
        data: the file's bytes.
        name: for messages.
        height: rows that the masks are drawn on.
        width: columns.

    Returns:
        RGB, of that size; the EXIF orientation is not applied.

    Raises:
        RecordError: ``image-unreadable``, ``image-size`` or ``image-format`` (more than 8 bits a channel).
    """
    with open_picture(data, name) as opened:
        require_size(opened, name, height, width)
        return to_rgb(opened, name)


def read_picture(folder: Folder, name: str, height: int, width: int) -> Image.Image:
    """As ``decode_picture``, from a file.

    Raises:
        RecordError: one of ``IMAGE_REASONS``.
        SetupError: the file system itself fails.
    """
    return decode_picture(read_file(folder, name), name, height, width)


def picture_size(data: bytes, name: str) -> tuple[int, int]:
    """(height, width) of a picture, from its header alone.

    Raises:
        RecordError: ``image-unreadable``.
    """
    with open_picture(data, name) as opened:
        return opened.height, opened.width
