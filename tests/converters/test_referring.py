"""From payloads to Scenes and Rejects: answers, order, and every reason to reject."""

from __future__ import annotations

import copy
import json
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.dialogues.refer_plan import ReferPlan
from converters.dialogues.registry import open_converter
from converters.dialogues.source import Converter
from samtok_data import masks, rejects
from samtok_data.dialogues import render
from samtok_data.masks import RLE
from samtok_data.rejects import Reject
from samtok_data.scenes import Region, Scene
from tests.converters import grefs

HEIGHT, WIDTH = 40, 60
IMAGES = [grefs.image(1, height=HEIGHT, width=WIDTH), grefs.image(2, height=HEIGHT, width=WIDTH)]
CROWD = {"segmentation": {"size": [HEIGHT, WIDTH], "counts": [0, 100, HEIGHT * WIDTH - 100]}, "iscrowd": 1}
ANNOTATIONS = [
    grefs.annotation(11, 1, (30, 5, 10, 10)),
    grefs.annotation(12, 1, (5, 5, 10, 10)),
    grefs.annotation(904700010881, 1, **CROWD),
    grefs.annotation(21, 2),
]


def converter(dataset: str = "gres", **options: Any) -> Converter:
    return open_converter(dataset, root=".", **options)


def payload(refs: list[Any], images: list[Any] = IMAGES, annotations: list[Any] = ANNOTATIONS) -> Any:
    """One unit of everything."""
    plan = ReferPlan(
        refs=refs,
        instances={"images": [*images, grefs.image(999)], "annotations": annotations},
        splits=("all",),
        unit_size=10**9,
        limit=None,
        images_root="images",
        files={},
        expected={},
        label="refs",
    )
    (unit,) = plan.units
    return plan.payload(unit)


def convert(refs: list[Any], *, options: dict[str, Any] | None = None, **tables: Any) -> list[Scene | Reject]:
    return list(converter(**(options or {})).scenes(payload(refs, **tables)))


def answers(found: list[Scene | Reject]) -> list[str]:
    """The rendered answers, a mask word being <id of its region>."""
    dialogues = [dialogue for scene in found if isinstance(scene, Scene) for dialogue in scene.dialogues]
    return [render(dialogue, {ref: f"<{ref.region}>" for ref in dialogue.refs})[1]["value"] for dialogue in dialogues]


def test_a_scene_with_one_two_and_no_target() -> None:
    refs = [grefs.ref(1, 1, [11, 12], ["both"]), grefs.ref(2, 1, [12], ["left", "lefter"]), grefs.ref(3, 1, [], ["no"])]
    (scene,) = convert(refs)
    assert isinstance(scene, Scene)
    assert (scene.id, scene.image, scene.height, scene.width) == ("1", "COCO_train2014_000000000001.jpg", 40, 60)
    assert [dialogue.key for dialogue in scene.dialogues] == ["gres-1-10", "gres-2-20", "gres-2-21", "gres-3-30"]
    assert {dialogue.task for dialogue in scene.dialogues} == {"referring-segmentation"}
    assert answers([scene]) == [
        '```json\n[{"mask_2d": "<12>", "label": "both"},\n{"mask_2d": "<11>", "label": "both"}]\n```',
        '```json\n[{"mask_2d": "<12>", "label": "left"}]\n```',
        '```json\n[{"mask_2d": "<12>", "label": "lefter"}]\n```',
        "No target.",
    ]
    left, right = np.zeros((2, HEIGHT, WIDTH), dtype=np.bool_)
    left[5:15, 5:15], right[5:15, 30:40] = True, True
    assert scene.regions == (Region("12", masks.encode(left)), Region("11", masks.encode(right)))


def test_the_released_form_of_an_answer() -> None:
    found = convert([grefs.ref(1, 1, [11], ["front black chair"])])
    assert isinstance(found[0], Scene)
    (dialogue,) = found[0].dialogues
    word = "<|mt_start|><|mt_0230|><|mt_0345|><|mt_end|>"
    words = dict.fromkeys(dialogue.refs, word)
    assert render(dialogue, words)[1] == {
        "from": "gpt",
        "value": f'```json\n[{{"mask_2d": "{word}", "label": "front black chair"}}]\n```',
    }


