"""Referring segmentation from refs and COCO instances: gRefCOCO, RefCOCO, RefCOCO+, RefCOCOg, RefCLEF.

    human  <image>\\n + one of the wording's questions with the sentence in it
    gpt    ```json
           [{"mask_2d": "<mask word>", "label": "<sentence>"},
           {"mask_2d": "<mask word>", "label": "<sentence>"}]
           ```                                               one item an instance, from left to right
    gpt    No target.                                        where the sentence fits nothing

Formats: ``refer_files`` (annotation files) and ``refer_plan`` (payload). Dialogue: the released SAMTok training data.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from converters.dialogues import refer_files
from converters.dialogues.refer_datasets import ReferDataset
from converters.dialogues.refer_files import is_id
from converters.dialogues.refer_plan import ReferPlan, record_ids, sentences_of, split_of
from converters.dialogues.source import DatasetInfo, Payload
from converters.dialogues.templates import TASK, Wording, fill
from samtok_data import masks
from samtok_data.dialogues import IMAGE_MARK, check_text, json_text
from samtok_data.errors import RecordError, SetupError
from samtok_data.masks import RLE
from samtok_data.rejects import Reject
from samtok_data.scenes import Dialogue, MaskRef, Region, Scene, Text, Turn
from samtok_data.storage import Folder, is_contained

Crowd = Literal["keep", "skip"]

NO_TARGET = -1
MAX_SIDE = 65_535  # of an image in pixels: what a JPEG can hold


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferringConverter:
    """One referring dataset in one partition; a ``converters.dialogues.source.Converter``.

    Attributes:
        dataset: what it is.
        partition: one of the dataset's.
        root: address of the folder with the annotation files.
        images_root: address of the folder with the images; None: in its usual places under the root.
        crowd: ``keep`` crowd annotations as targets (as SAMTok), or ``skip`` them (as ReLA).
        seed: of the draw of questions.
        wording: questions and answers.
    """

    dataset: ReferDataset
    partition: str
    root: str
    images_root: str | None = None
    crowd: Crowd = "keep"
    seed: int = 0
    wording: Wording

    @property
    def info(self) -> DatasetInfo:
        """What the dataset is, in this partition."""
        return self.dataset.info_of(self.partition)

    @property
    def name(self) -> str:
        """Name of the output folder and first part of every key, e.g. ``refcocoplus-unc``."""
        return self.dataset.partitions[self.partition].output

    @property
    def settings(self) -> Mapping[str, Any]:
        """Every option that changes the output, as JSON values."""
        return {
            "dataset": self.dataset.name,
            "partition": self.partition,
            "crowd": self.crowd,
            "seed": self.seed,
            "wording": self.wording.sha256,
        }

    def plan(self, *, splits: Sequence[str], unit_size: int, limit: int | None) -> ReferPlan:
        """Reads, checks and joins the annotation files.

        Args:
            splits: as the file spells them; ``all`` for every one. ``test`` also means testA and testB where the
                file has no ``test``. Units come in the file's order of splits.
            unit_size: a unit is closed once it holds this many sentences; an image is never divided.
            limit: only the first so many images of each split.

        Raises:
            SetupError: a file is missing, broken or another dataset's; the image root is not there; a split
                is not in the file.
        """
        if unit_size < 1 or (limit is not None and limit < 1):
            raise SetupError(f"--samples-per-shard and --limit: expected 1 or more, got {unit_size} and {limit}")
        root = Folder(self.root)
        refs_name, instances_name = refer_files.find_files(self.dataset, self.partition, root)
        images_root = refer_files.find_images(self.dataset, root, self.images_root)
        with _collection_paused():
            refs = refer_files.read_refs(self.dataset, root, refs_name)
            instances = refer_files.read_instances(root, instances_name)
            return ReferPlan(
                refs=refs.value,
                instances=instances.value,
                splits=splits,
                unit_size=unit_size,
                limit=limit,
                images_root=images_root,
                files={refs.name: refs.sha256, instances.name: instances.sha256},
                expected=self.info.sentences,
                label=f"{root}: {refs.name}",
            )

    def scenes(self, payload: Payload) -> Iterator[Scene | Reject]:
        """Of each image its rejects, in the file's order, then its Scene if any dialogue is left.

        Every record becomes a dialogue or a reject. The payload is not changed.
        """
        for entry in payload:
            yield from _ImageRecords(self, entry).scene()


class _ImageRecords:
    """The records of one image, on their way to a Scene."""

    def __init__(self, converter: ReferringConverter, entry: Mapping[str, Any]) -> None:
        self.converter = converter
        self.entry = entry
        self.decoded: dict[int, RLE | RecordError] = {}

    def scene(self) -> Iterator[Scene | Reject]:
        dialogues: list[Dialogue] = []
        for listed in self.entry["refs"]:
            targets = self._targets_or_error(listed["ref"])
            for index, sentence in enumerate(sentences_of(listed["ref"])):
                try:
                    dialogues.append(self._dialogue(listed, index, sentence, targets))
                except RecordError as error:
                    yield Reject.of(error, self._key(listed, index, sentence), _record(listed, sentence))
        if not dialogues:
            return
        named = dict.fromkeys(ref.region for dialogue in dialogues for ref in dialogue.refs)
        image = self.entry["image"]
        yield Scene(
            id=str(self.entry["image_id"]),
            image=image["file_name"],
            height=image["height"],
            width=image["width"],
            regions=tuple(Region(region, self._mask(int(region))) for region in named),
            dialogues=tuple(dialogues),
        )

    def _key(self, listed: Mapping[str, Any], index: int, sentence: Any) -> str:
        """By the record's ids; by its place in the file where it lacks them."""
        ids = record_ids(listed["ref"], sentence)
        place = f"at-{listed['position']}-{index}" if ids is None else f"{ids[0]}-{ids[1]}"
        return f"{self.converter.name}-{place}"

    def _dialogue(
        self, listed: Mapping[str, Any], index: int, sentence: Any, targets: list[int] | RecordError
    ) -> Dialogue:
        phrase = _phrase(listed["ref"], sentence)
        key = self._key(listed, index, sentence)
        if index in listed["duplicates"]:
            raise RecordError("record-duplicate", f"key: an earlier record of the file is {key}, too")
        if isinstance(targets, RecordError):
            raise RecordError(targets.reason, targets.message)
        question = self.converter.wording.question(phrase, self.converter.seed, key)
        human = Turn("human", (f"{IMAGE_MARK}\n{question}",))
        answer = Turn("gpt", self._answer(phrase, targets))
        return Dialogue(key, TASK, (human, answer), record=_record(listed, sentence))

    def _answer(self, phrase: str, targets: list[int]) -> Text:
        wording = self.converter.wording
        if not targets:
            return (wording.no_target,)
        label = fill(wording.label, phrase)
        items = [{"mask_2d": MaskRef(str(target)), "label": label} for target in targets]
        first, *rest, last = json_text(items, indent_items=True)
        return (f"```json\n{first}", *rest, f"{last}\n```")

    def _targets_or_error(self, ref: Any) -> list[int] | RecordError:
        try:
            self._check_image(ref)
            return self._targets(ref)
        except RecordError as error:
            return error

    def _check_image(self, ref: Any) -> None:
        """Raises RecordError where the ref's image cannot be used."""
        if not isinstance(ref, dict):
            raise RecordError("record-invalid", f"ref: expected an object, got {_kind(ref)}")
        if split_of(ref) is None:
            raise RecordError("record-invalid", f"split: expected letters, digits, - and _, got {_shown(ref, 'split')}")
        number, image = self.entry["image_id"], self.entry["image"]
        if number is None:
            raise RecordError("record-invalid", f"image_id: expected a whole number, got {_shown(ref, 'image_id')}")
        if image is None:
            raise RecordError("image-unlisted", f"image {number}: not among the images of instances.json")
        name = image.get("file_name")
        # The name is joined to the image root: it must stay below it and be one that a file can have.
        if not isinstance(name, str) or not is_contained(name) or not name.isprintable():
            raise RecordError("record-invalid", f"image {number}: expected a relative file name, got {name!r:.200}")
        for side in ("height", "width"):
            if type(image.get(side)) is not int or not 1 <= image[side] <= MAX_SIDE:
                got = _shown(image, side)
                raise RecordError("record-invalid", f"image {number}: {side}: expected 1..{MAX_SIDE} pixels, got {got}")

    def _targets(self, ref: Mapping[str, Any]) -> list[int]:
        """The annotations of the answer, by box centre from left to right, then from top to bottom.

        Returns:
            Annotation ids whose masks are decoded; none where the ref says that there is no target.
        """
        named = _named(ref)
        crowds = [number for number in named if self._annotation(number).get("iscrowd")]
        kept = [number for number in named if self.converter.crowd == "keep" or number not in crowds]
        if named and not kept:
            raise RecordError("crowd-skipped", f"ann_id: every target is a crowd, and crowds are skipped: {named}")
        boxes = {number: masks.coco_box(self._mask(number)) for number in kept}

        def doubled_centre(number: int) -> tuple[int, int]:
            # Whether the box ends on its last pixel or one past it moves every centre by the same half pixel.
            x, y, width, height = boxes[number]
            return 2 * x + width, 2 * y + height

        return sorted(kept, key=doubled_centre)

    def _annotation(self, number: int) -> Mapping[str, Any]:
        annotation = self.entry["annotations"].get(str(number))
        if annotation is None:
            raise RecordError("annotation-missing", f"annotation {number}: not in instances.json")
        image = self.entry["image_id"]
        if annotation.get("image_id") != image:
            got = _shown(annotation, "image_id")
            raise RecordError("annotation-image", f"annotation {number}: expected on image {image}, got {got}")
        return annotation

    def _mask(self, number: int) -> RLE:
        """The annotation's mask, decoded once an image."""
        if number not in self.decoded:
            image = self.entry["image"]
            segmentation = self._annotation(number).get("segmentation")
            try:
                self.decoded[number] = masks.read_segmentation(segmentation, image["height"], image["width"])
            except RecordError as error:
                self.decoded[number] = RecordError(error.reason, f"annotation {number}: {error.message}")
        mask = self.decoded[number]
        if isinstance(mask, RecordError):
            raise RecordError(mask.reason, mask.message)
        return mask


