"""An index on disk of what belongs to which image: built once as a stream, read by many processes.

    records of images and of their annotations, in any order  --build-->  one row an image  --read-->  both, as JSON

One SQLite file. While it is built, the records lie in a second file beside it, so memory holds one image's records and
SQLite's own cache. It appears under its name when it is whole, and its name is a hash of what it was built from: a
changed annotation file gives another index. Figures: ``converters/files/coco_files.py``.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from samtok_data.errors import SetupError
from samtok_data.storage import TEMPORARY

_LAYOUT = 1  # of the tables below; part of the name, so that another version of this program makes its own
_CACHE_KIB = 16 * 1024
MAX_KEY = 2**63 - 1

Table = Literal["images", "annotations"]
Key = int | str
"""What joins an image and its annotations: an id, or a file's name without its ending."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One record on its way into the index.

    Attributes:
        table: whether it describes an image or belongs to one.
        key: of the image; None where the record does not say one that can be used.
        record: JSON values.
    """

    table: Table
    key: Key | None
    record: Any


@dataclass(frozen=True, slots=True)
class UnitRecord:
    """One row.

    Attributes:
        key: of the image.
        images: its records: one; none where annotations name an image that is not listed; more where it is twice.
        annotations: the records that belong to it, in the order in which they came.
    """

    key: Key | None
    images: list[Any]
    annotations: list[Any]

    @classmethod
    def of_row(cls, row: Sequence[Any]) -> UnitRecord:
        """Parses what ``UnitIndex.read_rows`` gave, as it is or after JSON.

        Raises:
            SetupError: it is damaged.
        """
        try:
            key, images, annotations = row
            return cls(key, json.loads(images), json.loads(annotations))
        except (TypeError, ValueError) as error:
            raise SetupError(f"a row of an index is damaged: {error}; delete the indexes and start again") from error


@dataclass(frozen=True, slots=True)
class UnitIndex:
    """A finished index. It can be pickled; the file is opened and closed by each read, in any process or thread.

    Attributes:
        path: of the file, absolute.
        num_units: rows: images that have annotations, and keys whose image is missing.
        num_paired: rows that have both.
    """

    path: str
    num_units: int
    num_paired: int

    def read(self, unit: int) -> UnitRecord:
        """A row.

        Args:
            unit: in ``0 .. num_units - 1``.

        Raises:
            IndexError: there is no such unit.
            SetupError: the file is gone or damaged.
        """
        if not 0 <= unit < self.num_units:
            raise IndexError(f"expected a unit below {self.num_units}, got {unit}")
        (row,) = self.read_rows(range(unit, unit + 1))
        return UnitRecord.of_row(row)

    def read_rows(self, units: range) -> list[tuple[Any, str, str]]:
        """Rows that follow each other, in order, as ``UnitRecord.of_row`` takes them.

        They are read at once, for to open the file costs more than to read a hundred, and they are not parsed: that
        takes most of the time and can be done elsewhere.

        Args:
            units: in ``0 .. num_units - 1``, each one more than the last.

        Raises:
            IndexError: there is no such unit.
            SetupError: the file is gone or damaged.
        """
        if not 0 <= units.start <= units.stop <= self.num_units:
            raise IndexError(f"expected units below {self.num_units}, got {units.start} to {units.stop}")
        chosen = "SELECT key, images, annotations FROM units WHERE unit >= ? AND unit < ? ORDER BY unit"
        try:
            with closing(_open_finished(self.path)) as connection:
                rows = connection.execute(chosen, (units.start, units.stop)).fetchall()
            if len(rows) != len(units):
                raise ValueError(f"{len(rows)} rows for {len(units)} units")
        except (sqlite3.Error, ValueError) as error:
            raise SetupError(_unreadable(self.path, error)) from error
        return rows


def is_key(value: Any) -> bool:
    """Whether a value can join records: a whole number from 0 on, of 63 bits at most, or a printable text."""
    if isinstance(value, str):
        return value.isprintable()  # half a surrogate pair is not, and SQLite does not take one
    return type(value) is int and 0 <= value <= MAX_KEY


def index_path(folder: str | os.PathLike[str], parts: Mapping[str, Any]) -> Path:
    """Where the index of a source lies.

    Args:
        folder: of the indexes, on a local disk.
        parts: what decides its content, as JSON values: hashes of files, options of the reader.

    Raises:
        SetupError: the folder is an address: SQLite reads local files.
    """
    if "://" in os.fspath(folder):
        raise SetupError(f"index: expected a folder on a local disk, got {os.fspath(folder)}")
    text = json.dumps({"layout": _LAYOUT, **parts}, sort_keys=True, separators=(",", ":"))
    return Path(folder).absolute() / f"units-{hashlib.sha256(text.encode()).hexdigest()[:32]}.sqlite"


def open_index(path: Path) -> UnitIndex | None:
    """An index that was finished before; None where there is none.

    Raises:
        SetupError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        with closing(_open_finished(str(path))) as connection:
            num_units, num_paired = connection.execute("SELECT num_units, num_paired FROM totals").fetchone()
    except (sqlite3.Error, TypeError) as error:
        raise SetupError(_unreadable(str(path), error)) from error
    return UnitIndex(str(path), num_units, num_paired)


