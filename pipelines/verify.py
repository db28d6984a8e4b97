"""``samtok-data verify``: reads every byte of an output again and holds it against its manifest and itself."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from PIL import Image, UnidentifiedImageError

from pipelines.verify_scenes import SceneTables
from pipelines.verify_table import table_problems
from samtok_data import masks
from samtok_data.dialogues import IMAGE_MARK
from samtok_data.errors import RecordError, SetupError
from samtok_data.fingerprints import Fingerprint
from samtok_data.masks import RLE
from samtok_data.outputs import ENDINGS, HIDDEN, SplitOutput, Totals, UnitEntry
from samtok_data.rejects import count
from samtok_data.samples import Sample, mentioned_words
from samtok_data.scenes import WHOLE_IMAGE
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
        SetupError: there is none, or the folder cannot be read.
    """
    folder = Folder(out)
    marker = f"{HIDDEN}/run.json"
    try:
        found = sorted(name.removesuffix(marker).strip("/") for name in folder.walk() if name.endswith(marker))
    except OSError as error:
        raise SetupError(f"{out} cannot be read: {error.strerror or error}") from error
    if not found:
        raise SetupError(f"{out}: no run of samtok-data lies here; give the --out of a tokenize run")
    return [SplitOutput.at(folder / name if name else folder) for name in found]


def verify(outputs: Iterable[SplitOutput]) -> list[Verdict]:
    """Checks outputs: manifests complete and consistent, files as recorded, samples and masks sound.

    A key stands once in a dataset, a scene of tables once in a split.
    """
    keys: dict[str, set[str]] = {}
    return [_verdict(output, keys.setdefault(output.dataset, set())) for output in outputs]


def _verdict(output: SplitOutput, keys: set[str]) -> Verdict:
    verdict = Verdict(f"{output.dataset}/{output.split}", Totals())
    try:
        manifest = output.manifest()
        if manifest is None:
            verdict.problems.append("the run is not complete: run tokenize again with the same settings")
            return verdict
        entries = [UnitEntry.of_json(fields) for fields in manifest["units"]]
        fingerprint = Fingerprint(manifest["fingerprint"])
        config = fingerprint.parts["tokenizer"]["config"]
        vocabulary = MaskVocabulary(config["codebook_size"], config["depth"])
        written = manifest["totals"]
    except (ValueError, KeyError, TypeError) as error:
        verdict.problems.append(f"the manifest is damaged ({error}): run tokenize again with the same settings")
        return verdict
    verdict.totals = Totals.of(entries)
    if asdict(verdict.totals) != written:
        verdict.problems.append("the manifest's totals are not the sums of its units")
    if output.fingerprint() != fingerprint:
        verdict.problems.append("the manifest is of another run than the run file")
    verdict.problems += _plan_problems(output, entries, fingerprint)
    committed = output.finished(fingerprint)
    verdict.problems += (
        f"unit {entry.index}: its entry is not the manifest's"
        for entry in entries
        if committed.get(entry.index, entry) != entry
    )
    scenes = SceneTables()
    for entry in entries:
        verdict.problems += _unit_problems(output, entry, vocabulary, keys, scenes)
    verdict.problems += scenes.problems(output.folder)
    listed = {entry.shard.name for entry in entries if entry.shard is not None}
    files = output.folder.names(ENDINGS[output.form])
    verdict.problems += (f"{name}: not in the manifest" for name in files if name not in listed)
    return verdict


def _plan_problems(output: SplitOutput, entries: Sequence[UnitEntry], fingerprint: Fingerprint) -> Iterator[str]:
    """Files that were added, or replaced, by a run that did not come to its end: the manifest is the one before."""
    try:
        planned = output.planned()
    except SetupError as error:
        yield str(error)
        return
    if fingerprint.parts.get("limit") is not None:
        planned = planned[:1]  # such a run reads no more
    made = {entry.index: entry.origin for entry in entries}
    missing = [origin for index, origin in enumerate(planned) if made.get(index) != origin]
    if missing:
        yield f"{len(missing)} of {len(planned)} planned files are not in the manifest: run tokenize again"


def _unit_problems(
    output: SplitOutput, entry: UnitEntry, vocabulary: MaskVocabulary, keys: set[str], scenes: SceneTables
) -> Iterator[str]:
    if entry.samples + sum(entry.rejects.values()) != entry.records:
        yield f"unit {entry.index}: its samples and rejects are not its {entry.records} records"
    yield from _reject_problems(output, entry)
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
    if output.form == "table":
        here: set[str] = set()
        problems = [f"{name}: {problem}" for problem in table_problems(data, entry, vocabulary, here)]
        yield from problems
        if not problems:
            scenes.add(name, here)
        return
    yield from _shard_problems(name, data, entry, vocabulary, keys)


def _shard_problems(
    name: str, data: bytes, entry: UnitEntry, vocabulary: MaskVocabulary, keys: set[str]
) -> Iterator[str]:
    samples, pairs = 0, set()
    try:
        for sample in unpack(data):
            samples += 1
            pairs |= {(*sample.record["image"][:1], mask["view"], mask["region"]) for mask in sample.record["masks"]}
            if sample.key in keys:
                yield f"{name}: {sample.key} stands twice in the dataset"
            keys.add(sample.key)
            yield from (f"{name}: {sample.key}: {problem}" for problem in sample_problems(sample, vocabulary))
    except ValueError as error:
        yield f"{name}: {error}"
        return
    if (samples, len(pairs)) != (entry.samples, entry.masks):
        found = f"{samples} samples and {len(pairs)} masks in the shard"
        yield f"{name}: {entry.samples} samples and {entry.masks} masks in the manifest, {found}"


def _reject_problems(output: SplitOutput, entry: UnitEntry) -> Iterator[str]:
    if not entry.rejects:
        return
    try:
        listed = count(output.rejects_of(entry.index))
    except FileNotFoundError:
        listed = {}
    except (ValueError, KeyError) as error:
        yield f"unit {entry.index}: its list of rejects is damaged: {error}"
        return
    if listed != entry.rejects:
        yield f"unit {entry.index}: rejects {dict(entry.rejects)} in the manifest, {listed} in the list"


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
    marks = sum(turn["value"].count(IMAGE_MARK) for turn in record["conversations"])
    if marks != len(record["image"]):
        yield f"{marks} <image> marks for {len(record['image'])} images"
    sizes = {tuple(mask["rle"]["size"]) for mask in record["masks"] if mask["view"] == WHOLE_IMAGE}
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
