"""One unit, from its records to a finished shard. Knows nothing of Ray."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from converters.source import Converter, Payload
from pipelines.images import LoadedImage, load_ahead
from samtok_data import masks
from samtok_data.errors import RecordError
from samtok_data.masks import RLE, Mask
from samtok_data.outputs import SplitOutput, UnitEntry
from samtok_data.rejects import Reject
from samtok_data.samples import Sample, TokenizedMask, build_sample
from samtok_data.scenes import Dialogue, MaskRef, Scene
from samtok_data.storage import Folder
from samtok_data.words import MaskVocabulary

IMAGE_THREADS = 4
IMAGES_AHEAD = 16
# Scenes that are tokenised together. A constant: the batch decides the rounding of the last bits, and with
# it, rarely, a code; so it must not depend on memory, timing or the number of workers.
SCENES_PER_BATCH = 8


class Tokenizer(Protocol):
    """What a unit needs of ``tokenizer_model.MaskTokenizer``."""

    @property
    def vocabulary(self) -> MaskVocabulary:
        """The spelling of its words."""
        ...

    def encode(self, images: Sequence[Image.Image], regions: Sequence[Sequence[RLE]]) -> Sequence[NDArray[np.int64]]:
        """Codes (regions, depth) of every image's regions."""
        ...

    def decode(self, images: Sequence[Image.Image], codes: Sequence[NDArray[np.int64]]) -> Sequence[NDArray[np.bool_]]:
        """Masks (regions, height, width) of every image's codes."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitSettings:
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


def run_unit(index: int, payload: Payload, settings: UnitSettings, tokenizer: Tokenizer) -> UnitEntry:
    """Tokenises a unit and writes its shard, rejects and manifest entry.

    Raises:
        SetupError: the output cannot be written.
    """
    samples: list[Sample] = []
    rejects: list[Reject] = []
    num_images = num_masks = 0
    scenes = _set_aside(settings.converter.scenes(payload), rejects)
    loaded = load_ahead(settings.images_root, scenes, threads=IMAGE_THREADS, ahead=IMAGES_AHEAD)
    for batch in _batches(_views(loaded, rejects), SCENES_PER_BATCH):
        tokenized = _tokenize(batch, tokenizer, measure_iou=settings.measure_iou)
        for prepared, words in zip(batch, tokenized, strict=True):
            num_images += 1
            num_masks += len(words)
            samples += (_sample(prepared, dialogue, words, settings, tokenizer) for dialogue in prepared.dialogues)
    return settings.output.commit(
        index,
        samples=with_masks_first(samples),
        rejects=rejects,
        images=num_images,
        masks=num_masks,
        tokenizer=settings.tokenizer,
        run=settings.run,
    )


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A scene whose image is decoded and whose views are cut."""

    scene: Scene
    dialogues: tuple[Dialogue, ...]
    image: LoadedImage
    pictures: dict[str, Image.Image]
    pairs: dict[MaskRef, RLE]


def _set_aside(found: Iterable[Scene | Reject], rejects: list[Reject]) -> Iterator[Scene]:
    for one in found:
        if isinstance(one, Reject):
            rejects.append(one)
        else:
            yield one


def _views(loaded: Iterable[tuple[Scene, LoadedImage | RecordError]], rejects: list[Reject]) -> Iterator[_Prepared]:
    for scene, image in loaded:
        if isinstance(image, RecordError):
            rejects += (_reject(image, scene, dialogue) for dialogue in scene.dialogues)
            continue
        views = {view.id: view for view in scene.views}
        regions = {region.id: region.rle for region in scene.regions}
        pairs: dict[MaskRef, RLE] = {}
        broken: dict[MaskRef, RecordError] = {}
        for pair in scene.pairs:
            try:
                pairs[pair] = views[pair.view].of_mask(regions[pair.region])
            except RecordError as error:
                broken[pair] = error
        whole = []
        for dialogue in scene.dialogues:
            faults = [broken[ref] for ref in dialogue.refs if ref in broken]
            if faults:
                rejects.append(_reject(faults[0], scene, dialogue))
            else:
                whole.append(dialogue)
        if whole:
            used = {ref: rle for ref, rle in pairs.items() if any(ref in dialogue.refs for dialogue in whole)}
            pictures = {view.id: view.of_image(image.picture) for view in scene.views}
            yield _Prepared(scene, tuple(whole), image, pictures, used)