def test_the_question_begins_with_the_image_and_holds_the_sentence_unchanged() -> None:
    sentence = 'The "b;ack" KEYBOARD {phrase} \\ ü'
    found = convert([grefs.ref(number, 1, [11], [sentence]) for number in range(1, 40)])
    assert isinstance(found[0], Scene)
    turns = [dialogue.turns for dialogue in found[0].dialogues]
    questions = [turn[0].text[0] for turn in turns]
    assert len(turns) == 39
    assert all(isinstance(text, str) and text.startswith("<image>\n") and sentence in text for text in questions)
    assert len(set(questions)) > 10
    assert [turn.speaker for turn in turns[0]] == ["human", "gpt"]


def test_an_answer_is_json_whatever_the_sentence_holds() -> None:
    sentence = 'a "quoted" \\ back\nslash ]} ```'
    (answer,) = answers(convert([grefs.ref(1, 1, [11, 12], [sentence])]))
    items = json.loads(answer.removeprefix("```json\n").removesuffix("\n```"))
    assert items == [{"mask_2d": "<12>", "label": sentence}, {"mask_2d": "<11>", "label": sentence}]


ORDERS = {
    "x": ([(30, 0, 4, 4), (10, 9, 4, 4)], [1, 0]),
    "x-of-the-centre-not-of-the-edge": ([(0, 0, 40, 4), (10, 0, 4, 4)], [1, 0]),
    "y-breaks-a-tie": ([(10, 20, 4, 4), (10, 0, 4, 4)], [1, 0]),
    "half-pixels-count": ([(10, 0, 5, 4), (10, 0, 4, 4)], [1, 0]),
    "equal-centres-keep-the-order": ([(10, 10, 4, 4), (9, 9, 6, 6), (11, 11, 2, 2)], [0, 1, 2]),
}


@pytest.mark.parametrize(("boxes", "order"), ORDERS.values(), ids=ORDERS)
def test_instances_stand_from_left_to_right_then_from_top_to_bottom(boxes: list[grefs.Box], order: list[int]) -> None:
    annotations = [grefs.annotation(number, 1, box) for number, box in enumerate(boxes)]
    (answer,) = answers(convert([grefs.ref(1, 1, range(len(boxes)), ["x"])], annotations=annotations))
    assert [answer.index(f"<{number}>") for number in order] == sorted(answer.index(f"<{number}>") for number in order)


def test_a_bare_id_is_a_target_and_a_bare_minus_one_is_none() -> None:
    refs = [grefs.ref(1, 1, 11), grefs.ref(2, 1, -1), grefs.ref(3, 1, [], no_target=...)]
    del refs[2]["no_target"]
    assert (
        answers(convert(refs)) == ['```json\n[{"mask_2d": "<11>", "label": "the red one"}]\n```'] + ["No target."] * 2
    )


def test_crowds_are_kept_by_default_and_skipped_on_request() -> None:
    crowd = 904700010881
    refs = [grefs.ref(1, 1, [11, crowd], ["some"]), grefs.ref(2, 1, [crowd], ["crowd"])]
    kept = convert(refs)
    assert answers(kept)[0].startswith(f'```json\n[{{"mask_2d": "<{crowd}>"')
    assert len(answers(kept)) == 2
    skipped = convert(refs, options={"crowd": "skip"})
    assert answers(skipped) == ['```json\n[{"mask_2d": "<11>", "label": "some"}]\n```']
    (reject,) = [found for found in skipped if isinstance(found, Reject)]
    assert (reject.key, reject.reason) == ("gres-2-20", "crowd-skipped")
    assert reject.message == "ann_id: every target is a crowd, and crowds are skipped: [904700010881]"
    (scene,) = [found for found in skipped if isinstance(found, Scene)]
    assert [region.id for region in scene.regions] == ["11"]


