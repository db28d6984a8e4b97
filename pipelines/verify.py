"""``samtok-data verify``: reads every byte of an output again and holds it against its manifest and itself."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image, UnidentifiedImageError

from samtok_data import masks
from samtok_data.errors import RecordError, SetupError
from samtok_data.masks import RLE
from samtok_data.outputs import HIDDEN, SplitOutput, Totals, UnitEntry
from samtok_data.samples import Sample, mentioned_words
from samtok_data.shards import unpack
from samtok_data.storage import Folder
from samtok_data.words import MaskVocabulary


@dataclass(slots=True)
class Verdict:
    """What was found in one split.

    Attributes:
        name: ``<dataset>/<split>``.
        totals: of the manifest's units.
        problems: one sentence each; empty where all is well.
    """

    name: str
    totals: Totals
    problems: list[str] = field(default_factory=list)


def find_outputs(out: str) -> list[SplitOutput]:
    """Every split below an output folder: ``OUT``, ``OUT/<dataset>`` or ``OUT/<dataset>/<split>`` may be given.

    Raises:
        SetupError: there is none.
    """
    folder = Folder(out)
    marker = f"{HIDDEN}/run.json"
    # Outputs are found by their run files; the address may point at any of the three levels.
    found = sorted(name[: -len(marker)].strip("/") for name in folder.walk() if name.endswith(marker))
    if not found:
        raise SetupError(f"{out}: no run of samtok-data lies here; give the --out of a tokenize run")
    outputs = []
    for name in found:
        path = "/".join([*folder.address.rstrip("/").split("/"), *([name] if name else [])]).split("/")
        outputs.append(SplitOutput(Folder("/".join(path[:-2]) or "."), path[-2], path[-1]))
    return outputs


def verify(output: SplitOutput) -> Verdict:
    """Checks one split: manifest complete, every shard as recorded, every sample sound, keys unique."""
    manifest = output.manifest()
    if manifest is None:
        return Verdict(_name(output), Totals(), ["the run is not complete: run tokenize again with the same settings"])
    entries = [UnitEntry.of_json(dict(fields)) for fields in manifest["units"]]
    verdict = Verdict(_name(output), Totals.of(entries))
    config = manifest["fingerprint"]["tokenizer"]["config"]
    vocabulary = MaskVocabulary(config["codebook_size"], config["depth"])
    keys: set[str] = set()
    for entry in entries:
        verdict.problems += _unit_problems(output, entry, vocabulary, keys)
    listed = {entry.shard.name for entry in entries if entry.shard is not None}
    verdict.problems += (f"{name}: not in the manifest" for name in output.folder.names(".tar") if name not in listed)
    rejects = len(output.rejects())
    if rejects != verdict.totals.num_rejects:
        verdict.problems.append(f"rejects: {verdict.totals.num_rejects} in the manifest, {rejects} in the lists")
    return verdict


def _name(output: SplitOutput) -> str:
    return f"{output.dataset}/{output.split}"


def _unit_problems(output: SplitOutput, entry: UnitEntry, vocabulary: MaskVocabulary, keys: set[str]) -> Iterator[str]:
    if entry.shard is None:
        return
    name = entry.shard.name
    try:
        data = output.folder.read(name)
    except FileNotFoundError:
        yield f"{name}: in the manifest, but not there"
        return
    if hashlib.sha256(data).hexdigest() != entry.shard.sha256:
        yield f"{name}: its sha256 is not the manifest's; delete it and run tokenize again"
        return
    samples = 0
    try:
        for sample in unpack(data):
            samples += 1
            if sample.key in keys:
                yield f"{name}: {sample.key} stands twice in the dataset"
            keys.add(sample.key)
            yield from (f"{name}: {sample.key}: {problem}" for problem in sample_problems(sample, vocabulary))
    except ValueError as error:
        yield f"{name}: {error}"
        return
    if samples != entry.samples:
        yield f"{name}: {entry.samples} samples in the manifest, {samples} in the shard"


def sample_problems(sample: Sample, vocabulary: MaskVocabulary) -> Iterator[str]:
    """What is wrong with one sample: words against codes, text against masks, masks against their numbers, images."""
    record = sample.record
    if record["id"] != sample.key:
        yield f"its record calls itself {record['id']}"
    listed = {mask["word"] for mask in record["masks"]}
    mentioned = list(mentioned_words(record, vocabulary))
    for word in mentioned:
        if word not in listed:
            yield f"the text holds {word}, which no mask has"
    for word in sorted(listed.difference(mentioned)):
        yield f"the text does not hold {word}"
    for mask in record["masks"]:
        yield from _mask_problems(mask, vocabulary)
    marks = sum(turn["value"].count("<image>") for turn in record["conversations"])
    if marks != len(record["image"]):
        yield f"{marks} <image> marks for {len(record['image'])} images"
    sizes = {tuple(mask["rle"]["size"]) for mask in record["masks"] if mask["view"] == "image"}
    first = min(sample.images, key=len, default=None)  # the whole image's suffix has no number before it
    for suffix, data in sample.images.items():
        try:
            with Image.open(io.BytesIO(data)) as picture:
                picture.load()
                height_width = (picture.height, picture.width)
        except (UnidentifiedImageError, OSError, SyntaxError) as error:
            yield f"its image cannot be decoded: {error}"
            continue
        if suffix == first and sizes - {height_width}:
            yield f"its image is {height_width[1]}x{height_width[0]}, its masks are not"


def _mask_problems(mask: Mapping[str, Any], vocabulary: MaskVocabulary) -> Iterator[str]:
    try:
        if list(vocabulary.parse(mask["word"])) != mask["codes"]:
            yield f"{mask['word']} does not spell the codes {mask['codes']}"
        height, width = mask["rle"]["size"]
        rle: RLE = masks.read_segmentation(mask["rle"], height, width)
    except (ValueError, RecordError) as error:
        yield f"region {mask['region']}: {error}"
        return
    if masks.area(rle) != mask["area"] or list(masks.coco_box(rle)) != mask["bbox"]:
        yield f"region {mask['region']}: area or bbox are not the RLE's"