def build_index(path: Path, entries: Iterable[Entry]) -> UnitIndex:
    """Groups records by image and writes them, whole or not at all.

    Rows are in the order of their keys: numbers, then texts. Two processes that build the same index at once do the
    same work twice; the later one's file replaces the earlier one's, which those that read it keep.

    Args:
        path: see ``index_path``.
        entries: read once. An error that they raise leaves no file.

    Raises:
        SetupError: the file cannot be written.
    """
    try:
        temporary = path.parent / TEMPORARY
        temporary.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=temporary, prefix=path.stem) as scratch:
            whole = Path(scratch) / "units.sqlite"
            with closing(_open_new(Path(scratch) / "records.sqlite")) as records, closing(_open_new(whole)) as units:
                _store(records, entries)
                _group(records, units)
            with open(whole, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(whole, path)
    except (OSError, sqlite3.Error) as error:
        raise SetupError(f"the index {path} cannot be written: {error}; give another folder for indexes") from error
    index = open_index(path)
    if index is None:
        raise SetupError(f"the index {path} was removed as soon as it was written")
    return index


def _store(records: sqlite3.Connection, entries: Iterable[Entry]) -> None:
    for table in ("images", "annotations"):
        records.execute(f"CREATE TABLE {table} (key, record TEXT)")
    for table, group in groupby(entries, key=lambda entry: entry.table):
        records.executemany(f"INSERT INTO {table} VALUES (?, ?)", ((entry.key, _text(entry.record)) for entry in group))
    for table in ("images", "annotations"):
        records.execute(f"CREATE INDEX {table}_by_key ON {table} (key)")


def _text(record: Any) -> str:
    try:
        return json.dumps(record, separators=(",", ":"))  # ASCII: half a surrogate pair is no text to SQLite
    except RecursionError as error:
        raise SetupError("a record is nested deeper than any annotation; is it the right file?") from error


def _group(records: sqlite3.Connection, units: sqlite3.Connection) -> None:
    units.execute("CREATE TABLE units (unit INTEGER PRIMARY KEY, key, images TEXT, annotations TEXT)")
    units.execute("CREATE TABLE totals (num_units INTEGER, num_paired INTEGER)")
    num_units = num_paired = 0
    # Only keys and row numbers are sorted; the records stay where they are.
    ordered = records.execute("SELECT key, record FROM annotations INDEXED BY annotations_by_key ORDER BY key, rowid")
    for key, rows in groupby(ordered, key=lambda row: row[0]):
        images = _joined(records.execute("SELECT record FROM images WHERE key = ? ORDER BY rowid", (key,)))
        annotations = _joined((record,) for _key, record in rows)
        units.execute("INSERT INTO units VALUES (?, ?, ?, ?)", (num_units, key, images, annotations))
        num_units += 1
        num_paired += images != "[]"
    units.execute("INSERT INTO totals VALUES (?, ?)", (num_units, num_paired))
    units.commit()


def _joined(rows: Iterator[tuple[str]] | sqlite3.Cursor) -> str:
    return f"[{','.join(row[0] for row in rows)}]"


def _open_new(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    # Nothing to roll back: a file that is not finished is deleted.
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    return connection


def _open_finished(path: str) -> sqlite3.Connection:
    # Immutable: no locks, which network file systems may lack, and no file beside it.
    return sqlite3.connect(f"{Path(path).as_uri()}?mode=ro&immutable=1", uri=True)


def _unreadable(path: str, error: Exception) -> str:
    return f"the index {path} cannot be read: {error}; delete it and start again, so that it is made anew"