def test_a_wording_of_the_users_is_used(tmp_path: Path) -> None:
    text = (
        'task = "referring-segmentation"\nquestions = ["{phrase}!"]\nlabel = "one of the {phrase}"\nno_target = "-"\n'
    )
    (tmp_path / "w.toml").write_text(text)
    refs = [grefs.ref(1, 1, [11], ["cat"]), grefs.ref(2, 1, [], ["dog"])]
    found = convert(refs, options={"wording": str(tmp_path / "w.toml")})
    assert answers(found) == ['```json\n[{"mask_2d": "<11>", "label": "one of the cat"}]\n```', "-"]
    assert isinstance(found[0], Scene)
    assert found[0].dialogues[0].turns[0].text == ("<image>\ncat!",)


def bad(**fields: Any) -> dict[str, Any]:
    """A ref with some fields replaced, or taken out where they are ``...``."""
    ref = {**grefs.ref(1, 1, [11], ["cat"]), **fields}
    return {name: value for name, value in ref.items() if value is not ...}


def said(sent: Any, **fields: Any) -> dict[str, Any]:
    entry = {"sent_id": 10, "sent": sent, **fields}
    return bad(sentences=[{name: value for name, value in entry.items() if value is not ...}])


AT = "gres-at-1-0"
KEY = "gres-1-10"
REJECTS = {
    "ref-no-object": (3, AT, "record-invalid", "ref: expected an object, got int"),
    "no-ref-id": (bad(ref_id=...), AT, "record-invalid", "ref_id: expected a whole number, got nothing"),
    "ref-id-text": (bad(ref_id="1"), AT, "record-invalid", "ref_id: expected a whole number, got '1'"),
    "ref-id-negative": (bad(ref_id=-1), AT, "record-invalid", "ref_id: expected a whole number, got -1"),
    "ref-id-bool": (bad(ref_id=True), AT, "record-invalid", "ref_id: expected a whole number, got True"),
    "ref-id-65-bits": (
        bad(ref_id=2**64),
        AT,
        "record-invalid",
        "ref_id: expected a whole number, got {'int': '65 bits'}",
    ),
    "no-split": (bad(split=...), KEY, "record-invalid", "split: expected letters, digits, - and _, got nothing"),
    "split-a-path": (bad(split="../x"), KEY, "record-invalid", "split: expected letters, digits, - and _, got '../x'"),
    "no-image-id": (bad(image_id=...), KEY, "record-invalid", "image_id: expected a whole number, got nothing"),
    "image-id-text": (bad(image_id="1"), KEY, "record-invalid", "image_id: expected a whole number, got '1'"),
    "image-unlisted": (bad(image_id=5), KEY, "image-unlisted", "image 5: not among the images of instances.json"),
    "no-sentences": (bad(sentences=...), AT, "record-invalid", "sentences: expected a list, got nothing"),
    "sentences-text": (bad(sentences="cat"), AT, "record-invalid", "sentences: expected a list, got str"),
    "sentences-empty": (bad(sentences=[]), AT, "sentence-empty", "sentences: expected one or more, got an empty list"),
    "sentence-text": (bad(sentences=["cat"]), AT, "record-invalid", "sentence: expected an object, got str"),
    "no-sent-id": (said("cat", sent_id=...), AT, "record-invalid", "sent_id: expected a whole number, got nothing"),
    "sent-id-float": (said("cat", sent_id=1.0), AT, "record-invalid", "sent_id: expected a whole number, got 1.0"),
    "no-sent": (said(...), KEY, "record-invalid", "sent: expected text, got nothing"),
    "sent-number": (said(7), KEY, "record-invalid", "sent: expected text, got int"),
    "sent-bytes": (said(b"cat"), KEY, "record-invalid", "sent: expected text, got dict"),
    "sent-empty": (said(""), KEY, "sentence-empty", "sent: expected words, got ''"),
    "sent-blank": (said(" \n"), KEY, "sentence-empty", "sent: expected words, got ' \\n'"),
    "sent-image": (
        said("<image>"),
        KEY,
        "record-invalid",
        "sentence: '<image>' holds '<image>', which has a meaning of its own here",
    ),
    "sent-mask": (
        said("a <|mt_start|>"),
        KEY,
        "record-invalid",
        "sentence: 'a <|mt_start|>' holds '<|mt_', which has a meaning of its own here",
    ),
    "sent-surrogate": (
        said("a \ud800"),
        KEY,
        "record-invalid",
        "sentence: 'a \\ud800' holds half of a surrogate pair",
    ),
    "no-ann-id": (
        bad(ann_id=...),
        KEY,
        "record-invalid",
        "ann_id: expected annotation ids, or -1 for no target, got nothing",
    ),
    "ann-id-empty": (
        bad(ann_id=[]),
        KEY,
        "record-invalid",
        "ann_id: expected annotation ids, or -1 for no target, got []",
    ),
    "ann-id-text": (
        bad(ann_id=["11"]),
        KEY,
        "record-invalid",
        "ann_id: expected annotation ids, or -1 for no target, got ['11']",
    ),
    "ann-id-twice": (
        bad(ann_id=[11, 12, 11]),
        KEY,
        "record-invalid",
        "ann_id: expected each annotation once, got [11, 12, 11]",
    ),
    "mixed": (bad(ann_id=[11, -1]), KEY, "target-conflict", "ann_id: expected targets or -1, got both: [11, -1]"),
    "no-target-with": (bad(no_target=True), KEY, "target-conflict", "no_target: true, but ann_id names [11]"),
    "target-without": (bad(ann_id=[-1]), KEY, "target-conflict", "no_target: false, but ann_id is [-1]"),
    "no-target-text": (bad(no_target="no"), KEY, "record-invalid", "no_target: expected true or false, got 'no'"),
    "no-target-null": (bad(no_target=None), KEY, "record-invalid", "no_target: expected true or false, got nothing"),
    "annotation-missing": (bad(ann_id=[11, 77]), KEY, "annotation-missing", "annotation 77: not in instances.json"),
    "annotation-image": (bad(ann_id=[11, 21]), KEY, "annotation-image", "annotation 21: expected on image 1, got 2"),
}
GOOD = grefs.ref(900, 2, [21], ["good"])


