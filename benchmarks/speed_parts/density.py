"""Files to files at the density of a dataset, beside the published way on the same files with the same weights."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.speed_parts.command import Ran, RunSettings, output_bytes, run_command
from benchmarks.speed_parts.data import Data, make, read


@contextmanager
def data_at(root: Path | None, data: Data) -> Iterator[tuple[Data, Path, Path]]:
    """A made dataset with a folder for outputs that goes afterwards, and goes itself where it is made here.

    Args:
        root: of a dataset that ``make`` wrote before, or an empty place for it; None: a temporary folder.
        data: what to make where nothing is there.
    """
    with tempfile.TemporaryDirectory(dir=root.parent if root is not None else None) as name:
        place = root if root is not None else Path(name) / "data"
        if not place.exists():
            make(data, place)
        yield read(place), place, Path(name)


def files_to_files(data: Data, root: Path, folder: Path, settings: RunSettings) -> tuple[dict[str, Any], Ran]:
    """One run of the command, and what is to be said of it; what it wrote is deleted.

    Args:
        data: the dataset.
        root: where it lies.
        folder: for the output.
        settings: of the command.
    """
    out = folder / "out"
    try:
        ran = run_command(data, root, out, settings)
        figures = {
            "kind": data.kind,
            "height": data.height,
            "width": data.width,
            "masks_per_image": round(ran.masks / max(ran.images, 1), 2),
            "tokenizer": settings.tokenizer,
            "precision": settings.precision,
            **ran.figures(),
            # Made files have no faults: any is the reader's own.
            "rejects": sum(number for split in ran.summary["splits"].values() for number in split["rejects"].values()),
            "encoder_busy_percent": _encoder_busy(ran.summary.get("encoders") or []),
            "output_mib": round(output_bytes(out) / 2**20),
        }
    finally:
        shutil.rmtree(out, ignore_errors=True)
    return figures, ran


def _encoder_busy(encoders: Sequence[dict[str, float]]) -> float | None:
    """Of the seconds between an encoder's first call and its last, how many it worked on at least one."""
    seconds = sum(one["busy_s"] + one["idle_s"] for one in encoders)
    return round(100 * sum(one["busy_s"] for one in encoders) / seconds, 1) if seconds else None


def against_published(
    figures: dict[str, Any], data: Data, root: Path, settings: RunSettings, *, device: str, seconds: float
) -> dict[str, Any]:
    """The published way on the same files, and how often faster the run was: over its tokenising time.

    Args:
        figures: of the run, from ``files_to_files``.
        data: the dataset.
        root: where it lies.
        settings: of the run; the weights are the same.
        device: of the published way.
        seconds: for each batch size.
    """
    from benchmarks.speed_parts import published

    way = published.open_published(settings.tokenizer, device)
    rows: Sequence[dict[str, Any]] = published.measure(way, lambda: published.named_masks(data, root), seconds)
    passes = data.mask_passes if settings.masks_per_image is None else settings.masks_per_image
    for row in rows:
        row["images_per_second"] = row["masks_per_second"] / passes
        row["times_faster"] = figures["images_per_second"] / row["images_per_second"]
    return {"mask_passes_per_image": passes, "ways": rows, "times_faster": rows[0]["times_faster"]}
