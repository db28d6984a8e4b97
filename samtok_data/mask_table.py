"""Tables of masks and their codes, for sources without dialogues: one Parquet file a unit, one row a mask.

    column          type                 content
    source          string               name of the mask source
    image           string               the image file, as ``Scene.image``: its name in the source's folder of images
    archive         string, null         the tar that the source is published as and ``image`` lies in; null: none
    frame           int32, null          number of the frame in the video file ``image``, from 0 on; null: no video file
    scene           string               id of the image, or of the frame; unique over the source
    region          string               id of the mask; unique in its scene
    height, width   int32                of the image, pixels
    counts          binary               the mask as COCO's compressed RLE string, ASCII: column-major, background first
    area            int64                foreground pixels
    box             4 x int32            x, y, width, height in pixels, the last one included (``masks.coco_box``)
    code_0, ...     int16 or int32       one column a level, 0 .. codebook_size - 1; int32 where int16 is too small
    word            string               the codes as ``MaskVocabulary.format`` spells them
    r_iou           float32, null        IoU of the mask with what its word decodes to, 0..1; null: not measured
    tokenizer       string               first 16 hex digits of the sha256 of the tokenizer's weights

All pixels are those of the stored image: (0, 0) top left, EXIF orientation not applied. Masks are not empty. ``area``
and ``box`` are computed from ``counts``, never taken from an annotation. Rows of a scene stand together. The file's
key-value metadata holds, under ``samtok``, JSON with ``format``, ``tokenizer`` (name, sha256) and ``vocabulary``
(codebook_size, depth).

Same rows, same bytes: row groups have a fixed number of rows however rows were handed in, and no time is written. They
are promised for one version of pyarrow, whose name stands in the file. Pages carry checksums.

Memory while writing: the compressed file, one row group of Python rows and one of columns. Measured with RLEs of 206
bytes: 111 MiB for 100,000 rows, 202 MiB for 1,100,000, of which the file has 9 and 103; 29 microseconds a row.
Source of the format: parquet.apache.org/docs/file-format.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from samtok_data.errors import SetupError
from samtok_data.many_masks import areas, coco_boxes
from samtok_data.masks import RLE
from samtok_data.storage import Folder
from samtok_data.words import MaskVocabulary

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

FORMAT = 1
METADATA = "samtok"
ROWS_PER_GROUP = 8192
BATCH_ROWS = 8192
TOKENIZER_DIGITS = 16
# Few values in many rows; the others differ from row to row.
_REPEATING = ("source", "image", "archive", "frame", "scene", "height", "width", "tokenizer")
_SEARCHED = (*_REPEATING, "region", "area", "r_iou")


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskRow:
    """One mask with its word. The columns of the same names say more.

    Attributes:
        source: name of the mask source.
        image: the image or video file.
        scene: id of the image or frame.
        region: id of the mask.
        rle: the mask, not empty.
        codes: one a level.
        archive: the tar that ``image`` lies in; None: none.
        frame: number of the frame; None: ``image`` is no video file.
        iou: with its own reconstruction; None where not measured.
    """

    source: str
    image: str
    scene: str
    region: str
    rle: RLE
    codes: tuple[int, ...]
    archive: str | None = None
    frame: int | None = None
    iou: float | None = None


@dataclass(frozen=True, slots=True)
class TableIdentity:
    """What a table says of itself.

    Attributes:
        vocabulary: spelling of its words.
        tokenizer: name and sha256 of the tokenizer that made them, as in the manifest.
    """

    vocabulary: MaskVocabulary
    tokenizer: Mapping[str, str]

    @classmethod
    def of(cls, schema: pa.Schema) -> TableIdentity:
        """Reads it from a file's schema.

        Raises:
            ValueError: it is not there, is damaged, or of another format.
        """
        text = (schema.metadata or {}).get(METADATA.encode())
        if text is None:
            raise ValueError(f"it is no table of masks: its metadata has no {METADATA!r}")
        try:
            fields = json.loads(text)
            if fields["format"] != FORMAT:
                raise ValueError(f"format {fields['format']!r}, expected {FORMAT}")
            vocabulary = MaskVocabulary(int(fields["vocabulary"]["codebook_size"]), int(fields["vocabulary"]["depth"]))
            return cls(vocabulary, {name: str(fields["tokenizer"][name]) for name in ("name", "sha256")})
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"its metadata {METADATA!r} cannot be read: {error!r}") from error

    @property
    def json(self) -> bytes:
        """The text of the metadata."""
        vocabulary = {"codebook_size": self.vocabulary.codebook_size, "depth": self.vocabulary.depth}
        fields = {"format": FORMAT, "tokenizer": dict(self.tokenizer), "vocabulary": vocabulary}
        return json.dumps(fields, sort_keys=True).encode()


def code_columns(vocabulary: MaskVocabulary) -> list[str]:
    """Names of the columns that hold the codes, by level."""
    return [f"code_{level}" for level in range(vocabulary.depth)]


def table_schema(identity: TableIdentity) -> pa.Schema:
    """The columns that the module describes, with the file's metadata.

    Raises:
        SetupError: pyarrow is not installed.
    """
    pa = _arrow()
    text, int32 = pa.string(), pa.int32()
    code = pa.int16() if identity.vocabulary.codebook_size <= 2**15 else int32
    fields = [
        pa.field("source", text, nullable=False),
        pa.field("image", text, nullable=False),
        pa.field("archive", text),
        pa.field("frame", int32),
        pa.field("scene", text, nullable=False),
        pa.field("region", text, nullable=False),
        pa.field("height", int32, nullable=False),
        pa.field("width", int32, nullable=False),
        pa.field("counts", pa.binary(), nullable=False),
        pa.field("area", pa.int64(), nullable=False),
        pa.field("box", pa.list_(pa.field("element", int32, nullable=False), 4), nullable=False),
        *(pa.field(name, code, nullable=False) for name in code_columns(identity.vocabulary)),
        pa.field("word", text, nullable=False),
        pa.field("r_iou", pa.float32()),
        pa.field("tokenizer", text, nullable=False),
    ]
    return pa.schema(fields, {METADATA: identity.json})


class MaskTableWriter:
    """Writes one table into memory; row groups are closed as they fill.

    Args:
        vocabulary: of the tokenizer.
        tokenizer: its name and sha256, as the manifest holds them.

    Raises:
        SetupError: pyarrow is not installed.
        ValueError: the tokenizer's sha256 is not there.
    """

    def __init__(self, vocabulary: MaskVocabulary, tokenizer: Mapping[str, str]) -> None:
        if not {"name", "sha256"} <= tokenizer.keys():
            raise ValueError(f"expected name and sha256 of the tokenizer, got {sorted(tokenizer)}")
        self._identity = TableIdentity(vocabulary, {name: tokenizer[name] for name in ("name", "sha256")})
        self._schema = table_schema(self._identity)
        self._rows: list[MaskRow] = []
        self._scene: str | None = None
        self._scenes: set[str] = set()
        self._regions: set[str] = set()  # of the current scene
        self._buffer = io.BytesIO()
        self._file: Any = None
        self.num_rows = 0

    def add(self, rows: Iterable[MaskRow]) -> None:
        """Adds rows, in order; those of a scene one after the other, in one call or in several.

        Raises:
            ValueError: codes that the vocabulary does not have, an empty mask, a scene or region that stands there
                already. Nothing of the file is of use then.
        """
        for row in rows:
            self._check_place(row)
            self._rows.append(row)
            self.num_rows += 1
            if len(self._rows) == ROWS_PER_GROUP:
                self._close_group()

    def finish(self) -> bytes | None:
        """The bytes of the file; None where no row was added. Nothing can be added afterwards.

        Raises:
            ValueError: see ``add``.
        """
        if self._rows:
            self._close_group()
        if self._file is None:
            return None
        self._file.close()
        return self._buffer.getvalue()

    def _check_place(self, row: MaskRow) -> None:
        if row.scene != self._scene:
            if row.scene in self._scenes:
                raise ValueError(f"scene {row.scene} stands twice in the table")
            self._scenes.add(row.scene)
            self._scene, self._regions = row.scene, set()
        if row.region in self._regions:
            raise ValueError(f"region {row.region} stands twice in scene {row.scene}")
        self._regions.add(row.region)

    def _close_group(self) -> None:
        import pyarrow as pa

        columns = _columns(self._rows, self._identity)
        arrays = [pa.array(columns[field.name], field.type) for field in self._schema]
        if self._file is None:
            self._file = self._opened()
        self._file.write_batch(pa.record_batch(arrays, schema=self._schema), ROWS_PER_GROUP)
        self._rows.clear()

    def _opened(self) -> Any:
        from pyarrow.parquet import ParquetWriter

        codes = code_columns(self._identity.vocabulary)
        chosen: Any = {"use_dictionary": [*_REPEATING, *codes, "word"], "write_statistics": [*_SEARCHED, *codes]}
        return ParquetWriter(self._buffer, self._schema, compression="zstd", write_page_checksum=True, **chosen)


def read_table(folder: Folder, name: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of a table, in order, in batches; see ``batches``.

    Args:
        folder: of the file.
        name: of the file.
        columns: names of those to read; None: all.

    Raises:
        OSError: it could not be read.
        ValueError: the file is damaged, or lacks a column.
        SetupError: pyarrow is not installed.
    """
    with folder.open(name) as file:
        yield from batches(file, columns)