@pytest.mark.parametrize(("ref", "key", "reason", "message"), REJECTS.values(), ids=REJECTS)
def test_a_bad_record_is_rejected_and_the_others_are_not(ref: Any, key: str, reason: str, message: str) -> None:
    found = convert([GOOD, ref])
    assert len(answers(found)) == 1
    (reject,) = [one for one in found if isinstance(one, Reject)]
    assert (reject.key, reject.reason, reject.message) == (key, reason, message)
    assert reject.record["position"] == 1
    assert rejects.from_lines(rejects.to_lines([reject])) == [reject]


SQUARE = [10, 10, 20, 10, 20, 20, 10, 20]
BAD_MASKS = {
    "missing": (..., "mask-invalid", "segmentation: expected a list or an RLE, got NoneType"),
    "empty": ([], "mask-empty", "segmentation: expected polygons or an RLE, got an empty list"),
    "four-numbers": ([[1, 2, 3, 4]], "mask-invalid", "polygon: expected 6 numbers or more, got 4"),
    "one-bad-part": ([SQUARE, [1, 2, 3, 4]], "mask-invalid", "polygon: expected 6 numbers or more, got 4"),
    "odd": ([[*SQUARE, 3]], "mask-invalid", "polygon: expected x, y pairs, got an odd number (9)"),
    "nan": ([[*SQUARE, 3, float("nan")]], "mask-invalid", "polygon: nan is no coordinate of a 60x40 image"),
    "huge": ([[*SQUARE, 3, 10**400]], "mask-invalid", f"polygon: {10**400} is no coordinate of a 60x40 image"),
    "no-pixel": ([[1, 1, 1, 1, 1, 1]], "mask-empty", "segmentation: no foreground pixel on 60x40"),
    "size": ({"size": [60, 40], "counts": [2400]}, "mask-size", "RLE: expected size [40, 60], got [60, 40]"),
    "run-without-end": (
        {"size": [40, 60], "counts": "o" * 5000 + "0"},
        "mask-invalid",
        "RLE: the counts string is cut or holds a foreign character",
    ),
}


