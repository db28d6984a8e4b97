"""Rows of Parquet files: a few columns of all of them as a stream, and one cell at a time.

A file is read by row groups, of 100 rows in what the ``datasets`` package writes for images. A cell needs its column
of its group: of 9 KB PNG files that takes 1 ms in groups of 100 rows and 5 ms in groups of 1,000, while to decode one
takes 3 ms. The last groups are kept: rows that are read one after the other take 0.02 ms each. So are footers, which
take 13 ms for 600 groups.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from samtok_data.errors import RecordError, SetupError
from samtok_data.storage import Folder

_BATCH_ROWS = 256
_KEPT_GROUPS = 2
_KEPT_FOOTERS = 16
_MAX_FOOTER_BYTES = 1 << 28
_MAX_GROUP_BYTES = 1 << 28
"""Of one column of a row group, which is in memory while one of its cells is read."""
_TAIL_BYTES = 8  # length of the footer, 4 bytes, and the mark PAR1


def footer_digest(folder: Folder, name: str) -> str:
    """A hash of a file's footer, which says where each piece of a column lies and how long it is.

    Other bytes of the same lengths are not noticed; the files have gigabytes.

    Raises:
        SetupError: the file is not there, is no Parquet file, or lies in an archive.
    """
    label = f"{folder}/{name}"
    if folder.is_archive:  # it would be unpacked into memory, whole
        raise SetupError(f"{label}: a Parquet file cannot be read in a zip or tar; unpack it")
    try:
        size = folder.size(name)
        with folder.open(name) as file:
            file.seek(max(0, size - _TAIL_BYTES))
            tail = file.read(_TAIL_BYTES)
            length = int.from_bytes(tail[:4], "little") + _TAIL_BYTES
            if tail[4:] != b"PAR1" or not length <= min(size, _MAX_FOOTER_BYTES):
                raise SetupError(f"{label}: is no whole Parquet file ({size:,} bytes); fetch it again")
            file.seek(size - length)
            return hashlib.sha256(file.read(length)).hexdigest()
    except OSError as error:
        raise SetupError(f"{label}: cannot be read: {error}") from error


def parquet_rows(
    folder: Folder, name: str, columns: Sequence[str], cell: str
) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """The rows of a file, in order, in batches.

    Args:
        folder: of the file.
        name: of the file.
        columns: to read.
        cell: column that ``read_cell`` will be asked for: a path, ``mask.bytes``.

    Yields:
        Number of the row group, of the row in it, and the columns' values as Python objects.

    Raises:
        SetupError: the file lacks a column, is damaged, or its groups are too large; pyarrow is not installed.
    """
    label = f"{folder}/{name}"
    try:
        with _opened(folder, name) as file:
            _require_columns(file, label, columns, cell)
            for group in range(file.metadata.num_row_groups):
                row = 0
                batches = file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=list(columns), use_threads=False)
                for batch in batches:
                    for values in batch.to_pylist():
                        yield group, row, values
                        row += 1
    except (OSError, ValueError) as error:
        raise SetupError(f"{label}: cannot be read: {error}; if it is damaged, fetch it again") from error


def read_cell(folder: Folder, name: str, digest: str, group: int, row: int, cell: str) -> Any:
    """One value of a file.

    Args:
        folder: of the file.
        name: of the file.
        digest: what ``footer_digest`` said of it when its rows were found.
        group: number of the row group.
        row: number of the row in it.
        cell: path of the column, ``mask.bytes``.

    Raises:
        RecordError: ``annotation-unreadable``: the group is damaged.
        SetupError: the file is not the one that it was; the file system itself fails; pyarrow is not installed.
    """
    column = _column(folder.address, name, digest, group, cell)
    if not row < len(column):
        raise SetupError(f"{folder}/{name}: it has changed since it was indexed; start again")
    value = column[row].as_py()
    for field in cell.split(".")[1:]:
        value = None if value is None else value[field]
    return value


@functools.lru_cache(maxsize=_KEPT_GROUPS)
def _column(address: str, name: str, digest: str, group: int, cell: str) -> Any:
    folder = Folder(address)
    try:
        with _opened(folder, name, _footer(address, name, digest)) as file:
            return file.read_row_group(group, columns=[cell], use_threads=False).column(0)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise SetupError(f"{folder}/{name}: cannot be read: {error}") from error
        # What is damaged has no number of the operating system's.
        raise RecordError("annotation-unreadable", f"{name}: row group {group} is damaged: {error}") from error


@functools.lru_cache(maxsize=_KEPT_FOOTERS)
def _footer(address: str, name: str, digest: str) -> Any:
    folder = Folder(address)
    if footer_digest(folder, name) != digest:
        raise SetupError(f"{folder}/{name}: it has changed since it was indexed; start again")
    with _opened(folder, name) as file:
        return file.metadata


@contextmanager
def _opened(folder: Folder, name: str, footer: Any = None) -> Iterator[Any]:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise SetupError("pyarrow reads Parquet files; install it with: pip install 'samtok-data[train]'") from error
    with folder.open(name) as bytes_of, ParquetFile(bytes_of, metadata=footer) as file:
        yield file


def _require_columns(file: Any, label: str, columns: Sequence[str], cell: str) -> None:
    there = file.schema_arrow.names
    missing = [column for column in (*columns, cell.partition(".")[0]) if column not in there]
    places = [place for place in range(len(file.schema.names)) if file.schema.column(place).path == cell]
    if missing or not places:
        raise SetupError(
            f"{label}: expected the columns {', '.join(columns)} and {cell}, got {', '.join(there)}; is it the right "
            "file?"
        )
    for group in range(file.metadata.num_row_groups):
        size = file.metadata.row_group(group).column(places[0]).total_uncompressed_size
        if size > _MAX_GROUP_BYTES:
            raise SetupError(
                f"{label}: row group {group} has {size:,} bytes of {cell}, and each image needs all of them; write the "
                "file again with smaller row groups"
            )
