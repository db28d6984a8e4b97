"""One unit of dialogues, from its records to a finished shard. Knows nothing of Ray.

records --Converter.scenes--> Scenes --threads: image, views, masks--> batches --a thread: network--> samples --> shard
                rejects <--------+-------------------+
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from PIL import Image

from converters.dialogues.source import Converter, Payload, Suffix
from pipelines.images import ahead, batches, beside, image_bytes, load_image
from pipelines.work import Job, Tokenizer, codes_of
from samtok_data.errors import RecordError
from samtok_data.masks import RLE
from samtok_data.outputs import SplitOutput, UnitEntry
from samtok_data.rejects import Reject
from samtok_data.samples import Sample, TokenizedMask, build_sample
from samtok_data.scenes import Dialogue, MaskRef, Scene
from samtok_data.shards import pack
from samtok_data.storage import Folder
from samtok_data.words import MaskVocabulary

THREADS = 4  # of which most time is spent outside of Python, in decoding and resizing
SCENES_AHEAD = 16
# Scenes that are tokenised together. A constant: the batch decides the rounding of the last bits, and with
# it, rarely, a code; so it must not depend on memory, timing or the number of workers.
SCENES_PER_BATCH = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class DialogueUnits:
    """What is the same for every unit of a split.

    Attributes:
        converter: turns records into Scenes.
        images_root: folder that ``Scene.image`` is relative to.
        output: the split's folder.
        images: ``embed`` or ``reference``.
        measure_iou: whether to decode every word again.
        tokenizer: name and weights, for the manifest.
        run: digest of the run's fingerprint.
    """

    converter: Converter
    images_root: Folder
    output: SplitOutput
    images: Literal["embed", "reference"]
    measure_iou: bool
    tokenizer: Mapping[str, str]
    run: str

    def run_job(self, job: Job, tokenizer: Tokenizer) -> UnitEntry:
        """As ``UnitWork.run_job``."""
        return run_unit(job.index, job.payload, self, tokenizer, records=job.records)


def run_unit(index: int, payload: Payload, settings: DialogueUnits, tokenizer: Tokenizer, *, records: int) -> UnitEntry:
    """Tokenises a unit and writes its shard, rejects and manifest entry.

    Args:
        index: of the unit in its split.
        payload: its records.
        settings: of the split.
        tokenizer: makes the words.
        records: that the payload holds, by the plan.

    Raises:
        SetupError: an image cannot be read for another reason than its own, or the output cannot be written.
        RuntimeError: samples and rejects are not ``records`` together; nothing is written.
    """
    samples: list[Sample] = []
    rejects: list[Reject] = []
    num_images = num_masks = 0
    scenes = _set_aside(settings.converter.scenes(payload), rejects)
    suffix = settings.converter.info.image_suffix
    is_embedded = settings.images == "embed"
    prepare = partial(
        _prepare, folder=settings.images_root, suffix=suffix, tokenizer=tokenizer, is_embedded=is_embedded
    )
    prepared = _usable(ahead(prepare, scenes, threads=THREADS, limit=SCENES_AHEAD), rejects)
    tokenize = partial(_tokenize, tokenizer=tokenizer, measure_iou=settings.measure_iou)
    for batch in beside(tokenize, batches(prepared, SCENES_PER_BATCH)):
        for scene, tokenized in batch:
            num_images += 1
            num_masks += len(tokenized)
            samples += _samples(scene, tokenized, settings.output, tokenizer.vocabulary)
    if len(samples) + len(rejects) != records:
        raise RuntimeError(f"unit {index}: {len(samples)} samples and {len(rejects)} rejects from {records} records")
    return settings.output.commit(
        index,
        content=pack(with_masks_first(samples)) if samples else None,
        samples=len(samples),
        rejects=rejects,
        images=num_images,
        masks=num_masks,
        tokenizer=settings.tokenizer,
        run=settings.run,
    )


@dataclass(frozen=True, slots=True)
class _ViewJob:
    """What the tokenizer does for one view: the prepared picture, and the pairs in the order of its masks."""

    pairs: tuple[MaskRef, ...]
    rles: tuple[RLE, ...]
    prepared: Any


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A scene up to the network: its sound dialogues, its embedded pictures, and the rejects on the way.

    Attributes:
        members: by view, the suffix and bytes of its encoded picture; empty where images are not embedded.
    """

    scene: Scene
    dialogues: tuple[Dialogue, ...]
    members: Mapping[str, tuple[str, bytes]]
    jobs: tuple[_ViewJob, ...]
    rejects: tuple[Reject, ...]


def _set_aside(found: Iterable[Scene | Reject], rejects: list[Reject]) -> Iterator[Scene]:
    for one in found:
        if isinstance(one, Reject):
            rejects.append(one)
        else:
            yield one


