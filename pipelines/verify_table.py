"""What ``samtok-data verify`` checks in a table of masks (``samtok_data.mask_table``)."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from samtok_data.many_masks import areas, coco_boxes, sound
from samtok_data.mask_table import (
    BATCH_ROWS,
    TOKENIZER_DIGITS,
    TableIdentity,
    code_columns,
    open_table,
    table_schema,
)
from samtok_data.outputs import UnitEntry
from samtok_data.words import MaskVocabulary

if TYPE_CHECKING:
    import pyarrow as pa

_OF_SCENE = ("source", "image", "archive", "frame", "height", "width")


def table_problems(
    data: bytes, entry: UnitEntry, vocabulary: MaskVocabulary, scenes: set[str] | None = None
) -> Iterator[str]:
    """What is wrong with a unit's table; a fault of many rows is one sentence, with the first of them.

    Args:
        data: the file's bytes.
        entry: the unit's.
        vocabulary: of the run.
        scenes: the ids of the table's scenes are added to it.

    Raises:
        SetupError: pyarrow is not installed.
    """
    rows = _Rows(vocabulary, set() if scenes is None else scenes)
    try:
        with open_table(io.BytesIO(data)) as table:
            identity = TableIdentity.of(table.schema_arrow)
            wrong = list(_identity_problems(identity, entry, vocabulary))
            wrong += _schema_problems(table.schema_arrow, table_schema(identity))
            yield from wrong
            if wrong:
                return
            rows.tokenizer = identity.tokenizer["sha256"][:TOKENIZER_DIGITS]
            for batch in table.iter_batches(BATCH_ROWS, use_threads=False):
                rows.add(batch)
    except ValueError as error:
        yield from rows.problems()
        yield str(error)
        return
    yield from rows.problems()
    if rows.number != entry.masks:
        yield f"{entry.masks:,} masks in the manifest, {rows.number:,} rows in the table"


def _identity_problems(identity: TableIdentity, entry: UnitEntry, vocabulary: MaskVocabulary) -> Iterator[str]:
    if identity.vocabulary != vocabulary:
        found = f"{identity.vocabulary.depth} codes of {identity.vocabulary.codebook_size}"
        yield f"its words have {found}, the run's {vocabulary.depth} codes of {vocabulary.codebook_size}"
    if any(entry.tokenizer.get(name) != value for name, value in identity.tokenizer.items()):
        yield f"it was made by the tokenizer {dict(identity.tokenizer)}, the manifest says {dict(entry.tokenizer)}"


def _schema_problems(found: pa.Schema, expected: pa.Schema) -> Iterator[str]:
    if found.names != expected.names:
        yield f"expected the columns {', '.join(expected.names)}, got {', '.join(found.names)}"
        return
    for is_field, expected_field in zip(found, expected, strict=True):
        if not is_field.equals(expected_field):
            yield f"column {expected_field.name}: expected {_kind(expected_field)}, got {_kind(is_field)}"


def _kind(field: pa.Field) -> str:
    return f"{field.type}{'' if field.nullable else ' not null'}"


class _Rows:
    """Checks the rows of one table, batch by batch. Memory: the scenes' ids and one sentence for each kind of fault."""

    def __init__(self, vocabulary: MaskVocabulary, scenes: set[str]) -> None:
        self.number = 0
        self.tokenizer = ""
        self._vocabulary = vocabulary
        self._found: dict[str, tuple[str, int]] = {}  # of each kind of fault its first row, and how many there are
        self._scenes = scenes
        self._regions: set[str] = set()
        self._scene: str | None = None
        self._picture: tuple[Any, ...] = ()

    def problems(self) -> Iterator[str]:
        """One sentence for each kind of fault that was found."""
        for kind, (first, number) in self._found.items():
            yield f"{first}: {kind}" + (f" (and so in {number - 1:,} more rows)" if number > 1 else "")

    def add(self, batch: pa.RecordBatch) -> None:
        """Checks some rows, which follow those before."""
        scenes, regions = batch["scene"].to_pylist(), batch["region"].to_pylist()
        labels = [f"scene {scene}, region {region}" for scene, region in zip(scenes, regions, strict=True)]
        self._check_places(batch, scenes, regions, labels)
        self._check_words(batch, labels)
        self._check_masks(batch, labels)
        given_n = batch["r_iou"].is_valid().to_numpy(zero_copy_only=False)
        ious_n = batch["r_iou"].fill_null(0.0).to_numpy()
        self._note("r_iou is not in 0..1", given_n & ~((ious_n >= 0) & (ious_n <= 1)), labels)
        makers = np.array(batch["tokenizer"].to_pylist()) != self.tokenizer
        self._note("tokenizer is not the one of the file's metadata", makers, labels)
        self.number += batch.num_rows

    def _note(self, kind: str, wrong_n: NDArray[np.bool_], labels: list[str]) -> None:
        number = int(wrong_n.sum())
        if number:
            first, before = self._found.get(kind, (labels[int(wrong_n.argmax())], 0))
            self._found[kind] = (first, before + number)

    def _check_places(self, batch: pa.RecordBatch, scenes: list[str], regions: list[str], labels: list[str]) -> None:
        again_n, twice_n, other_n = np.zeros((3, batch.num_rows), np.bool_)
        pictures = list(zip(*(batch[name].to_pylist() for name in _OF_SCENE), strict=True))
        for row, (scene, region) in enumerate(zip(scenes, regions, strict=True)):
            if scene != self._scene:
                again_n[row] = scene in self._scenes
                self._scenes.add(scene)
                self._scene, self._regions, self._picture = scene, set(), pictures[row]
            twice_n[row] = region in self._regions
            self._regions.add(region)
            other_n[row] = pictures[row] != self._picture
        self._note("its scene stood further up already", again_n, labels)
        self._note("it stands twice in its scene", twice_n, labels)
        self._note(f"{', '.join(_OF_SCENE)} are not those of its scene's first row", other_n, labels)

    def _check_words(self, batch: pa.RecordBatch, labels: list[str]) -> None:
        vocabulary = self._vocabulary
        codes_nL = np.stack([batch[name].to_numpy() for name in code_columns(vocabulary)], axis=1)
        known_n: NDArray[np.bool_] = np.all((codes_nL >= 0) & (codes_nL < vocabulary.codebook_size), axis=1)
        self._note(f"a code is not in 0..{vocabulary.codebook_size - 1}", ~known_n, labels)
        words = batch["word"].to_pylist()
        spelt_n = np.array([
            not known or vocabulary.format(codes) == word
            for known, codes, word in zip(known_n.tolist(), codes_nL.tolist(), words, strict=True)
        ])
        self._note("word does not spell the codes", ~spelt_n, labels)

    def _check_masks(self, batch: pa.RecordBatch, labels: list[str]) -> None:
        heights_n, widths_n = batch["height"].to_numpy(), batch["width"].to_numpy()
        strings = batch["counts"].to_pylist()
        sized_n = (heights_n > 0) & (widths_n > 0)
        pixels_n = np.where(sized_n, heights_n.astype(np.int64) * widths_n, 0)
        sound_n = sound(strings, pixels_n)
        self._note("counts are no RLE of height times width pixels", ~sound_n, labels)
        rows = np.flatnonzero(sound_n)
        encoded = [{"size": [int(heights_n[row]), int(widths_n[row])], "counts": strings[row]} for row in rows]
        wrong_n, empty_n = np.zeros((2, batch.num_rows), np.bool_)
        boxes_n4 = batch["box"].flatten().to_numpy().reshape(-1, 4)
        areas_n = areas(encoded)
        wrong_n[rows] = (areas_n != batch["area"].to_numpy()[rows]) | (coco_boxes(encoded) != boxes_n4[rows]).any(
            axis=1
        )
        empty_n[rows] = areas_n == 0
        self._note("area or box are not the RLE's", wrong_n, labels)
        self._note("the mask has no pixel", empty_n, labels)