@contextmanager
def _collection_paused() -> Iterator[None]:
    """No search for reference cycles meanwhile: parsed files have none, and looking at millions of objects over and
    over takes as long as reading them."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _phrase(ref: Any, sentence: Any) -> str:
    """The sentence as the dataset's authors cleaned it, unchanged.

    Raises:
        RecordError: ``record-invalid`` or ``sentence-empty``.
    """
    if not isinstance(ref, dict):
        raise RecordError("record-invalid", f"ref: expected an object, got {_kind(ref)}")
    if ref.get("sentences") == []:
        raise RecordError("sentence-empty", "sentences: expected one or more, got an empty list")
    if not isinstance(ref.get("sentences"), list):
        raise RecordError("record-invalid", f"sentences: expected a list, got {_kind(ref.get('sentences'))}")
    if not is_id(ref.get("ref_id")):
        raise RecordError("record-invalid", f"ref_id: expected a whole number, got {_shown(ref, 'ref_id')}")
    if not isinstance(sentence, dict):
        raise RecordError("record-invalid", f"sentence: expected an object, got {_kind(sentence)}")
    if not is_id(sentence.get("sent_id")):
        raise RecordError("record-invalid", f"sent_id: expected a whole number, got {_shown(sentence, 'sent_id')}")
    phrase = sentence.get("sent")
    if not isinstance(phrase, str):
        raise RecordError("record-invalid", f"sent: expected text, got {_kind(phrase)}")
    if not phrase.strip():
        raise RecordError("sentence-empty", f"sent: expected words, got {phrase!r}")
    check_text(phrase)
    return phrase


def _named(ref: Mapping[str, Any]) -> list[int]:
    """The annotations that a ref names as targets, in its order; none for -1 or [-1].

    Raises:
        RecordError: ``record-invalid`` (no ids, or one twice), ``target-conflict`` (a target and none).
    """
    value = ref.get("ann_id")
    named: list[Any] = value if isinstance(value, list) else [value]
    if not named or not all(number == NO_TARGET or is_id(number) for number in named):
        got = _shown(ref, "ann_id")
        raise RecordError("record-invalid", f"ann_id: expected annotation ids, or -1 for no target, got {got}")
    if len(set(named)) < len(named):
        raise RecordError("record-invalid", f"ann_id: expected each annotation once, got {named}")
    targets = [number for number in named if number != NO_TARGET]
    if targets and len(targets) < len(named):
        raise RecordError("target-conflict", f"ann_id: expected targets or -1, got both: {named}")
    no_target = ref.get("no_target", not targets)
    if not isinstance(no_target, bool):
        raise RecordError("record-invalid", f"no_target: expected true or false, got {_shown(ref, 'no_target')}")
    if no_target and targets:
        raise RecordError("target-conflict", f"no_target: true, but ann_id names {named}")
    if not no_target and not targets:
        raise RecordError("target-conflict", f"no_target: false, but ann_id is {value}")
    return targets


def _record(listed: Mapping[str, Any], sentence: Any) -> dict[str, Any]:
    """What finds a record in the source file: its place there (from 0), and the ref with this sentence alone."""
    ref = listed["ref"]
    if isinstance(ref, dict) and sentence is not None:
        ref = {**ref, "sentences": [sentence]}
    return {"position": listed["position"], "ref": ref}


def _kind(value: Any) -> str:
    """The type of a value in words; nothing for a field that is not there."""
    return "nothing" if value is None else type(value).__name__


def _shown(fields: Mapping[str, Any], name: str) -> str:
    """A field's value for a message, cut where it is long; nothing where it is not there."""
    value = fields.get(name)
    return "nothing" if value is None else f"{value!r:.100}"