@pytest.mark.parametrize(("segmentation", "reason", "message"), BAD_MASKS.values(), ids=BAD_MASKS)
def test_a_bad_mask_rejects_every_sentence_that_names_it(segmentation: Any, reason: str, message: str) -> None:
    broken = grefs.annotation(13, 1, segmentation=segmentation)
    if segmentation is ...:
        del broken["segmentation"]
    refs = [grefs.ref(1, 1, [13], ["a", "b"]), grefs.ref(2, 1, [11, 13]), grefs.ref(3, 1, [11]), grefs.ref(4, 1, [])]
    found = convert(refs, annotations=[*ANNOTATIONS, broken])
    assert [(one.key, one.reason, one.message) for one in found if isinstance(one, Reject)] == [
        (key, reason, f"annotation 13: {message}") for key in ("gres-1-10", "gres-1-11", "gres-2-20")
    ]
    (scene,) = [one for one in found if isinstance(one, Scene)]
    assert [dialogue.key for dialogue in scene.dialogues] == ["gres-3-30", "gres-4-40"]
    assert [region.id for region in scene.regions] == ["11"]


BAD_IMAGES = {
    "no-name": ({"file_name": None}, "image 1: expected a relative file name, got None"),
    "above": ({"file_name": "../a.jpg"}, "image 1: expected a relative file name, got '../a.jpg'"),
    "absolute": ({"file_name": "/etc/passwd"}, "image 1: expected a relative file name, got '/etc/passwd'"),
    "address": ({"file_name": "s3://b/a.jpg"}, "image 1: expected a relative file name, got 's3://b/a.jpg'"),
    "nul": ({"file_name": "a\0.jpg"}, "image 1: expected a relative file name, got 'a\\x00.jpg'"),
    "surrogate": ({"file_name": "\udcff.jpg"}, "image 1: expected a relative file name, got '\\udcff.jpg'"),
    "no-height": ({"height": None}, "image 1: height: expected 1..65535 pixels, got nothing"),
    "height-zero": ({"height": 0}, "image 1: height: expected 1..65535 pixels, got 0"),
    "width-float": ({"width": 60.0}, "image 1: width: expected 1..65535 pixels, got 60.0"),
    "width-large": ({"width": 10**9}, "image 1: width: expected 1..65535 pixels, got 1000000000"),
}


@pytest.mark.parametrize(("fields", "message"), BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_an_image_that_cannot_be_used_rejects_its_records(fields: dict[str, Any], message: str) -> None:
    found = convert([grefs.ref(1, 1, [11], ["a", "b"]), GOOD], images=[{**IMAGES[0], **fields}, IMAGES[1]])
    assert [(one.reason, one.message) for one in found if isinstance(one, Reject)] == [("record-invalid", message)] * 2
    assert [one.id for one in found if isinstance(one, Scene)] == ["2"]


def test_a_duplicate_is_rejected_under_its_key() -> None:
    refs = [grefs.ref(1, 1, [11], ["a"]), grefs.ref(1, 2, [21], ["b", "c"])]
    found = convert(refs)
    (reject,) = [one for one in found if isinstance(one, Reject)]
    assert (reject.key, reject.reason) == ("gres-1-10", "record-duplicate")
    assert reject.message == "key: an earlier record of the file is gres-1-10, too"
    assert reject.record["ref"]["sentences"] == [{"sent_id": 10, "sent": "b"}]
    assert len(answers(found)) == 2


def test_rejects_come_before_the_scene_in_the_order_of_the_file() -> None:
    refs = [grefs.ref(3, 1, [77], ["a", "b"]), grefs.ref(1, 1, [11]), grefs.ref(2, 1, [], [" "])]
    found = convert(refs)
    assert [one.key if isinstance(one, Reject) else one.id for one in found] == [
        "gres-3-30",
        "gres-3-31",
        "gres-2-20",
        "1",
    ]


def test_an_image_without_a_good_record_has_no_scene() -> None:
    assert [type(one) for one in convert([grefs.ref(1, 1, [77], ["a", "b"]), GOOD])] == [Reject, Reject, Scene]


def test_masks_are_decoded_once_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Any] = []
    read = masks.read_segmentation

    def counted(segmentation: Any, height: int, width: int) -> RLE:
        reads.append(segmentation)
        return read(segmentation, height, width)

    monkeypatch.setattr(masks, "read_segmentation", counted)
    convert([grefs.ref(number, 1, [11, 12], ["a", "b", "c"]) for number in range(5)])
    assert len(reads) == 2


