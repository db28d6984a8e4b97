"""Plans a referring dataset: joins refs with images and annotations, groups them by image, cuts units.

One record is one sentence; a ref without a usable list of sentences is one record, too, so that it can be rejected.
A unit's payload is a list of one entry an image:

    {"image_id": int | None, "image": {"file_name", "height", "width"} | None,
     "refs": [{"position": int, "duplicates": [sentence index, ...], "ref": {...}}, ...],
     "annotations": {"<id>": {"image_id", "iscrowd", "segmentation"}, ...}}
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from converters.dialogues.refer_datasets import ALL
from converters.dialogues.refer_files import MAX_ID, by_id, is_id
from converters.dialogues.source import Expectation, Payload, Unit
from samtok_data.errors import SetupError

_REF_FIELDS = ("ref_id", "image_id", "ann_id", "no_target", "split", "file_name")
_SENTENCE_FIELDS = ("sent_id", "sent")
_IMAGE_FIELDS = ("file_name", "height", "width")
_ANNOTATION_FIELDS = ("image_id", "iscrowd", "segmentation")

_SPLIT = re.compile(r"[A-Za-z0-9_-]{1,64}")  # it names a folder
_MAX_DEPTH = 6  # of a ref; a pickle can hold a list that holds itself


def sentences_of(ref: Any) -> list[Any]:
    """The records of a ref: its sentences, or one None where it has none that could be counted."""
    sentences = ref.get("sentences") if isinstance(ref, Mapping) else None
    return list(sentences) if isinstance(sentences, list | tuple) and sentences else [None]


def target_ids(ref: Any) -> list[int]:
    """The usable annotation ids that a ref names, in its order; -1 stands for no target and is none."""
    value = ref.get("ann_id") if isinstance(ref, Mapping) else None
    named: list[Any] = list(value) if isinstance(value, list | tuple) else [value]
    return [number for number in named if is_id(number)]


@dataclass(slots=True)
class _Group:
    """The refs of one image of a split: positions in the file, and the refs."""

    image_id: int | None
    refs: list[tuple[int, Any]] = field(default_factory=list)
    records: int = 0


@dataclass(frozen=True, slots=True)
class _Cut:
    """A unit and the images that it holds."""

    unit: Unit
    groups: Sequence[_Group]


class ReferPlan:
    """A ``converters.dialogues.source.Plan`` over parsed annotation files.

    Args:
        refs: as parsed; only what is needed of them is kept, and nothing is changed.
        instances: COCO instances, as parsed; likewise. Of entries with the same id the last one counts, as in
            pycocotools.
        splits: asked for, ``ALL`` for every one; ``test`` also for testA and testB where the file has no ``test``.
        unit_size: a unit is closed once it holds this many records.
        limit: only the first so many images of each split.
        images_root: address.
        files: sha256 by name.
        expected: sentences a split by the dataset's tables.
        label: of the refs file, for messages.

    Raises:
        SetupError: a split is not in the file; the two files have no image in common.
    """

    def __init__(
        self,
        *,
        refs: list[Any],
        instances: Mapping[str, list[Any]],
        splits: Sequence[str],
        unit_size: int,
        limit: int | None,
        images_root: str,
        files: Mapping[str, str],
        expected: Mapping[str, int | None],
        label: str,
    ) -> None:
        self._images_root = images_root
        self._files = dict(files)
        found = _splits_of(refs, label)
        chosen = _choose(splits, list(found), label)
        self._expectations = _expectations(found, chosen, expected)
        groups = _group(refs, chosen, next(iter(found)))
        self._duplicates = _duplicates(refs)
        self._index(groups, refs, instances, label)
        self._cuts = {
            (cut.unit.split, cut.unit.index): cut
            for split in chosen
            for cut in _cut(split, _led_by_a_target(groups[split][:limit]), unit_size)
        }

    @property
    def images_root(self) -> str:
        """Address of the folder that ``Scene.image`` is relative to."""
        return self._images_root

    @property
    def files(self) -> Mapping[str, str]:
        """sha256 (hex) of both annotation files, by name under the root."""
        return self._files

    @property
    def units(self) -> Sequence[Unit]:
        """All units, by split (in the file's order) and index."""
        return [cut.unit for cut in self._cuts.values()]

    @property
    def expectations(self) -> Sequence[Expectation]:
        """Sentences in the file against the tables, for the chosen splits; ``all`` where every split is chosen."""
        return self._expectations

    def payload(self, unit: Unit) -> Payload:
        """The unit's records as JSON values; the images in order of first appearance in the file."""
        return [self._entry(group) for group in self._cuts[unit.split, unit.index].groups]

    def _index(
        self, groups: Mapping[str, list[_Group]], refs: list[Any], instances: Mapping[str, list[Any]], label: str
    ) -> None:
        """Keeps the images and annotations that the groups name."""
        every_image = {ref["image_id"] for ref in refs if isinstance(ref, Mapping) and is_id(ref.get("image_id"))}
        listed = {number for number, _ in by_id(instances["images"], every_image)}
        if every_image and not listed:
            raise SetupError(
                f"{label}: none of its {len(every_image):,} images is listed in instances.json, which holds "
                f"{len(instances['images']):,}: one of the two files is another dataset's"
            )
        held = [group for split in groups.values() for group in split]
        image_ids = {group.image_id for group in held if group.image_id is not None}
        named = {number for group in held for _, ref in group.refs for number in target_ids(ref)}
        self._images = {number: _pick(entry, _IMAGE_FIELDS) for number, entry in by_id(instances["images"], image_ids)}
        self._annotations = {
            number: _pick(entry, _ANNOTATION_FIELDS) for number, entry in by_id(instances["annotations"], named)
        }
        if named and not instances["annotations"]:
            raise SetupError(f"{label}: its refs name {len(named):,} annotations, and instances.json holds none")

    def _entry(self, group: _Group) -> dict[str, Any]:
        refs = [
            {"position": position, "duplicates": self._duplicates.get(position, []), "ref": plain(ref)}
            for position, ref in group.refs
        ]
        named = dict.fromkeys(number for _, ref in group.refs for number in target_ids(ref))
        image = None if group.image_id is None else self._images.get(group.image_id)
        annotations = {str(number): self._annotations[number] for number in named if number in self._annotations}
        return {"image_id": group.image_id, "image": image, "refs": refs, "annotations": annotations}


def plain(value: Any, depth: int = 0) -> Any:
    """A parsed value as JSON values; what JSON has no form for becomes ``{type name: short text}``."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int) and abs(value) <= MAX_ID:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if depth < _MAX_DEPTH and isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value]
    if depth < _MAX_DEPTH and isinstance(value, Mapping):
        return {key if isinstance(key, str) else repr(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, int):
        return {"int": f"{value.bit_length()} bits"}  # Python refuses to print very large ones
    return {type(value).__name__: repr(value)[:200] if isinstance(value, bytes | float) else "not shown"}


def _slim(ref: Any) -> Any:
    """A ref without what no answer needs (tokens, raw): these are most of a file's memory."""
    if not isinstance(ref, Mapping):
        return ref
    kept = _pick(ref, _REF_FIELDS)
    if "sentences" in ref:
        sentences = ref["sentences"]
        kept["sentences"] = (
            [_pick(sentence, _SENTENCE_FIELDS) if isinstance(sentence, Mapping) else sentence for sentence in sentences]
            if isinstance(sentences, list | tuple)
            else sentences
        )
    return kept


def _pick(entry: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: entry[name] for name in names if name in entry}


def split_of(ref: Any) -> str | None:
    """The split that a ref names, verbatim; None where it names none that could be a folder."""
    split = ref.get("split") if isinstance(ref, Mapping) else None
    return split if isinstance(split, str) and _SPLIT.fullmatch(split) else None


def _splits_of(refs: list[Any], label: str) -> Counter[str]:
    """Sentences of every split, in order of first appearance in the file."""
    counts: Counter[str] = Counter()
    for ref in refs:
        split = split_of(ref)
        if split is not None:
            counts[split] += sum(sentence is not None for sentence in sentences_of(ref))
    if not counts:
        raise SetupError(f"{label}: no ref names its split (letters, digits, hyphens, underscores)")
    return counts


def _choose(asked: Sequence[str], found: list[str], label: str) -> list[str]:
    """The splits to plan, in the file's order."""
    if ALL in asked:
        return found
    chosen: set[str] = set()
    for split in asked:
        # refer.py reads a request for 'test' as every split of people (testA) and of other objects (testB).
        parts = ["testA", "testB"] if split == "test" and "test" not in found else [split]
        if not set(parts) <= set(found):
            raise SetupError(f"--split {split}: not in {label}; it has {', '.join(found)} (or 'all')")
        chosen.update(parts)
    if not chosen:
        raise SetupError(f"--split: expected one split or more, got none; {label} has {', '.join(found)} (or 'all')")
    return [split for split in found if split in chosen]


def _expectations(
    found: Mapping[str, int], chosen: Sequence[str], expected: Mapping[str, int | None]
) -> list[Expectation]:
    counts = {split: found[split] for split in chosen}
    if len(chosen) == len(found):
        counts[ALL] = sum(found.values())
    return [
        Expectation(split=split, expected=table, found=count)
        for split, count in counts.items()
        if (table := expected.get(split)) is not None
    ]


def _group(refs: list[Any], chosen: Sequence[str], first_split: str) -> dict[str, list[_Group]]:
    """The refs of the chosen splits by image, split by split.

    A ref that names no split is listed with the file's first split, a ref that names no image by itself.
    """
    groups: dict[str, dict[Any, _Group]] = {split: {} for split in chosen}
    for position, ref in enumerate(refs):
        split = split_of(ref) or first_split
        if split not in groups:
            continue
        image_id = ref.get("image_id") if isinstance(ref, Mapping) else None
        known = is_id(image_id)
        key = image_id if known else ("no image", position)
        group = groups[split].setdefault(key, _Group(image_id if known else None))
        kept = _slim(ref)
        group.refs.append((position, kept))
        group.records += len(sentences_of(kept))
    return {split: list(by_image.values()) for split, by_image in groups.items()}


def _duplicates(refs: list[Any]) -> dict[int, list[int]]:
    """Indices of the sentences whose key an earlier one has, by the ref's position in the file.

    Of the whole file: what becomes of a split must not depend on the other splits that were asked for.
    """
    duplicates: dict[int, list[int]] = {}
    seen: set[tuple[int, int]] = set()
    for position, ref in enumerate(refs):
        for index, sentence in enumerate(sentences_of(ref)):
            pair = record_ids(ref, sentence)
            if pair in seen:
                duplicates.setdefault(position, []).append(index)
            elif pair is not None:
                seen.add(pair)
    return duplicates


def record_ids(ref: Any, sentence: Any) -> tuple[int, int] | None:
    """The ids that a record's key is made of; None where one is unusable."""
    if not isinstance(ref, Mapping) or not isinstance(sentence, Mapping):
        return None
    ref_id, sent_id = ref.get("ref_id"), sentence.get("sent_id")
    return (ref_id, sent_id) if is_id(ref_id) and is_id(sent_id) else None


def _led_by_a_target(groups: Sequence[_Group]) -> list[_Group]:
    """The groups in order, except that the first one with a target leads: of a split's first shard HF datasets learns
    what a mask is (docs/design.md, "The shard")."""
    lead = next((place for place, group in enumerate(groups) if any(target_ids(ref) for _, ref in group.refs)), 0)
    return [*groups[lead : lead + 1], *groups[:lead], *groups[lead + 1 :]]


def _cut(split: str, groups: Sequence[_Group], unit_size: int) -> Iterable[_Cut]:
    """Units of whole images, each closed once it holds ``unit_size`` records."""
    index, start, records = 0, 0, 0
    for end, group in enumerate(groups, start=1):
        records += group.records
        if records >= unit_size or end == len(groups):
            held = groups[start:end]
            images = sum(group.image_id is not None for group in held)
            masks = sum(len({number for _, ref in group.refs for number in target_ids(ref)}) for group in held)
            yield _Cut(Unit(split=split, index=index, images=images, records=records, masks=masks), held)
            index, start, records = index + 1, end, 0
