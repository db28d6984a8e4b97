"""What verify says of a table: nothing of a sound one, and of each fault one sentence."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.verify_table import table_problems
from samtok_data import masks
from samtok_data.mask_table import BATCH_ROWS, MaskRow, MaskTableWriter
from samtok_data.outputs import UnitEntry
from samtok_data.words import MaskVocabulary

VOCABULARY = MaskVocabulary()
TOKENIZER = {"name": "small", "sha256": "0123456789abcdef" * 4}
NUMBER = 30
FIRST = "scene sa_0, region 0"
SECOND = "scene sa_0, region 1"


def rows(number: int = NUMBER) -> list[MaskRow]:
    """Scenes of ten masks each."""
    drawn = np.random.default_rng(0)
    found = [
        masks.encode(np.pad(drawn.random((5, 4)) < 0.5, ((1, 0), (0, 1)), constant_values=True)) for _ in range(50)
    ]
    return [
        MaskRow(
            source="sa1b",
            image=f"sa_{at // 10}.jpg",
            archive="sa_000020.tar",
            scene=f"sa_{at // 10}",
            region=str(at % 10),
            rle=found[at % 50],
            codes=(at % 256, at // 256),
            iou=None if at % 3 else at / number,
        )
        for at in range(number)
    ]


def table_of(some: list[MaskRow], vocabulary: MaskVocabulary = VOCABULARY) -> bytes:
    writer = MaskTableWriter(vocabulary, TOKENIZER)
    writer.add(some)
    data = writer.finish()
    assert data is not None
    return data


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return pq.read_table(io.BytesIO(table_of(rows())))


def entry_of(number: int = NUMBER, **changes: Any) -> UnitEntry:
    usual: dict[str, Any] = {
        "index": 0,
        "shard": None,
        "images": 3,
        "samples": number,
        "masks": number,
        "records": number,
        "rejects": {},
        "tokenizer": TOKENIZER,
        "run": "0",
    }
    return UnitEntry(**{**usual, **changes})


def problems(table: pa.Table) -> list[str]:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return list(table_problems(buffer.getvalue(), entry_of(), VOCABULARY))


def changed(table: pa.Table, column: str, change: Callable[[list[Any]], None]) -> pa.Table:
    values = table[column].to_pylist()
    change(values)
    field = table.schema.field(column)
    return table.set_column(table.schema.get_field_index(column), field, pa.chunked_array([values], field.type))


def swap(first: int, second: int) -> Callable[[list[Any]], None]:
    def change(values: list[Any]) -> None:
        values[first], values[second] = values[second], values[first]

    return change


def put(place: int, value: Any) -> Callable[[list[Any]], None]:
    def change(values: list[Any]) -> None:
        assert values[place] != value
        values[place] = value

    return change


def test_a_sound_table_has_no_problems(table: pa.Table) -> None:
    assert problems(table) == []
    assert list(table_problems(table_of(rows()), entry_of(), VOCABULARY)) == []


def test_a_table_of_several_batches() -> None:
    """What is remembered from row to row goes from batch to batch."""
    number = 2 * BATCH_ROWS + 5
    data = table_of(rows(number))
    assert list(table_problems(data, entry_of(number), VOCABULARY)) == []
    again = changed(pq.read_table(io.BytesIO(data)), "scene", lambda values: values.__setitem__(-1, "sa_0"))
    buffer = io.BytesIO()
    pq.write_table(again, buffer)
    assert list(table_problems(buffer.getvalue(), entry_of(number), VOCABULARY)) == [
        f"scene sa_0, region {(number - 1) % 10}: its scene stood further up already"
    ]


@pytest.mark.parametrize(
    ("column", "change", "expected"),
    [
        ("word", swap(0, 1), f"{FIRST}: word does not spell the codes (and so in 1 more rows)"),
        ("word", put(1, "<|mt_start|><|mt_0001|><|mt_end|>"), f"{SECOND}: word does not spell the codes"),
        ("code_0", put(1, 7), f"{SECOND}: word does not spell the codes"),
        ("code_0", put(0, 256), f"{FIRST}: a code is not in 0..255"),
        ("code_1", put(0, -1), f"{FIRST}: a code is not in 0..255"),
        ("area", put(1, 21), f"{SECOND}: area or box are not the RLE's"),
        ("box", put(1, [0, 0, 5, 5]), f"{SECOND}: area or box are not the RLE's"),
        ("counts", put(1, b"0"), f"{SECOND}: counts are no RLE of height times width pixels"),
        ("counts", put(1, b"n0P"), f"{SECOND}: counts are no RLE of height times width pixels"),
        ("counts", put(1, "ü".encode()), f"{SECOND}: counts are no RLE of height times width pixels"),
        ("r_iou", put(0, 1.5), f"{FIRST}: r_iou is not in 0..1"),
        ("r_iou", put(1, -0.5), f"{SECOND}: r_iou is not in 0..1"),
        ("r_iou", put(1, float("nan")), f"{SECOND}: r_iou is not in 0..1"),
        ("region", put(1, "0"), f"{FIRST}: it stands twice in its scene"),
        ("tokenizer", put(1, "f" * 16), f"{SECOND}: tokenizer is not the one of the file's metadata"),
        (
            "image",
            put(1, "sa_1.jpg"),
            f"{SECOND}: source, image, archive, frame, height, width are not those of its scene's first row",
        ),
    ],
)
def test_one_changed_cell_is_one_sentence(
    table: pa.Table, column: str, change: Callable[[list[Any]], None], expected: str
) -> None:
    assert problems(changed(table, column, change)) == [expected]


def test_a_scene_in_two_places(table: pa.Table) -> None:
    apart = pa.concat_tables([table.slice(0, 5), table.slice(10, 20), table.slice(5, 5)])
    assert problems(apart) == ["scene sa_0, region 5: its scene stood further up already"]


@pytest.mark.parametrize("height", [0, -6, 3])
def test_a_mask_of_another_size(table: pa.Table, height: int) -> None:
    assert problems(changed(table, "height", put(0, height)))[-1] == (
        f"{FIRST}: counts are no RLE of height times width pixels"
    )


def test_an_empty_mask(table: pa.Table) -> None:
    empty = masks.encode(np.zeros((6, 5), np.bool_))
    table = changed(table, "counts", put(0, empty.counts.encode()))
    table = changed(changed(table, "area", put(0, 0)), "box", put(0, [0, 0, 0, 0]))
    assert problems(table) == [f"{FIRST}: the mask has no pixel"]


def test_another_number_of_rows(table: pa.Table) -> None:
    assert problems(table.slice(0, 29)) == ["30 masks in the manifest, 29 rows in the table"]


def test_another_schema(table: pa.Table) -> None:
    metadata = table.schema.metadata
    less = table.drop_columns(["area"])
    assert problems(less)[0].startswith("expected the columns source, image, archive, frame, scene, region, height")
    fields = [
        pa.field("area", pa.int32(), nullable=False) if field.name == "area" else field.with_nullable(True)
        for field in table.schema
    ]
    found = problems(table.cast(pa.schema(fields, metadata)))
    assert "column area: expected int64 not null, got int32 not null" in found
    assert "column word: expected string not null, got string" in found
    assert not any("r_iou" in problem for problem in found)


def test_a_file_of_somebody_else(table: pa.Table) -> None:
    assert problems(table.replace_schema_metadata(None)) == ["it is no table of masks: its metadata has no 'samtok'"]


def test_another_tokenizer() -> None:
    data = table_of(rows())
    (problem,) = table_problems(data, entry_of(tokenizer={"name": "other", "sha256": "00"}), VOCABULARY)
    assert problem.startswith("it was made by the tokenizer {'name': 'small', 'sha256': '0123")
    assert list(table_problems(data, entry_of(), MaskVocabulary(512, 3))) == [
        "its words have 2 codes of 256, the run's 3 codes of 512"
    ]


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-9], lambda data: data[:200]])
def test_a_cut_file(damage: Callable[[bytes], bytes]) -> None:
    (problem,) = table_problems(damage(table_of(rows())), entry_of(), VOCABULARY)
    assert problem.startswith("the Parquet file is cut or damaged: ")


def test_a_changed_byte() -> None:
    data = bytearray(table_of(rows()))
    chunk = pq.read_metadata(io.BytesIO(data)).row_group(0).column(8)
    data[chunk.data_page_offset + chunk.total_compressed_size - 1] ^= 1
    (problem,) = table_problems(bytes(data), entry_of(), VOCABULARY)
    assert problem.startswith("the Parquet file is cut or damaged: ")
