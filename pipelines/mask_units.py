"""One unit of a mask source, from its files to a finished table. Knows nothing of Ray.

records --PortableSource.read_record--> MaskedImages --threads: picture, prompts--> batches --tokenizer--> rows
                rejects <--------------------+----------------+                                       table <---+
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from converters.masks.source import MaskedImage, PortableSource
from pipelines.images import ahead, batches
from pipelines.work import Job, Tokenizer
from samtok_data import masks
from samtok_data.errors import RecordError
from samtok_data.mask_table import MaskRow, MaskTableWriter
from samtok_data.masks import RLE
from samtok_data.outputs import SplitOutput, UnitEntry
from samtok_data.rejects import Reject

THREADS = 4
IMAGES_AHEAD = 16
# Constants, for the batch decides the rounding of the last bits and with it, rarely, a code.
IMAGES_PER_BATCH = 8
# Masks of an image that are tokenised together: an image of SA-1B may have hundreds, and decoded they are large.
MASKS_AT_ONCE = 128
# Pixels of decoded masks, a byte each, that are held at once where they are measured. Depends on the images alone, too.
PIXELS_AT_ONCE = 1 << 28


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskUnits:
    """What is the same for every unit of a mask source.

    Attributes:
        source: reads the units.
        output: its folder.
        limit: at most so many images of a unit; None: all.
        measure_iou: whether to decode every word again.
        tokenizer: name and weights, for the manifest.
        run: digest of the run's fingerprint.
    """

    source: PortableSource
    output: SplitOutput
    limit: int | None
    measure_iou: bool
    tokenizer: Mapping[str, str]
    run: str

    def run_job(self, job: Job, tokenizer: Tokenizer) -> UnitEntry:
        """Tokenises a unit and writes its table, rejects and manifest entry.

        Args:
            job: its payload is {"records": what each part of the unit is read from, "origin": see ``UnitEntry``}.
            tokenizer: makes the words.

        Raises:
            SetupError: a file cannot be read for another reason than its own, or the output cannot be written.
        """
        rejects: list[Reject] = []
        writer = MaskTableWriter(tokenizer.vocabulary, self.tokenizer)
        images = 0
        found = _set_aside(self._read(job.payload["records"]), rejects)
        chosen = found if self.limit is None else itertools.islice(found, self.limit)
        prepared = ahead(partial(_prepare, tokenizer=tokenizer), chosen, threads=THREADS, limit=IMAGES_AHEAD)
        for batch in batches(_usable(prepared, rejects), IMAGES_PER_BATCH):
            for rows in _rows(batch, tokenizer, self.source.name, self.measure_iou):
                images += 1
                writer.add(rows)
        return self.output.commit(
            job.index,
            content=writer.finish(),
            samples=writer.num_rows,
            rejects=rejects,
            images=images,
            masks=writer.num_rows,
            tokenizer=self.tokenizer,
            run=self.run,
            origin=job.payload["origin"],
        )

    def _read(self, records: Sequence[Any]) -> Iterator[MaskedImage | Reject]:
        for record in records:
            yield from self.source.read_record(record)


# Some masks of an image, with the tokenizer's own input.
_Part = tuple[tuple[RLE, ...], Any]
# Codes of a mask, and its IoU where that is measured.
_Found = tuple[tuple[int, ...], float | None]


@dataclass(frozen=True, slots=True)
class _Prepared:
    """An image up to the network: its masks in runs of ``MASKS_AT_ONCE``."""

    image: MaskedImage
    parts: tuple[_Part, ...]


def _set_aside(found: Iterable[MaskedImage | Reject], rejects: list[Reject]) -> Iterator[MaskedImage]:
    """The images; a second one of a scene's id, as an id 1 beside an id "1" gives, would make rows that nobody can tell
    apart."""
    scenes: set[str] = set()
    for one in found:
        if isinstance(one, Reject):
            rejects.append(one)
        elif one.scene.id in scenes:
            twice = RecordError("record-duplicate", f"{one.scene.image}: a second image of the id {one.scene.id}")
            rejects.append(Reject.of(twice, one.scene.id, _place_of(one)))
        else:
            scenes.add(one.scene.id)
            yield one


def _place_of(image: MaskedImage) -> dict[str, Any]:
    """What finds an image and its masks in the source, for rejects."""
    scene = image.scene
    return {"image": scene.image, "archive": image.archive, "frame": image.frame, "masks": len(scene.regions)}


def _prepare(image: MaskedImage, *, tokenizer: Tokenizer) -> _Prepared | Reject:
    """Decodes the picture. Runs in a thread; one reject for all masks of a picture that cannot be used."""
    try:
        picture = image.open()
    except RecordError as error:
        return Reject.of(error, image.scene.id, _place_of(image))
    rles = [region.rle for region in image.scene.regions]
    runs = [tuple(rles[start : start + MASKS_AT_ONCE]) for start in range(0, len(rles), MASKS_AT_ONCE)]
    return _Prepared(image, tuple((run, tokenizer.prepare(picture, run)) for run in runs))


def _usable(found: Iterable[_Prepared | Reject], rejects: list[Reject]) -> Iterator[_Prepared]:
    for one in found:
        if isinstance(one, Reject):
            rejects.append(one)
        else:
            yield one


def _rows(batch: Sequence[_Prepared], tokenizer: Tokenizer, source: str, measure_iou: bool) -> Iterator[list[MaskRow]]:
    """The rows of each image of a batch."""
    found = _measured(batch, tokenizer) if measure_iou else _encoded(batch, tokenizer)
    for one in batch:
        scene = one.image.scene
        yield [
            MaskRow(
                source=source,
                image=scene.image,
                scene=scene.id,
                region=region.id,
                rle=region.rle,
                codes=codes,
                archive=one.image.archive,
                frame=one.image.frame,
                iou=iou,
            )
            for region, (codes, iou) in zip(scene.regions, itertools.islice(found, len(scene.regions)), strict=True)
        ]


def _encoded(batch: Sequence[_Prepared], tokenizer: Tokenizer) -> Iterator[_Found]:
    """Codes of every mask of a batch."""
    for codes_nL in tokenizer.encode_prepared([prepared for one in batch for _, prepared in one.parts]):
        yield from ((tuple(codes), None) for codes in codes_nL.tolist())


def _measured(batch: Sequence[_Prepared], tokenizer: Tokenizer) -> Iterator[_Found]:
    """The same, with the IoU of every mask and what its word decodes to. Decoded masks are as large as the image."""
    for group in _groups([part for one in batch for part in one.parts]):
        codes, decoded = tokenizer.reconstruct_prepared([prepared for _, prepared in group])
        for (rles, _), codes_nL, masks_nHW in zip(group, codes, decoded, strict=True):
            for rle, of_mask, mask_HW in zip(rles, codes_nL.tolist(), masks_nHW, strict=True):
                # Rounded, so that the table's bytes do not carry noise of the last digits.
                yield tuple(of_mask), round(masks.intersection_over_union(masks.decode(rle), mask_HW), 4)


def _groups(parts: Sequence[_Part]) -> Iterator[list[_Part]]:
    """Neighbours, as many as ``PIXELS_AT_ONCE`` allows, at least one."""
    group: list[_Part] = []
    pixels = 0
    for part in parts:
        own = sum(rle.height * rle.width for rle in part[0])
        if group and pixels + own > PIXELS_AT_ONCE:
            yield group
            group, pixels = [], 0
        group.append(part)
        pixels += own
    if group:
        yield group