def test_the_payload_is_not_changed() -> None:
    given_payload = payload([entry[0] for entry in REJECTS.values()] + [grefs.ref(5, 1, [11, 904700010881]), GOOD])
    before = copy.deepcopy(given_payload)
    assert list(converter().scenes(given_payload))
    assert given_payload == before


def test_a_pickled_converter_and_a_payload_through_json_give_the_same() -> None:
    one = converter(seed=5, crowd="skip")
    refs = [grefs.ref(number, 1, [11, 12], ["a", "b"]) for number in range(20)] + [GOOD]
    given_payload = payload(refs)
    other = pickle.loads(pickle.dumps(one))
    assert other == one
    assert len(pickle.dumps(one)) < 10_000
    assert list(other.scenes(json.loads(json.dumps(given_payload)))) == list(one.scenes(given_payload))


def test_the_wording_does_not_depend_on_order() -> None:
    refs = [grefs.ref(number, 1, [11], ["a", "b"]) for number in range(50)]
    shuffled = random.Random(3).sample(refs, len(refs))

    def turns(scenes: list[Scene | Reject]) -> dict[str, Any]:
        return {dialogue.key: dialogue for scene in scenes if isinstance(scene, Scene) for dialogue in scene.dialogues}

    assert turns(convert(refs)) == turns(convert(shuffled))
    assert turns(convert(refs)) != turns(convert(refs, options={"seed": 1}))


FIELDS = ["ref_id", "image_id", "ann_id", "no_target", "split", "sentences"]
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 30),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.floats(),
    st.just(10**30),
    st.lists(st.one_of(st.integers(-2, 30), st.just({"sent_id": 1, "sent": "a"}), st.none()), max_size=3),
    st.tuples(st.just({"sent_id": 2, "sent": "b"}), st.integers()),
    st.sets(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)


@st.composite
def damaged(draw: st.DrawFn) -> list[Any]:
    refs: list[Any] = [
        grefs.ref(
            number, draw(st.sampled_from([1, 2, 3])), draw(st.sampled_from([[], [11], [11, 12], [21]])), ["a", "b"]
        )
        for number in range(draw(st.integers(1, 4)))
    ]
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(refs) - 1))
        if isinstance(refs[place], dict):
            refs[place][draw(st.sampled_from(FIELDS))] = draw(VALUES)
    if draw(st.booleans()):
        refs[draw(st.integers(0, len(refs) - 1))] = draw(VALUES)
    return [GOOD, *refs]


@given(refs=damaged())
@settings(max_examples=300, deadline=None, derandomize=True)
def test_every_record_becomes_a_dialogue_or_a_reject(refs: list[Any]) -> None:
    plan = ReferPlan(
        refs=refs,
        instances={"images": IMAGES, "annotations": ANNOTATIONS},
        splits=("all",),
        unit_size=3,
        limit=None,
        images_root="images",
        files={},
        expected={},
        label="refs",
    )
    keys: list[str] = []
    for unit in plan.units:
        unit_payload = json.loads(json.dumps(plan.payload(unit), allow_nan=False))
        found = list(converter().scenes(unit_payload))
        listed = [one for one in found if isinstance(one, Reject)]
        dialogues = [dialogue for one in found if isinstance(one, Scene) for dialogue in one.dialogues]
        assert len(listed) + len(dialogues) == unit.records
        assert len(unit_payload) >= unit.images
        assert rejects.from_lines(rejects.to_lines(listed)) == listed
        keys += [dialogue.key for dialogue in dialogues]
    assert len(keys) == len(set(keys)) > 0