def batches(file: IO[bytes], columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of an open file, in order, in batches of at most ``BATCH_ROWS``. Raises as ``read_table`` does."""
    with open_table(file) as table:
        missing = sorted(set(columns or ()).difference(table.schema_arrow.names))
        if missing:
            raise ValueError(f"the table has no column {', '.join(missing)}")
        chosen = None if columns is None else list(columns)
        yield from table.iter_batches(BATCH_ROWS, columns=chosen, use_threads=False)


@contextmanager
def open_table(file: IO[bytes]) -> Iterator[ParquetFile]:
    """A table's Parquet file; what is found damaged inside the block is a ValueError with a sentence.

    Raises:
        OSError: the file system failed.
        ValueError: see above.
        SetupError: pyarrow is not installed.
    """
    pa = _arrow()
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(file, pre_buffer=False, page_checksum_verification=True) as table:
            yield table
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # what is damaged has no number of the system's
            raise
        raise ValueError(f"the Parquet file is cut or damaged: {error}") from error


def rows_of(batch: pa.RecordBatch, vocabulary: MaskVocabulary) -> Iterator[MaskRow]:
    """The rows of a batch with all columns."""
    codes = code_columns(vocabulary)
    for row in batch.to_pylist():
        yield MaskRow(
            source=row["source"],
            image=row["image"],
            scene=row["scene"],
            region=row["region"],
            rle=RLE(row["height"], row["width"], row["counts"].decode("ascii")),
            codes=tuple(row[name] for name in codes),
            archive=row["archive"],
            frame=row["frame"],
            iou=row["r_iou"],
        )


def _columns(rows: Sequence[MaskRow], identity: TableIdentity) -> dict[str, Any]:
    """Values of the columns by name."""
    encoded = [row.rle.coco for row in rows]
    areas_n = areas(encoded)
    if not areas_n.all():
        row = rows[int(areas_n.argmin())]
        raise ValueError(f"region {row.region} of scene {row.scene} has no pixel")
    vocabulary = identity.vocabulary
    words = [vocabulary.format(row.codes) for row in rows]  # checks the codes as well
    return {
        "source": [row.source for row in rows],
        "image": [row.image for row in rows],
        "archive": [row.archive for row in rows],
        "frame": [row.frame for row in rows],
        "scene": [row.scene for row in rows],
        "region": [row.region for row in rows],
        "height": [row.rle.height for row in rows],
        "width": [row.rle.width for row in rows],
        "counts": [one["counts"] for one in encoded],
        "area": areas_n,
        "box": coco_boxes(encoded).tolist(),
        **{name: [int(row.codes[level]) for row in rows] for level, name in enumerate(code_columns(vocabulary))},
        "word": words,
        "r_iou": [row.iou for row in rows],
        "tokenizer": [identity.tokenizer["sha256"][:TOKENIZER_DIGITS]] * len(rows),
    }


def _arrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise SetupError("pyarrow writes and reads tables; install it with: pip install 'samtok-data[run]'") from error
    return pyarrow
