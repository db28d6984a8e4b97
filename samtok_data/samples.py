"""One training sample: a rendered dialogue, what makes it checkable, and the image bytes.

The record is what the published training code reads, plus the masks:

    {"id", "dataset", "split", "task",
     "image": [file names, in <image> order],
     "conversations": [{"from": "human", "value": "<image>\\n..."}, {"from": "gpt", "value": "..."}],
     "masks": [{"word", "codes", "view", "region", "rle": {"size", "counts"}, "area", "bbox", "iou"}]}

``masks`` has one entry for each (view, region) of the text, in order of first mention; ``rle``, ``area``
(pixels) and ``bbox`` (COCO's x, y, width, height) are in the view's frame; ``iou`` is null where it was not
measured. Every sample has the same fields with the same types, because HF datasets takes its schema from
the first samples (docs/design.md).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from samtok_data import masks
from samtok_data.dialogues import render
from samtok_data.masks import RLE
from samtok_data.scenes import Dialogue, MaskRef, Scene
from samtok_data.words import MaskVocabulary

# WebDataset splits a member's name at its first dot: a dot in a key would merge all samples of a shard into one.
_KEY = re.compile(r"[A-Za-z0-9_+-]+")
JSON = "json"


@dataclass(frozen=True, slots=True)
class TokenizedMask:
    """What the tokenizer made of one (view, region).

    Attributes:
        codes: one code a level.
        rle: the mask in the view's frame.
        iou: with its own reconstruction; None where not measured.
    """

    codes: tuple[int, ...]
    rle: RLE
    iou: float | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample of a shard.

    Attributes:
        key: unique over the dataset; ASCII letters, digits, ``_``, ``+`` and ``-``.
        record: the JSON fields that the module describes.
        images: encoded pictures by their member suffix (``jpg``; further ones ``1.png``, ...); empty where
            images are referenced by name.
    """

    key: str
    record: dict[str, Any]
    images: Mapping[str, bytes]

    @property
    def members(self) -> list[tuple[str, bytes]]:
        """(file name, bytes) of every member, sorted by name."""
        parts = {**self.images, JSON: to_json(self.record)}
        return [(f"{self.key}.{suffix}", parts[suffix]) for suffix in sorted(parts)]


def is_key(key: str) -> bool:
    """Whether a text can be a sample's key."""
    return _KEY.fullmatch(key) is not None


def to_json(record: Mapping[str, Any]) -> bytes:
    """A record as JSON: UTF-8, fields in their order, no white space between them."""
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()


def build_sample(
    scene: Scene,
    dialogue: Dialogue,
    *,
    dataset: str,
    split: str,
    tokenized: Mapping[MaskRef, TokenizedMask],
    vocabulary: MaskVocabulary,
    images: Mapping[str, bytes],
) -> Sample:
    """Renders one dialogue of a scene.

    Args:
        scene: where the dialogue comes from.
        dialogue: one of its dialogues.
        dataset: name of the dataset in the output.
        split: as the source spells it.
        tokenized: the result for every reference of the dialogue.
        vocabulary: the tokenizer's spelling.
        images: encoded pictures by member suffix; empty to refer to them by name.

    Raises:
        ValueError: the key cannot be a sample's key.
    """
    if not is_key(dialogue.key):
        raise ValueError(f"expected a key of ASCII letters, digits, '_', '+' and '-', got {dialogue.key!r}")
    refs = tuple(dict.fromkeys(dialogue.refs))
    words = {ref: vocabulary.format(tokenized[ref].codes) for ref in refs}
    record = {
        "id": dialogue.key,
        "dataset": dataset,
        "split": split,
        "task": dialogue.task,
        "image": [scene.image for _ in dialogue.views],
        "conversations": render(dialogue, words),
        "masks": [_mask_fields(ref, words[ref], tokenized[ref]) for ref in refs],
    }
    return Sample(dialogue.key, record, images)


def _mask_fields(ref: MaskRef, word: str, mask: TokenizedMask) -> dict[str, Any]:
    return {
        "word": word,
        "codes": list(mask.codes),
        "view": ref.view,
        "region": ref.region,
        "rle": mask.rle.json,
        "area": masks.area(mask.rle),
        "bbox": list(masks.coco_box(mask.rle)),
        "iou": mask.iou,
    }


def mentioned_words(record: Mapping[str, Any], vocabulary: MaskVocabulary) -> Sequence[str]:
    """The mask words of a record's text, in order; malformed groups as they stand there."""
    texts = [turn["value"] for turn in record["conversations"]]
    return [text[mask.start : mask.end] for text in texts for mask in vocabulary.find(text)]
