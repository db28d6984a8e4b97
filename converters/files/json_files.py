"""Small JSON files, one an image or a video. Large ones: ``converters/files/json_stream.py``."""

from __future__ import annotations

import json
from typing import Any

from samtok_data.errors import RecordError
from samtok_data.pictures import read_file
from samtok_data.storage import Folder

MAX_JSON_BYTES = 1 << 24


def read_json(folder: Folder, name: str, *, most: int = MAX_JSON_BYTES) -> Any:
    """The value in a JSON file: UTF-8, or Latin 1 where it is none (some of ADE20K's and LabelMe's).

    Args:
        folder: of the files.
        name: in that folder.
        most: bytes; a larger file is not read.

    Raises:
        RecordError: ``annotation-missing``, or ``annotation-unreadable`` (too large, cut, no JSON).
        SetupError: the file system itself fails.
    """
    data = read_text(folder, name, most=most)
    try:
        return json.loads(_text(data))
    except (ValueError, RecursionError) as error:
        raise RecordError("annotation-unreadable", f"{name}: no JSON that can be read: {error}") from error


def read_text(folder: Folder, name: str, *, most: int) -> bytes:
    """The bytes of a JSON file, as they are; takes and raises what ``read_json`` does."""
    if _size(folder, name) > most:
        raise RecordError("annotation-unreadable", f"{name}: more bytes than the {most:,} that are read")
    return read_file(folder, name, missing="annotation-missing", kind="JSON file")


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _size(folder: Folder, name: str) -> int:
    try:
        return folder.size(name)
    except OSError:
        return 0  # reading it says what is wrong