def _reject(error: RecordError, scene: Scene, dialogue: Dialogue) -> Reject:
    return Reject.of(error, dialogue.key, {"scene": scene.id, "image": scene.image, "dialogue": dialogue.key})


def _batches(items: Iterable[_Prepared], size: int) -> Iterator[list[_Prepared]]:
    batch: list[_Prepared] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _tokenize(
    batch: Sequence[_Prepared], tokenizer: Tokenizer, *, measure_iou: bool
) -> list[dict[MaskRef, TokenizedMask]]:
    """Every (view, region) of some scenes, each once; a view without regions costs no backbone pass."""
    jobs = [
        (number, picture, [pair for pair in prepared.pairs if pair.view == view])
        for number, prepared in enumerate(batch)
        for view, picture in prepared.pictures.items()
    ]
    jobs = [job for job in jobs if job[2]]
    pictures = [picture for _, picture, _ in jobs]
    rles = [[batch[number].pairs[pair] for pair in pairs] for number, _, pairs in jobs]
    codes = tokenizer.encode(pictures, rles)
    decoded = tokenizer.decode(pictures, codes) if measure_iou else [None] * len(jobs)
    results: list[dict[MaskRef, TokenizedMask]] = [{} for _ in batch]
    for (number, _, pairs), rles_of, codes_of, masks_of in zip(jobs, rles, codes, decoded, strict=True):
        for place, (pair, rle) in enumerate(zip(pairs, rles_of, strict=True)):
            iou = None if masks_of is None else round(intersection_over_union(masks.decode(rle), masks_of[place]), 4)
            results[number][pair] = TokenizedMask(tuple(int(code) for code in codes_of[place]), rle, iou)
    return results


def intersection_over_union(mask_HW: Mask, other_HW: Mask) -> float:
    """IoU of two masks of one size, at least one of them not empty."""
    united = np.logical_or(mask_HW, other_HW).sum()
    return float(np.logical_and(mask_HW, other_HW).sum() / united)


def _sample(
    prepared: _Prepared,
    dialogue: Dialogue,
    words: Mapping[MaskRef, TokenizedMask],
    settings: UnitSettings,
    tokenizer: Tokenizer,
) -> Sample:
    return build_sample(
        prepared.scene,
        dialogue,
        dataset=settings.output.dataset,
        split=settings.output.split,
        tokenized=words,
        vocabulary=tokenizer.vocabulary,
        images=_members(prepared, dialogue) if settings.images == "embed" else {},
    )


def _members(prepared: _Prepared, dialogue: Dialogue) -> dict[str, bytes]:
    """Encoded pictures by member suffix: the whole image as it is on disk, a crop as PNG (lossless)."""
    whole = {view.id for view in prepared.scene.views if view.is_whole}
    members: dict[str, bytes] = {}
    for place, view in enumerate(dialogue.views):
        prefix = f"{place}." if place else ""
        if view in whole:
            members[prefix + prepared.image.suffix] = prepared.image.data
        else:
            buffer = io.BytesIO()
            prepared.pictures[view].save(buffer, "PNG")
            members[f"{prefix}png"] = buffer.getvalue()
    return members


def with_masks_first(samples: Sequence[Sample]) -> list[Sample]:
    """The samples in order, except that the first one with a mask leads.

    HF datasets takes the type of ``masks`` from a tar's first five samples; were all of them without a
    target, it would refuse every later mask (docs/design.md, "The shard").
    """
    ordered = list(samples)
    lead = next((place for place, sample in enumerate(ordered) if sample.record["masks"]), 0)
    return ordered[lead : lead + 1] + ordered[:lead] + ordered[lead + 1 :]
