"""The index on disk: what it groups, who can read it, and that it is whole or not there."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import random
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.files.unit_index import Entry, UnitIndex, UnitRecord, build_index, index_path, is_key, open_index
from samtok_data.errors import SetupError
from tests.converters.mask_sources import printed_by

keys = st.one_of(st.none(), st.integers(0, 3), st.just(2**63 - 1), st.sampled_from(["a", "b'; DROP TABLE", "ü"]))
entries = st.builds(Entry, st.sampled_from(["images", "annotations"]), keys, st.integers())


def build(folder: Path, content: Iterable[Entry], name: str = "x") -> UnitIndex:
    return build_index(index_path(folder, {"name": name}), content)


@settings(deadline=None)  # files are written
@given(st.lists(entries, max_size=30))
def test_every_record_is_in_the_row_of_its_key(tmp_path_factory: pytest.TempPathFactory, content: list[Entry]) -> None:
    index = build(tmp_path_factory.mktemp("index"), iter(content))
    found = [index.read(unit) for unit in range(index.num_units)]
    wanted: dict[Any, list[Any]] = defaultdict(list)
    images: dict[Any, list[Any]] = defaultdict(list)
    for entry in content:
        (wanted if entry.table == "annotations" else images)[entry.key].append(entry.record)
    # Without a key nothing is joined: such annotations have no image.
    rank = {type(None): 0, int: 1, str: 2}
    assert [row.key for row in found] == sorted(wanted, key=lambda key: (rank[type(key)], key or 0))
    for row in found:
        assert row.annotations == wanted[row.key]
        assert row.images == ([] if row.key is None else images[row.key])
    assert index.num_paired == sum(bool(row.images) for row in found)
    for start in range(index.num_units + 1):
        rows = json.loads(json.dumps(index.read_rows(range(start, index.num_units))))
        assert [UnitRecord.of_row(row) for row in rows] == found[start:]


@pytest.mark.parametrize("value", [0, 2**63 - 1, "", "a b"])
def test_ids_and_printable_texts_are_keys(tmp_path: Path, value: Any) -> None:
    assert is_key(value)
    assert build(tmp_path, [Entry("annotations", value, 1)]).read(0).key == value


@pytest.mark.parametrize("value", [None, -1, 2**63, True, 1.0, "\ud800", "a\nb", [1], {}])
def test_other_values_are_none(value: Any) -> None:
    assert not is_key(value)


def test_strange_texts_in_records_come_back(tmp_path: Path) -> None:
    record = {"name": "\ud800 ü \0", "numbers": [1.5, 10**30, -0.1]}
    assert build(tmp_path, [Entry("annotations", 1, record)]).read(0).annotations == [record]


def test_a_record_without_an_end_of_brackets_is_refused(tmp_path: Path) -> None:
    record: list[Any] = []
    for _ in range(100_000):
        record = [record]
    with pytest.raises(SetupError, match="a record is nested deeper than any annotation"):
        build(tmp_path, [Entry("annotations", 1, record)])
    while record:  # from the outside: Python 3.11 overflows where it frees such a list
        record = record.pop()


def test_the_same_parts_name_the_same_file(tmp_path: Path) -> None:
    path = index_path(tmp_path, {"a": 1, "b": 2})
    assert path == index_path(tmp_path, {"b": 2, "a": 1})
    assert path != index_path(tmp_path, {"a": 1, "b": 3})
    assert path.parent == tmp_path


def test_an_address_is_no_folder_of_indexes() -> None:
    with pytest.raises(SetupError, match="index: expected a folder on a local disk, got s3://bucket/indexes"):
        index_path("s3://bucket/indexes", {})


def test_an_index_is_found_again(tmp_path: Path) -> None:
    path = index_path(tmp_path / "new" / "folder", {})
    assert open_index(path) is None
    built = build_index(path, [Entry("annotations", 1, "x")])
    assert open_index(path) == built


def test_a_relative_folder_is_one_for_every_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    index = build(Path("indexes"), [Entry("annotations", 1, "x")])
    monkeypatch.chdir("/")
    assert index.read(0).annotations == ["x"]


def test_an_error_while_it_is_built_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[Entry]:
        yield Entry("annotations", 1, "x")
        raise SetupError("the source is broken")

    with pytest.raises(SetupError, match="the source is broken"):
        build(tmp_path, broken())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_disk_that_is_full_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        SetupError, match=r"units-.*\.sqlite cannot be written: .*No space left on device; give another"
    ):
        build(tmp_path, [Entry("annotations", 1, "x")])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match="give another folder for indexes"):
        build(tmp_path / "file", [])


def test_a_unit_that_is_not_there_is_an_error_of_the_program(tmp_path: Path) -> None:
    index = build(tmp_path, [Entry("annotations", 1, "x")])
    for unit in (-1, 1):
        with pytest.raises(IndexError, match=f"expected a unit below 1, got {unit}"):
            index.read(unit)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def overwritten(path: Path) -> None:
    path.write_bytes(b"not a database, " * 1000)


@pytest.mark.parametrize("damage", [Path.unlink, emptied, cut, overwritten])
def test_a_lost_or_damaged_file_says_what_to_do(tmp_path: Path, damage: Any) -> None:
    index = build(tmp_path, [Entry("annotations", number, "x" * 1000) for number in range(20)])
    damage(Path(index.path))
    with pytest.raises(SetupError, match=r"cannot be read: .*; delete it and start again, so that it is made anew"):
        [index.read(unit) for unit in range(20)]


@pytest.mark.parametrize("damage", [emptied, overwritten])
def test_a_damaged_file_is_not_taken_for_a_finished_one(tmp_path: Path, damage: Any) -> None:
    index = build(tmp_path, [Entry("annotations", 1, "x")])
    damage(Path(index.path))
    with pytest.raises(SetupError, match="delete it and start again"):
        open_index(Path(index.path))


def _keys_of(index: UnitIndex, seed: int) -> list[Any]:
    units = list(range(index.num_units))
    random.Random(seed).shuffle(units)
    return [index.read(unit).key for unit in sorted(units)]


def test_rows_that_are_not_there_are_refused(tmp_path: Path) -> None:
    index = build(tmp_path, [Entry("annotations", key, 1) for key in range(4)])
    assert index.read_rows(range(1, 3)) == [(1, "[]", "[1]"), (2, "[]", "[1]")]
    for units in (range(-1, 2), range(3, 5), range(2, 1)):
        with pytest.raises(IndexError, match="expected units below 4, got "):
            index.read_rows(units)
    with closing(sqlite3.connect(index.path)) as connection:
        connection.execute("DELETE FROM units WHERE unit = 2")
        connection.commit()
    with pytest.raises(SetupError, match="cannot be read: 3 rows for 4 units; delete it"):
        index.read_rows(range(4))


@pytest.mark.parametrize("row", [[1, "[]", "[1"], [1, "[]", None], [1, "[]"]])
def test_a_damaged_row_is_an_error_with_a_way_out(row: list[Any]) -> None:
    with pytest.raises(SetupError, match=r"a row of an index is damaged: .*; delete the indexes and start again"):
        UnitRecord.of_row(row)


def test_processes_and_threads_read_it_at_once(tmp_path: Path) -> None:
    index = build(tmp_path, [Entry("annotations", number, [number] * 100) for number in range(200)])
    index.read(0)  # so that forked processes would share whatever stays open
    wanted = list(range(200))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(_keys_of, [index] * 8, range(8))) == [wanted] * 8
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as processes:
        assert processes.starmap(_keys_of, [(index, seed) for seed in range(4)]) == [wanted] * 4
    assert _keys_of(pickle.loads(pickle.dumps(index)), 0) == wanted


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded, use of fork:DeprecationWarning")
def test_forked_processes_read_it(tmp_path: Path) -> None:
    index = build(tmp_path, [Entry("annotations", number, number) for number in range(50)])
    index.read(0)
    with multiprocessing.get_context("fork").Pool(2) as processes:
        assert processes.starmap(_keys_of, [(index, seed) for seed in range(4)]) == [list(range(50))] * 4


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_does_not_grow_with_the_records(tmp_path: Path) -> None:
    """Peak memory of a process that indexes so many records in disorder, against a tenth of them."""
    program = """
        import sys
        from pathlib import Path
        from converters.files.unit_index import Entry, build_index
        from tests.converters.mask_sources import peak_mib
        number = int(sys.argv[2])
        texts = ("x" * (2000 + place % 2) for place in range(number))  # no text twice in memory
        records = (Entry("annotations", place * 7919 % (number // 5), text) for place, text in enumerate(texts))
        index = build_index(Path(sys.argv[1]), records)
        assert index.num_units == number // 5, index
        print(peak_mib())
    """
    peaks = {}
    for number in (10_000, 100_000):  # 20 and 200 MB
        (peaks[number],) = printed_by(program, tmp_path / f"{number}.sqlite", number)
        assert (tmp_path / f"{number}.sqlite").stat().st_size > 2000 * number
    assert peaks[100_000] < peaks[10_000] + 50  # two caches of 16 MiB may fill up


def test_the_file_itself_is_plain(tmp_path: Path) -> None:
    """So that a person can look into it with sqlite3."""
    import sqlite3
    from contextlib import closing

    index = build(tmp_path, [Entry("images", 5, {"file_name": "a"}), Entry("annotations", 5, {"id": 1})])
    with closing(sqlite3.connect(index.path)) as connection:
        (row,) = connection.execute("SELECT * FROM units").fetchall()
    assert (row[0], row[1], json.loads(row[2]), json.loads(row[3])) == (0, 5, [{"file_name": "a"}], [{"id": 1}])
