"""The masks of an output's files, image by image, for ``Figures``; of a table only the columns that are counted."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.stats.figures import ViewMasks
from samtok_data.mask_table import batches, code_columns
from samtok_data.shards import read_shard
from samtok_data.storage import Folder
from samtok_data.words import MaskVocabulary

if TYPE_CHECKING:
    import pyarrow as pa

_COLUMNS = ("scene", "height", "width", "counts", "area", "r_iou")


def table_images(file: IO[bytes], vocabulary: MaskVocabulary) -> Iterator[list[ViewMasks]]:
    """The images of a table, whose rows stand together. Memory: a batch of rows, and the rows of one image.

    Raises:
        ValueError: the file is damaged or lacks a column.
    """
    parts: list[ViewMasks] = []
    current: str | None = None
    for batch in batches(file, [*_COLUMNS, *code_columns(vocabulary)]):
        scenes = batch["scene"].to_pylist()
        rows = _rows(batch, vocabulary)
        changes = (row for row in range(1, len(scenes)) if scenes[row] != scenes[row - 1])
        for start, end in itertools.pairwise([0, *changes, len(scenes)]):
            if parts and scenes[start] != current:
                yield [_joined(parts)]
                parts = []
            current = scenes[start]
            parts.append(_some(rows, start, end))
    if parts:
        yield [_joined(parts)]


def shard_images(folder: Folder, name: str, vocabulary: MaskVocabulary) -> Iterator[list[ViewMasks]]:
    """The images of a shard that have a mask. Memory: the shard.

    A mask counts once for each view, however many sentences name it. Samples of an image need not stand together.

    Raises:
        ValueError: the shard is damaged.
    """
    found: dict[str, dict[str, dict[str, Mapping[str, Any]]]] = {}
    try:
        for sample in read_shard(folder, name):
            for mask in sample.record["masks"]:
                views = found.setdefault(sample.record["image"][0], {})
                views.setdefault(mask["view"], {})[mask["region"]] = mask
        for views in found.values():
            yield [_of_records(list(masks.values()), vocabulary) for masks in views.values()]
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"a record is damaged: {error!r}") from error


def _of_records(masks: list[Mapping[str, Any]], vocabulary: MaskVocabulary) -> ViewMasks:
    sizes_n2 = np.array([mask["rle"]["size"] for mask in masks], np.int64)
    ious = [np.nan if mask["iou"] is None else mask["iou"] for mask in masks]
    return ViewMasks(
        [mask["rle"]["counts"] for mask in masks],
        np.array([mask["codes"] for mask in masks], np.int64).reshape(len(masks), vocabulary.depth),
        np.array([mask["area"] for mask in masks], np.int64),
        sizes_n2[:, 0] * sizes_n2[:, 1],
        np.array(ious, np.float64),
    )


def _rows(batch: pa.RecordBatch, vocabulary: MaskVocabulary) -> ViewMasks:
    codes = [_numbers(batch, name) for name in code_columns(vocabulary)]
    return ViewMasks(
        batch["counts"].to_pylist(),
        np.stack(codes, axis=1),
        _numbers(batch, "area"),
        _numbers(batch, "height") * _numbers(batch, "width"),
        batch["r_iou"].to_numpy(zero_copy_only=False).astype(np.float64),  # null becomes NaN
    )


def _numbers(batch: pa.RecordBatch, name: str) -> NDArray[np.int64]:
    return batch[name].to_numpy().astype(np.int64)


def _some(rows: ViewMasks, start: int, end: int) -> ViewMasks:
    return ViewMasks(
        rows.identities[start:end],
        rows.codes_nL[start:end],
        rows.areas_n[start:end],
        rows.pixels_n[start:end],
        rows.ious_n[start:end],
    )


def _joined(parts: list[ViewMasks]) -> ViewMasks:
    if len(parts) == 1:
        return parts[0]
    return ViewMasks(
        [identity for part in parts for identity in part.identities],
        np.concatenate([part.codes_nL for part in parts]),
        np.concatenate([part.areas_n for part in parts]),
        np.concatenate([part.pixels_n for part in parts]),
        np.concatenate([part.ious_n for part in parts]),
    )
