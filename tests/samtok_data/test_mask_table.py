"""Tables of masks: what is written is read back, equal rows are equal bytes, and damage has a name."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from samtok_data import masks
from samtok_data.mask_table import (
    ROWS_PER_GROUP,
    MaskRow,
    MaskTableWriter,
    TableIdentity,
    batches,
    code_columns,
    read_table,
    rows_of,
    table_schema,
)
from samtok_data.masks import RLE
from samtok_data.storage import Folder
from samtok_data.words import MaskVocabulary

VOCABULARY = MaskVocabulary()
TOKENIZER = {"name": "small", "sha256": "0123456789abcdef" * 4}
SQUARE = masks.encode(np.pad(np.ones((2, 3), np.bool_), ((1, 4), (2, 5))))  # rows 1-2 and columns 2-4 of 7x10


def row_of(number: int, **changes: Any) -> MaskRow:
    usual: dict[str, Any] = {
        "source": "sa1b",
        "image": "sa_1.jpg",
        "scene": "sa_1",
        "region": str(number),
        "rle": SQUARE,
        "codes": (number % 256, 255 - number % 256),
    }
    return MaskRow(**{**usual, **changes})


def table_of(
    rows: Sequence[MaskRow], vocabulary: MaskVocabulary = VOCABULARY, calls: Sequence[int] = ()
) -> bytes | None:
    """The bytes of a table, its rows handed in as so many calls as ``calls`` has ends, and one more."""
    writer = MaskTableWriter(vocabulary, TOKENIZER)
    for start, end in itertools.pairwise([0, *calls, len(rows)]):
        writer.add(rows[start:end])
    assert writer.num_rows == len(rows)
    return writer.finish()


def read(data: bytes | None, vocabulary: MaskVocabulary = VOCABULARY) -> list[MaskRow]:
    assert data is not None
    return [row for batch in batches(io.BytesIO(data)) for row in rows_of(batch, vocabulary)]


def test_the_columns_of_a_row() -> None:
    data = table_of([row_of(7, archive="sa_000020.tar", iou=0.5), row_of(8, scene="v/3", image="v.mp4", frame=3)])
    assert data is not None
    table = pq.read_table(io.BytesIO(data))
    first, second = table.to_pylist()
    assert first == {
        "source": "sa1b",
        "image": "sa_1.jpg",
        "archive": "sa_000020.tar",
        "frame": None,
        "scene": "sa_1",
        "region": "7",
        "height": 7,
        "width": 10,
        "counts": SQUARE.counts.encode(),
        "area": 6,
        "box": [2, 1, 3, 2],
        "code_0": 7,
        "code_1": 248,
        "word": "<|mt_start|><|mt_0007|><|mt_0504|><|mt_end|>",
        "r_iou": 0.5,
        "tokenizer": "0123456789abcdef",
    }
    assert {name: second[name] for name in first if first[name] != second[name]} == {
        "image": "v.mp4",
        "archive": None,
        "frame": 3,
        "scene": "v/3",
        "region": "8",
        "code_0": 8,
        "code_1": 247,
        "word": "<|mt_start|><|mt_0008|><|mt_0503|><|mt_end|>",
        "r_iou": None,
    }
    assert table.schema == table_schema(TableIdentity(VOCABULARY, TOKENIZER))
    assert [field.name for field in table.schema if field.nullable] == ["archive", "frame", "r_iou"]


def test_a_table_says_which_tokenizer_made_it() -> None:
    data = table_of([row_of(1, codes=(40_000, 0, 1))], MaskVocabulary(40_001, 3))
    assert data is not None
    schema = pq.read_schema(io.BytesIO(data))
    assert TableIdentity.of(schema) == TableIdentity(MaskVocabulary(40_001, 3), TOKENIZER)
    assert {schema.field(name).type for name in code_columns(MaskVocabulary(40_001, 3))} == {pa.int32()}
    assert table_schema(TableIdentity(VOCABULARY, TOKENIZER)).field("code_1").type == pa.int16()


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"samtok": "{"},
        {"samtok": "[]"},
        {"samtok": '{"format": 2}'},
        {"samtok": '{"format": 1, "tokenizer": {"name": "x"}, "vocabulary": {"codebook_size": 2, "depth": 1}}'},
        {"samtok": '{"format": 1, "tokenizer": {"name": "", "sha256": ""}, "vocabulary": {"codebook_size": 0}}'},
    ],
)
def test_a_file_that_is_no_table_of_ours(metadata: dict[str, str] | None) -> None:
    with pytest.raises(
        ValueError,
        match=r"^it is no table of masks: its metadata has no 'samtok'$|^its metadata 'samtok' cannot be read: ",
    ):
        TableIdentity.of(pa.schema([], metadata))


_NAMES = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8)
_MASKS = arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))).filter(np.any).map(masks.encode)


@st.composite
def _tables(draw: st.DrawFn) -> list[MaskRow]:
    rows = []
    for scene in draw(st.lists(_NAMES, unique=True, min_size=1, max_size=4)):
        image, archive = draw(_NAMES), draw(st.none() | _NAMES)
        frame = draw(st.none() | st.integers(0, 2**31 - 1))
        for region in draw(st.lists(_NAMES, unique=True, max_size=4)):
            codes = draw(st.tuples(st.integers(0, 255), st.integers(0, 255)))
            iou = draw(st.none() | st.floats(0, 1, width=32))
            row = row_of(0, scene=scene, region=region, image=image, archive=archive, frame=frame)
            rows.append(replace(row, rle=draw(_MASKS), codes=codes, iou=iou))
    return rows


@settings(max_examples=60, deadline=None)
@given(rows=_tables())
def test_what_is_written_is_read_back(rows: list[MaskRow]) -> None:
    data = table_of(rows)
    if not rows:
        assert data is None
        return
    assert read(data) == rows
    table = pq.read_table(io.BytesIO(data or b""))
    assert table["area"].to_pylist() == [masks.area(row.rle) for row in rows]
    assert table["box"].to_pylist() == [list(masks.coco_box(row.rle)) for row in rows]


@pytest.fixture(scope="module")
def large() -> list[MaskRow]:
    """A group and a half, in scenes of 100 rows."""
    number = ROWS_PER_GROUP * 3 // 2
    return [row_of(at, scene=f"sa_{at // 100}", iou=at % 11 / 10) for at in range(number)]


def test_bytes_depend_on_the_rows_alone(large: list[MaskRow]) -> None:
    whole = table_of(large)
    assert whole is not None
    assert table_of(large, calls=(1, ROWS_PER_GROUP - 1, ROWS_PER_GROUP + 5)) == whole
    metadata = pq.read_metadata(io.BytesIO(whole))
    groups = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    assert groups == [ROWS_PER_GROUP, ROWS_PER_GROUP // 2]
    other = [*large[:100], *large[200:300], *large[100:200], *large[300:]]
    assert table_of(other) != whole
    assert read(table_of(other)) == [replace(row, iou=float(np.float32(row.iou))) for row in other]


def test_rows_go_to_the_file_as_groups_fill(large: list[MaskRow]) -> None:
    """What stays in memory as rows does not grow with the table."""
    writer = MaskTableWriter(VOCABULARY, TOKENIZER)
    held = []
    for start in range(0, len(large), 100):
        writer.add(large[start : start + 100])
        held.append(len(writer._rows))
    assert max(held) < ROWS_PER_GROUP
    assert held[-1] == ROWS_PER_GROUP // 2


def test_chosen_columns_are_read_in_batches(large: list[MaskRow], folder: Folder) -> None:
    data = table_of(large)
    assert data is not None
    folder.write("a.parquet", data)
    parts = list(read_table(folder, "a.parquet", ["region", "scene"]))
    assert [sorted(part.schema.names) for part in parts] == [["region", "scene"]] * 2
    assert [region for part in parts for region in part["region"].to_pylist()] == [row.region for row in large]
    with pytest.raises(ValueError, match=r"^the table has no column colour, size$"):
        list(read_table(folder, "a.parquet", ["size", "region", "colour"]))
    with pytest.raises(FileNotFoundError):
        list(read_table(folder, "b.parquet"))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row_of(1), row_of(1)], "^region 1 stands twice in scene sa_1$"),
        ([row_of(1), row_of(1, scene="sa_2"), row_of(2)], "^scene sa_1 stands twice in the table$"),
        ([row_of(1, codes=(1,))], "^expected 2 codes, got 1$"),
        ([row_of(1, codes=(1, 256))], r"^expected codes in 0..255, got 256$"),
        ([row_of(1), row_of(2, rle=masks.encode(np.zeros((4, 5), np.bool_)))], "^region 2 of scene sa_1 has no pixel$"),
    ],
    ids=["region", "scene", "depth", "code", "empty"],
)
def test_rows_that_are_refused(rows: list[MaskRow], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        table_of(rows)


def test_a_tokenizer_without_its_hash_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^expected name and sha256 of the tokenizer, got \['name'\]$"):
        MaskTableWriter(VOCABULARY, {"name": "small"})


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99])
def test_a_cut_file_is_named(large: list[MaskRow], part: float) -> None:
    data = table_of(large)
    assert data is not None
    with pytest.raises(ValueError, match=r"^the Parquet file is cut or damaged: "):
        read(data[: int(part * len(data))])


def test_a_changed_byte_of_any_column_is_named(large: list[MaskRow]) -> None:
    """Without checksums of pages, most of these are read as other numbers."""
    data = table_of(large)
    assert data is not None
    metadata = pq.read_metadata(io.BytesIO(data))
    chunks = [
        metadata.row_group(group).column(column)
        for group in range(metadata.num_row_groups)
        for column in range(metadata.num_columns)
    ]
    assert len(chunks) == 2 * len(table_schema(TableIdentity(VOCABULARY, TOKENIZER)))
    for chunk in chunks:
        changed = bytearray(data)
        start = chunk.dictionary_page_offset or chunk.data_page_offset
        changed[start + chunk.total_compressed_size - 1] ^= 1
        with pytest.raises(ValueError, match=r"^the Parquet file is cut or damaged: .*[Cc][Rr][Cc]"):
            list(batches(io.BytesIO(changed)))


def test_a_fault_of_the_disk_is_not_the_files(large: list[MaskRow]) -> None:
    class Broken(io.BytesIO):
        def read(self, *_args: Any) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        list(batches(Broken(table_of(large[:3]) or b"")))


def test_reading_masks_again_gives_runs_that_pycocotools_takes() -> None:
    data = table_of([row_of(1)])
    (row,) = read(data)
    assert masks.decode(row.rle).sum() == 6
    assert row.rle == RLE(7, 10, SQUARE.counts)
