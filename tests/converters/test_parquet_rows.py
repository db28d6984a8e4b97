"""Parquet files: rows by row group, and single cells."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from converters.files import parquet_rows as module
from converters.files.parquet_rows import footer_digest, parquet_rows, read_cell
from samtok_data.errors import RecordError, SetupError
from samtok_data.storage import Folder

CELL = "mask.bytes"


def cell_of(row: int) -> bytes:
    return bytes([row, 255 - row]) * 2000


def write(path: Path, *, rows: int = 7, group: int = 3, **columns: Any) -> Folder:
    """Rows with the cell ``cell_of(row)``; snappy, as usual."""
    usual = {"mask": [{"bytes": cell_of(row), "path": None} for row in range(rows)], "info": list(range(rows))}
    parquet.write_table(pa.table({**usual, **columns}), path, row_group_size=group, use_dictionary=False)
    return Folder(path.parent)


def rows_of(folder: Folder) -> list[Any]:
    return list(parquet_rows(folder, "a.parquet", ["info"], CELL))


def test_rows_come_in_order_with_their_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH_ROWS", 2)
    folder = write(tmp_path / "a.parquet")
    digest = footer_digest(folder, "a.parquet")
    places = [(group, row) for group, row, _ in rows_of(folder)]
    assert places == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)]
    assert [values for _, _, values in rows_of(folder)] == [{"info": number} for number in range(7)]
    for number, (group, row) in reversed(list(enumerate(places))):
        assert read_cell(folder, "a.parquet", digest, group, row, CELL) == cell_of(number)


def test_an_empty_cell_is_none(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "a.parquet", mask=[None, {"bytes": None, "path": "x"}, *[{"bytes": b"1", "path": "x"}] * 5]
    )
    digest = footer_digest(folder, "a.parquet")
    assert [read_cell(folder, "a.parquet", digest, 0, row, CELL) for row in range(3)] == [None, None, b"1"]


def test_the_footer_and_a_group_are_read_once_for_rows_that_follow_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "a.parquet")
    digest = footer_digest(folder, "a.parquet")
    opened: list[str] = []
    monkeypatch.setattr(module, "_opened", lambda *names, opening=module._opened: opened.append("") or opening(*names))
    for group, row in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1)):
        read_cell(folder, "a.parquet", digest, group, row, CELL)
    assert len(opened) == 3


def test_only_the_column_of_the_cell_is_read(tmp_path: Path) -> None:
    folder = write(tmp_path / "a.parquet")
    path = tmp_path / "a.parquet"
    column = parquet.read_metadata(path).row_group(0).column(2)
    assert column.path_in_schema == "info"
    data = bytearray(path.read_bytes())
    place = column.dictionary_page_offset or column.data_page_offset
    data[place : place + column.total_compressed_size] = b"?" * column.total_compressed_size
    path.write_bytes(data)
    assert read_cell(folder, "a.parquet", footer_digest(folder, "a.parquet"), 0, 1, CELL) == cell_of(1)


def test_another_file_under_the_name_is_noticed(tmp_path: Path) -> None:
    folder = write(tmp_path / "a.parquet")
    digest = footer_digest(folder, "a.parquet")
    write(tmp_path / "a.parquet", rows=5)
    assert footer_digest(folder, "a.parquet") != digest
    with pytest.raises(SetupError, match=r"a\.parquet: it has changed since it was indexed; start again"):
        read_cell(folder, "a.parquet", digest, 0, 0, CELL)
    with pytest.raises(SetupError, match="it has changed since it was indexed"):
        read_cell(folder, "a.parquet", footer_digest(folder, "a.parquet"), 1, 2, CELL)


def test_a_damaged_group_is_a_fault_of_its_rows(tmp_path: Path) -> None:
    folder = write(tmp_path / "a.parquet")
    path = tmp_path / "a.parquet"
    column = parquet.read_metadata(path).row_group(1).column(0)
    data = bytearray(path.read_bytes())
    data[column.data_page_offset : column.data_page_offset + column.total_compressed_size] = (
        b"\xff" * column.total_compressed_size
    )
    path.write_bytes(data)
    digest = footer_digest(folder, "a.parquet")
    with pytest.raises(RecordError, match=r"a\.parquet: row group 1 is damaged") as caught:
        read_cell(folder, "a.parquet", digest, 1, 0, CELL)
    assert caught.value.reason == "annotation-unreadable"
    assert read_cell(folder, "a.parquet", digest, 0, 0, CELL) == cell_of(0)


@pytest.mark.parametrize("length", [0, 5, 900, -4], ids=["empty", "few bytes", "cut", "without its end"])
def test_a_file_that_is_cut_is_refused(tmp_path: Path, length: int) -> None:
    folder = write(tmp_path / "a.parquet")
    (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:length])
    with pytest.raises(SetupError, match=r"a\.parquet: is no whole Parquet file \("):
        footer_digest(folder, "a.parquet")
    with pytest.raises(SetupError, match=r"a\.parquet: cannot be read: "):
        rows_of(folder)


def test_a_file_that_is_not_there_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"a\.parquet: cannot be read: "):
        footer_digest(Folder(tmp_path), "a.parquet")
    parquet.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(SetupError, match=r"expected the columns info and mask\.bytes, got text; is it the right file"):
        rows_of(Folder(tmp_path))


def test_groups_that_are_too_large_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "a.parquet")
    monkeypatch.setattr(module, "_MAX_GROUP_BYTES", 10_000)
    with pytest.raises(SetupError, match=r"row group 0 has 20,0\d\d bytes of mask\.bytes, .* with smaller row groups"):
        rows_of(folder)


def test_without_pyarrow_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "a.parquet")
    imported = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(SetupError, match=r"install it with: pip install 'samtok-data\[train\]'"):
        rows_of(folder)
