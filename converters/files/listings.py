"""Names in a folder, as a stream: a folder may hold millions of files."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from converters.files.unit_index import Entry, Table, UnitIndex, UnitRecord, build_index, index_path, is_key, open_index
from samtok_data.errors import RecordError, SetupError
from samtok_data.pictures import read_file
from samtok_data.storage import Folder, is_contained, raising_os_errors

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True, slots=True)
class Listed:
    """A file or folder.

    Attributes:
        name: in its folder.
        is_folder: whether it is one.
        size: bytes of a file; None where the file system was not asked.
    """

    name: str
    is_folder: bool
    size: int | None = None


def list_folder(folder: Folder) -> Iterator[Listed]:
    """What lies directly in a folder, in no order. Hidden names are passed over.

    On a local disk the names come one after the other; an object store's listing is in memory.

    Raises:
        SetupError: the folder is not there, or cannot be read.
    """
    try:
        entries = _local_entries(folder.path) if folder.is_local else _remote_entries(folder)
        for entry in entries:
            if not entry.name.startswith("."):
                yield entry
    except OSError as error:
        there = not isinstance(error, FileNotFoundError) and error.errno != errno.ENOTDIR
        what = f"cannot be listed: {error.strerror or error}" if there else "no such folder"
        raise SetupError(f"{folder}: {what}") from error


def _local_entries(path: str) -> Iterator[Listed]:
    with os.scandir(path) as entries:
        for entry in entries:
            yield Listed(entry.name, entry.is_dir())


@raising_os_errors
def _remote_entries(folder: Folder) -> list[Listed]:
    if not folder.fs.isdir(folder.path):  # some stores answer with an empty list
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), folder.path)
    found = folder.fs.ls(folder.path, detail=True)
    return [
        Listed(posixpath.basename(entry["name"].rstrip("/")), entry["type"] == "directory", entry.get("size"))
        for entry in found
        if entry["name"].rstrip("/") != folder.path.rstrip("/")
    ]


def list_tree(folder: Folder, depth: int) -> Iterator[str]:
    """Names of the files in a folder and below it, in no order. Hidden ones are passed over.

    An archive is listed in one go, as its directory is in memory.

    Args:
        folder: of the files.
        depth: how many folders below it are looked into.

    Raises:
        SetupError: a folder is not there, or cannot be read.
    """
    if folder.is_archive:
        for name in folder.walk():
            parts = name.split("/")
            if len(parts) <= depth + 1 and not any(part.startswith(".") for part in parts):
                yield name
        return
    for listed in list_folder(folder):
        if not listed.is_folder:
            yield listed.name
        elif depth:
            yield from (f"{listed.name}/{name}" for name in list_tree(folder / listed.name, depth - 1))


def digest_of(names: Iterable[str]) -> str:
    """A hash of names in whatever order they come, in constant memory: the sum of their sha256, as 64 hex digits."""
    return _hex(sum(_number_of(name) for name in names))


def _number_of(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode(errors="surrogateescape")).digest(), "big")


def _hex(total: int) -> str:
    return f"{total % 2**256:064x}"


def stem_of(name: str, suffixes: tuple[str, ...]) -> str | None:
    """A file's name without its ending, if that is one of these; None otherwise."""
    stem, suffix = posixpath.splitext(name)
    return stem if suffix.lower() in suffixes else None


def named_entry(table: Table, key: str, name: str) -> Entry:
    """A file on its way into an index.

    Args:
        table: see ``Entry``.
        key: of the image.
        name: of the file, in its folder.
    """
    # A name that no text or address can hold joins nothing, and appears as a reject.
    return Entry(table, key if is_key(key) and is_contained(name) else None, name)


def picture_entries(folder: Folder) -> Iterator[Entry]:
    """The pictures directly in a folder; the key is the name without its ending.

    Raises:
        SetupError: the folder is not there, or cannot be read.
    """
    for listed in list_folder(folder):
        stem = stem_of(listed.name, PICTURE_SUFFIXES)
        if stem is not None and not listed.is_folder:
            yield named_entry("images", stem, listed.name)


def index_listing(
    kind: str,
    index: str,
    entries: Callable[[], Iterable[Entry]],
    *,
    content: Mapping[str, Any] | None = None,
    before: Callable[[], Iterable[Entry]] = tuple,
) -> tuple[str, UnitIndex]:
    """The index of what lies in folders; built where there is none of these names yet.

    The names are listed once to see whether an index is there, and again to build it. What the files hold is not
    looked at: to change a file under its name is not noticed.

    Args:
        kind: of the source.
        index: local folder of the indexes.
        entries: lists the folders anew; the records are names.
        content: what decides the entries of ``before``, as JSON values: hashes of the files that they are read from.
        before: further entries, which go before the listed ones; asked for only where there is no index yet.

    Returns:
        A hash of the names, and the index.

    Raises:
        SetupError: a folder cannot be listed, or changes meanwhile; the index cannot be written.
    """
    digest = digest_of(_name(entry) for entry in entries())
    path = index_path(index, {"kind": kind, "names": digest, **({"content": content} if content else {})})
    return digest, open_index(path) or build_index(path, itertools.chain(before(), _unchanged(entries(), digest)))


def _name(entry: Entry) -> str:
    return f"{entry.table}\0{entry.record}"


def _unchanged(entries: Iterable[Entry], digest: str) -> Iterator[Entry]:
    total = 0
    for entry in entries:
        total += _number_of(_name(entry))
        yield entry
    if _hex(total) != digest:
        raise SetupError("files came or went while their folder was listed; start again when it is complete")


def read_listed(folder: Folder, record: UnitRecord) -> tuple[str, bytes]:
    """Name and bytes of the image of a row whose records are names.

    Raises:
        RecordError: ``image-missing``; ``record-duplicate`` where two files have one stem.
        SetupError: the file system itself fails.
    """
    name = listed_name(folder, record)
    return name, read_file(folder, name)


def listed_name(folder: Folder, record: UnitRecord, kind: str = "image") -> str:
    """Name of the image, or of another ``kind`` of file, of a row whose records are names.

    Raises:
        RecordError: ``image-missing``; ``record-duplicate`` where two files have one stem.
    """
    if not record.images:
        raise RecordError("image-missing", f"{record.key}: no {kind} of this name under {folder}")
    if len(record.images) > 1:
        raise RecordError("record-duplicate", f"{record.key}: several {kind}s: {', '.join(sorted(record.images))}")
    return record.images[0]


def paired(folder: Folder, record: UnitRecord) -> tuple[str, str]:
    """Names of the image and of the annotation of a row whose records are names, one of each.

    Raises:
        RecordError: ``image-missing``; ``record-duplicate`` where two files have one stem.
    """
    image = listed_name(folder, record)
    if len(record.annotations) > 1:
        names = ", ".join(sorted(record.annotations))
        raise RecordError("record-duplicate", f"{record.key}: several annotations: {names}")
    return image, record.annotations[0]
