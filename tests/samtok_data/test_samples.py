"""Samples: the record that training code reads, and the members of a shard."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from samtok_data import masks
from samtok_data.dialogues import json_text
from samtok_data.samples import Sample, TokenizedMask, build_sample, is_key, mentioned_words, to_json
from samtok_data.scenes import Dialogue, MaskRef, Region, Scene, Turn, View
from samtok_data.words import MaskVocabulary

VOCABULARY = MaskVocabulary()
MASK = np.zeros((4, 5), dtype=np.bool_)
MASK[1:3, 2:4] = True
RLE = masks.encode(MASK)
CAT, CROP, DOG = MaskRef("cat"), MaskRef("cat", "crop"), MaskRef("dog")
TOKENIZED = {
    CAT: TokenizedMask((11, 91), RLE, 0.9375),
    CROP: TokenizedMask((3, 0), masks.encode(MASK[1:3, 2:4])),
    DOG: TokenizedMask((0, 255), RLE, 1.0),
}


def sample(*answer: str | MaskRef, key: str = "ref-1", views: tuple[str, ...] = ("image",), **images: bytes) -> Sample:
    turns = (Turn("human", ("<image>\nwhich?",)), Turn("gpt", answer))
    dialogue = Dialogue(key, "referring-segmentation", turns, views)
    regions = (Region("cat", RLE), Region("dog", RLE))
    scene = Scene("s-1", "a/b.jpg", 4, 5, regions, (dialogue,), (View(), View("crop", crop=(2, 1, 4, 3))))
    return build_sample(
        scene, dialogue, dataset="gres", split="val", tokenized=TOKENIZED, vocabulary=VOCABULARY, images=images
    )


def test_a_record_has_all_fields() -> None:
    assert sample(*json_text([{"mask": CAT, "label": "猫"}])).record == {
        "id": "ref-1",
        "dataset": "gres",
        "split": "val",
        "task": "referring-segmentation",
        "image": ["a/b.jpg"],
        "conversations": [
            {"from": "human", "value": "<image>\nwhich?"},
            {"from": "gpt", "value": '[{"mask": "<|mt_start|><|mt_0011|><|mt_0347|><|mt_end|>", "label": "猫"}]'},
        ],
        "masks": [
            {
                "word": "<|mt_start|><|mt_0011|><|mt_0347|><|mt_end|>",
                "codes": [11, 91],
                "view": "image",
                "region": "cat",
                "rle": RLE.json,
                "area": 4,
                "bbox": [2, 1, 2, 2],
                "iou": 0.9375,
            }
        ],
    }


def test_masks_are_listed_once_in_order_of_first_mention_and_in_their_views_frame() -> None:
    made = sample(DOG, " ", CROP, " ", DOG, " ", CAT, views=("image", "crop"))
    listed = [
        (mask["region"], mask["view"], mask["rle"]["size"], mask["bbox"], mask["iou"]) for mask in made.record["masks"]
    ]
    assert listed == [
        ("dog", "image", [4, 5], [2, 1, 2, 2], 1.0),
        ("cat", "crop", [2, 2], [0, 0, 2, 2], None),
        ("cat", "image", [4, 5], [2, 1, 2, 2], 0.9375),
    ]
    assert made.record["image"] == ["a/b.jpg", "a/b.jpg"]


def test_samples_with_and_without_masks_have_the_same_fields() -> None:
    without, with_one = sample("No target."), sample(CAT)
    assert without.record["masks"] == []
    assert list(without.record) == list(with_one.record)


def test_a_record_can_be_read_by_json_and_its_fields_keep_their_order() -> None:
    record = sample(CAT).record
    assert list(json.loads(to_json(record)).items()) == list(record.items())
    assert to_json({"b": '猫 "\n', "a": [1, None]}) == '{"b":"猫 \\"\\n","a":[1,null]}'.encode()


def test_members_are_sorted_by_name() -> None:
    made = Sample("k", {"id": "k"}, {"jpg": b"1", "1.png": b"2"})
    assert made.members == [("k.1.png", b"2"), ("k.jpg", b"1"), ("k.json", b'{"id":"k"}')]
    assert sorted(made.images) == ["1.png", "jpg"]
    assert Sample("k", {}, {}).members == [("k.json", b"{}")]


@pytest.mark.parametrize("key", ["a", "gres-train_000012+1", "A9", "-", "000"])
def test_keys_of_letters_digits_and_three_signs(key: str) -> None:
    assert is_key(key)
    assert sample(CAT, key=key).key == key


@pytest.mark.parametrize("key", ["", "a.b", ".a", "a/b", "a b", "ä", "a\n", "\u0661", "a:b", "..", "a\\b"])
def test_other_keys_are_refused(key: str) -> None:
    """A dot above all: WebDataset would merge every sample of a shard into one."""
    assert not is_key(key)
    with pytest.raises(ValueError, match="expected a key of ASCII letters, digits, '_', '\\+' and '-', got"):
        sample(CAT, key=key)


def test_a_reference_that_was_not_tokenised_is_a_bug() -> None:
    with pytest.raises(KeyError):
        sample(MaskRef("bird"))


def test_the_words_of_a_text_are_listed_as_they_stand() -> None:
    word, broken = VOCABULARY.format((11, 91)), "<|mt_start|><|mt_0011|>"
    record: dict[str, Any] = {"conversations": [{"value": f"{word}?"}, {"value": "x"}, {"value": f"{broken} {word}"}]}
    assert mentioned_words(record, VOCABULARY) == [word, broken, word]