def _prepare(
    scene: Scene, *, folder: Folder, suffix: Suffix, tokenizer: Tokenizer, is_embedded: bool
) -> _Prepared | list[Reject]:
    """Reads the image, cuts views and masks. Runs in a thread; only rejects where the image cannot be used."""
    try:
        image = load_image(folder, scene.image, scene.height, scene.width, suffix)
    except RecordError as error:
        size = image_bytes(folder, scene.image)
        return [_reject(error, scene, dialogue, size) for dialogue in scene.dialogues]
    views = {view.id: view for view in scene.views}
    regions = {region.id: region.rle for region in scene.regions}
    cut: dict[MaskRef, RLE] = {}
    broken: dict[MaskRef, RecordError] = {}
    for pair in scene.pairs:
        try:
            cut[pair] = views[pair.view].of_mask(regions[pair.region])
        except RecordError as error:
            broken[pair] = error
    faults = {dialogue.key: [broken[ref] for ref in dialogue.refs if ref in broken] for dialogue in scene.dialogues}
    sound = tuple(dialogue for dialogue in scene.dialogues if not faults[dialogue.key])
    used = dict.fromkeys(ref for dialogue in sound for ref in dialogue.refs)
    pictures = {view.id: view.of_image(image.picture) for view in scene.views}
    jobs = []
    for view, picture in pictures.items():
        pairs = tuple(pair for pair in used if pair.view == view)
        rles = tuple(cut[pair] for pair in pairs)
        if pairs:  # a view without masks costs no backbone pass
            jobs.append(_ViewJob(pairs, rles, tokenizer.prepare(picture, rles)))
    rejects = tuple(
        _reject(faults[dialogue.key][0], scene, dialogue, len(image.data))
        for dialogue in scene.dialogues
        if faults[dialogue.key]
    )
    shown = dict.fromkeys(view for dialogue in sound for view in dialogue.views) if is_embedded else {}
    whole = {view.id for view in scene.views if view.is_whole}
    members = {view: (image.suffix, image.data) if view in whole else ("png", _png(pictures[view])) for view in shown}
    return _Prepared(scene, sound, members, tuple(jobs), rejects)


def _usable(found: Iterable[_Prepared | list[Reject]], rejects: list[Reject]) -> Iterator[_Prepared]:
    for one in found:
        if isinstance(one, list):
            rejects += one
        else:
            rejects += one.rejects
            if one.dialogues:
                yield one


def _reject(error: RecordError, scene: Scene, dialogue: Dialogue, size: int | None) -> Reject:
    """The size of the image file tells a later run whether the image was mended."""
    record = {"image": scene.image, "bytes": size, "record": dialogue.record}
    return Reject.of(error, dialogue.key, record)


def mended(rejects: Iterable[Reject], images_root: Folder) -> bool:
    """Whether an image that could not be used has another size by now, or is there at last."""
    sizes = {
        reject.record["image"]: reject.record["bytes"]
        for reject in rejects
        if isinstance(reject.record, Mapping) and {"image", "bytes"} <= reject.record.keys()
    }
    return any(image_bytes(images_root, name) != size for name, size in sizes.items())


def _tokenize(
    batch: Sequence[_Prepared], *, tokenizer: Tokenizer, measure_iou: bool
) -> list[tuple[_Prepared, dict[MaskRef, TokenizedMask]]]:
    """Some scenes, each with every (view, region) of it, once."""
    prepared = [job.prepared for scene in batch for job in scene.jobs]
    found = codes_of(prepared, tokenizer, measure_iou=measure_iou)
    results = []
    for scene in batch:
        tokenized: dict[MaskRef, TokenizedMask] = {}
        for job in scene.jobs:
            for pair, rle, (codes, iou) in zip(job.pairs, job.rles, next(found), strict=True):
                tokenized[pair] = TokenizedMask(codes, rle, iou)
        results.append((scene, tokenized))
    return results


def _samples(
    prepared: _Prepared,
    tokenized: Mapping[MaskRef, TokenizedMask],
    output: SplitOutput,
    vocabulary: MaskVocabulary,
) -> list[Sample]:
    return [
        build_sample(
            prepared.scene,
            dialogue,
            dataset=output.dataset,
            split=output.split,
            tokenized=tokenized,
            vocabulary=vocabulary,
            images=_members(prepared, dialogue) if prepared.members else {},
        )
        for dialogue in prepared.dialogues
    ]


def _members(prepared: _Prepared, dialogue: Dialogue) -> dict[str, bytes]:
    """Encoded pictures by member suffix: the whole image as it is on disk, a crop as PNG (lossless)."""
    members: dict[str, bytes] = {}
    for place, view in enumerate(dialogue.views):
        suffix, data = prepared.members[view]
        members[f"{place}.{suffix}" if place else suffix] = data
    return members


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def with_masks_first(samples: Sequence[Sample]) -> list[Sample]:
    """The samples in order, except that the first one with a mask leads.

    HF datasets takes the type of ``masks`` from a tar's first five samples; were all of them without a
    target, it would refuse every later mask (docs/design.md, "The shard").
    """
    ordered = list(samples)
    lead = next((place for place, sample in enumerate(ordered) if sample.record["masks"]), 0)
    return ordered[lead : lead + 1] + ordered[:lead] + ordered[lead + 1 :]
