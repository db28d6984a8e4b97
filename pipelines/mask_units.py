"""One unit of a mask source, from its files to a finished table. Knows nothing of Ray.

records --PortableSource.read_record--> MaskedImages --threads: picture, masks--> batches --a thread: network--> rows
                rejects <--------------------+----------------+                                            table <---+
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from converters.masks.source import MaskedImage, PortableSource
from pipelines.images import ahead, batches, beside
from pipelines.work import Job, Tokenizer, codes_of
from samtok_data.errors import RecordError
from samtok_data.mask_table import MaskRow, MaskTableWriter
from samtok_data.outputs import SplitOutput, UnitEntry
from samtok_data.rejects import Reject

THREADS = 4  # of which most time is spent outside of Python, in decoding and resizing
IMAGES_AHEAD = 16
# A constant, for the batch decides the rounding of the last bits and with it, rarely, a code.
IMAGES_PER_BATCH = 8


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
        tokenize = partial(_tokenize, tokenizer=tokenizer, measure_iou=self.measure_iou)
        for batch in beside(tokenize, batches(_usable(prepared, rejects), IMAGES_PER_BATCH)):
            for image, found_n in batch:
                images += 1
                writer.add(_rows(image, found_n, self.source.name))
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


# Codes of each mask of an image, and its IoU where that is measured.
_Found = list[tuple[tuple[int, ...], float | None]]


@dataclass(frozen=True, slots=True)
class _Prepared:
    """An image up to the network."""

    image: MaskedImage
    prepared: Any


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
    return _Prepared(image, tokenizer.prepare(picture, [region.rle for region in image.scene.regions]))


def _usable(found: Iterable[_Prepared | Reject], rejects: list[Reject]) -> Iterator[_Prepared]:
    for one in found:
        if isinstance(one, Reject):
            rejects.append(one)
        else:
            yield one


def _tokenize(
    batch: Sequence[_Prepared], *, tokenizer: Tokenizer, measure_iou: bool
) -> list[tuple[MaskedImage, _Found]]:
    """The images of a batch, each with what is found of its masks. Pixels are let go here."""
    found = codes_of([one.prepared for one in batch], tokenizer, measure_iou=measure_iou)
    return [(one.image, of_image) for one, of_image in zip(batch, found, strict=True)]


def _rows(image: MaskedImage, found_n: _Found, source: str) -> list[MaskRow]:
    scene = image.scene
    return [
        MaskRow(
            source=source,
            image=scene.image,
            scene=scene.id,
            region=region.id,
            rle=region.rle,
            codes=codes,
            archive=image.archive,
            frame=image.frame,
            iou=iou,
        )
        for region, (codes, iou) in zip(scene.regions, found_n, strict=True)
    ]
