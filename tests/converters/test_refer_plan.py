"""Units, splits, limits, expectations, duplicates, payloads."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from converters.dialogues.refer_plan import ReferPlan, plain
from converters.dialogues.registry import open_converter
from converters.dialogues.source import Plan, Unit
from samtok_data.errors import SetupError
from tests.converters import grefs

IMAGES = [grefs.image(number) for number in range(1, 6)]
ANNOTATIONS = [grefs.annotation(10 * number + place, number) for number in range(1, 6) for place in (1, 2)]
REFS = [
    grefs.ref(1, 3, [31], ["a", "b"]),
    grefs.ref(2, 1, [11], ["a"], split="testA"),
    grefs.ref(3, 1, [11, 12], ["a", "b", "c"]),
    grefs.ref(4, 3, [], ["a"]),
    grefs.ref(5, 2, [21], ["a"], split="val"),
    grefs.ref(6, 2, [22], ["a"]),
    grefs.ref(7, 3, [31], ["a"]),
    grefs.ref(8, 4, [41], [], split="testB"),
    grefs.ref(9, 5, [51], ["a"], split="testB"),
]


def make(tmp_path: Path, refs: list[Any] = REFS, **arguments: Any) -> Plan:
    grefs.write_gres(tmp_path, images=IMAGES, annotations=ANNOTATIONS, refs=refs, image_files="train2014")
    arguments = {"splits": ("all",), "unit_size": 3, "limit": None, **arguments}
    return open_converter("gres", root=str(tmp_path)).plan(**arguments)


def images(planned: Plan, split: str = "train") -> list[list[int]]:
    units = [unit for unit in planned.units if unit.split == split]
    assert [unit.index for unit in units] == list(range(len(units)))
    return [[entry["image_id"] for entry in planned.payload(unit)] for unit in units]


def test_units_are_cut_at_whole_images_in_the_order_of_the_file(tmp_path: Path) -> None:
    planned = make(tmp_path)
    assert planned.units == [
        Unit(split="train", index=0, images=1, records=4, masks=1),
        Unit(split="train", index=1, images=1, records=3, masks=2),
        Unit(split="train", index=2, images=1, records=1, masks=1),
        Unit(split="testA", index=0, images=1, records=1, masks=1),
        Unit(split="val", index=0, images=1, records=1, masks=1),
        Unit(split="testB", index=0, images=2, records=2, masks=2),
    ]
    assert images(planned) == [[3], [1], [2]]


CUTS = {1: [[3], [1], [2]], 4: [[3], [1, 2]], 5: [[3, 1], [2]], 8: [[3, 1, 2]], 100: [[3, 1, 2]]}


@pytest.mark.parametrize(("unit_size", "expected"), CUTS.items(), ids=map(str, CUTS))
def test_a_unit_is_closed_once_it_holds_so_many_records(
    tmp_path: Path, unit_size: int, expected: list[list[int]]
) -> None:
    assert images(make(tmp_path, unit_size=unit_size)) == expected


def test_a_limit_takes_the_first_images_of_every_split(tmp_path: Path) -> None:
    planned = make(tmp_path, limit=1)
    assert [(unit.split, unit.records) for unit in planned.units] == [
        ("train", 4),
        ("testA", 1),
        ("val", 1),
        ("testB", 1),
    ]
    whole = make(tmp_path)
    assert [planned.payload(unit) for unit in planned.units] == [
        whole.payload(unit)[:1] for unit in whole.units if unit.index == 0
    ]


SPLITS = {
    "one": (("val",), ["val"]),
    "file-order": (("val", "train", "val"), ["train", "val"]),
    "all": (("all",), ["train", "testA", "val", "testB"]),
    "all-among-others": (("val", "all"), ["train", "testA", "val", "testB"]),
    "test-is-both": (("test",), ["testA", "testB"]),
    "test-and-one": (("testB", "test", "val"), ["testA", "val", "testB"]),
}


@pytest.mark.parametrize(("asked", "planned"), SPLITS.values(), ids=SPLITS)
def test_splits(tmp_path: Path, asked: tuple[str, ...], planned: list[str]) -> None:
    assert list(dict.fromkeys(unit.split for unit in make(tmp_path, splits=asked).units)) == planned


def test_a_split_called_test_is_itself(tmp_path: Path) -> None:
    refs = [*REFS, grefs.ref(10, 1, [11], split="test")]
    assert {unit.split for unit in make(tmp_path, refs, splits=("test",)).units} == {"test"}


def test_splits_of_refclef_are_taken_verbatim(tmp_path: Path) -> None:
    refs = [*REFS, grefs.ref(10, 1, [11], split="testAB")]
    assert {unit.split for unit in make(tmp_path, refs, splits=("testAB",)).units} == {"testAB"}


WRONG_SPLITS = {
    "unknown": (("dev",), "--split dev: not in {refs}; it has train, testA, val, testB (or 'all')"),
    "case": (("Train",), "--split Train: not in {refs}; it has train, testA, val, testB (or 'all')"),
    "none": ((), "--split: expected one split or more, got none; {refs} has train, testA, val, testB (or 'all')"),
}


@pytest.mark.parametrize(("asked", "message"), WRONG_SPLITS.values(), ids=WRONG_SPLITS)
def test_a_split_that_is_not_there_lists_those_that_are(tmp_path: Path, asked: tuple[str, ...], message: str) -> None:
    message = message.replace("{refs}", f"{tmp_path}: grefcoco/grefs(unc).json")
    with pytest.raises(SetupError, match="^" + re.escape(message) + "$"):
        make(tmp_path, splits=asked)


def test_test_needs_both_of_its_parts(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"^--split test: not in "):
        make(tmp_path, [ref for ref in REFS if ref["split"] != "testB"], splits=("test",))


@pytest.mark.parametrize("arguments", [{"unit_size": 0}, {"limit": 0}], ids=str)
def test_sizes_below_one_are_refused(tmp_path: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(SetupError, match=r"^--samples-per-shard and --limit: expected 1 or more, got "):
        make(tmp_path, **arguments)


def test_expectations_count_the_sentences_of_the_whole_file(tmp_path: Path) -> None:
    counts = {one.split: (one.found, one.expected) for one in make(tmp_path, limit=1).expectations}
    assert counts == {
        "train": (8, 209_344),
        "testA": (1, 18_712),
        "val": (1, 16_870),
        "testB": (1, 14_933),  # the ref without sentences is a record, and no sentence
        "all": (11, 259_859),
    }
    chosen = make(tmp_path, splits=("val",)).expectations
    assert [(one.split, one.expected, one.found) for one in chosen] == [("val", 16_870, 1)]


def test_splits_without_a_table_are_not_expected(tmp_path: Path) -> None:
    refs = [grefs.ref(1, 1, 11), grefs.ref(2, 1, 12, split="val")]
    grefs.write_refer(tmp_path, "refcoco", "google", images=IMAGES, annotations=ANNOTATIONS, refs=refs)
    converter = open_converter("refcoco", root=str(tmp_path), partition="google")
    planned = converter.plan(splits=("all",), unit_size=1, limit=None)
    assert [(one.split, one.expected, one.found) for one in planned.expectations] == [("all", 142_210, 2)]


def test_the_files_are_hashed(tmp_path: Path) -> None:
    first = make(tmp_path).files
    assert {name: len(sha256) for name, sha256 in first.items()} == {
        "grefcoco/grefs(unc).json": 64,
        "grefcoco/instances.json": 64,
    }
    assert make(tmp_path).files == first
    changed = make(tmp_path, REFS[1:]).files
    assert [name for name in first if changed[name] != first[name]] == ["grefcoco/grefs(unc).json"]


def test_a_payload_survives_json(tmp_path: Path) -> None:
    planned = make(tmp_path)
    assert planned.units
    for unit in planned.units:
        payload = planned.payload(unit)
        assert json.loads(json.dumps(payload)) == payload


def test_a_payload_holds_what_its_records_need_and_no_more(tmp_path: Path) -> None:
    planned = make(tmp_path)
    entry = planned.payload(planned.units[1])[0]
    assert entry["image"] == {"file_name": "COCO_train2014_000000000001.jpg", "height": 40, "width": 60}
    assert list(entry["annotations"]) == ["11", "12"]
    assert sorted(entry["annotations"]["11"]) == ["image_id", "iscrowd", "segmentation"]
    assert [ref["position"] for ref in entry["refs"]] == [2]
    assert sorted(entry["refs"][0]["ref"]["sentences"][0]) == ["sent", "sent_id"]


def _plan_of(refs: list[Any], **changes: Any) -> ReferPlan:
    arguments: dict[str, Any] = {
        "refs": refs,
        "instances": {"images": IMAGES, "annotations": ANNOTATIONS},
        "splits": ("all",),
        "unit_size": 100,
        "limit": None,
        "images_root": "images",
        "files": {},
        "expected": {},
        "label": "refs",
        **changes,
    }
    return ReferPlan(**arguments)


def test_the_parsed_files_are_not_changed() -> None:
    refs, instances = copy.deepcopy(REFS), {"images": copy.deepcopy(IMAGES), "annotations": copy.deepcopy(ANNOTATIONS)}
    planned = _plan_of(refs, instances=instances)
    assert [planned.payload(unit) for unit in planned.units]
    assert refs == REFS
    assert instances == {"images": IMAGES, "annotations": ANNOTATIONS}


def test_of_annotations_with_one_id_the_last_counts() -> None:
    annotations = [*ANNOTATIONS, {**ANNOTATIONS[0], "iscrowd": 1}]
    planned = _plan_of([REFS[2]], instances={"images": IMAGES, "annotations": annotations})
    assert planned.payload(planned.units[0])[0]["annotations"]["11"]["iscrowd"] == 1


def test_unusable_entries_of_the_instances_are_passed_over() -> None:
    odd = [None, 3, {}, {"id": "11"}, {"id": True}, {"id": -1}]
    planned = _plan_of([REFS[2]], instances={"images": [*odd, *IMAGES], "annotations": [*odd, *ANNOTATIONS]})
    assert list(planned.payload(planned.units[0])[0]["annotations"]) == ["11", "12"]


def duplicates(planned: Plan) -> dict[int, list[int]]:
    listed = [ref for unit in planned.units for entry in planned.payload(unit) for ref in entry["refs"]]
    return {ref["position"]: ref["duplicates"] for ref in listed if ref["duplicates"]}


def test_the_later_of_two_records_with_one_key_is_the_duplicate() -> None:
    twice = grefs.ref(1, 3, [31], ["a", "b", "c"])
    twice["sentences"][2]["sent_id"] = twice["sentences"][0]["sent_id"]
    refs = [REFS[2], twice, {**REFS[0], "split": "val"}]
    assert duplicates(_plan_of(refs)) == {1: [2], 2: [0, 1]}
    assert duplicates(_plan_of(refs, splits=("val",))) == {2: [0, 1]}  # as with all splits


def test_one_sentence_in_two_refs_is_no_duplicate() -> None:
    assert duplicates(_plan_of([grefs.ref(1, 3, [31], ["a", "a"]), grefs.ref(2, 3, [31], ["a"])])) == {}


def test_records_without_split_or_image_are_in_the_plan() -> None:
    refs = [REFS[4], {**REFS[0], "split": 3}, {**REFS[2], "image_id": None}, 17, {**REFS[3], "split": "../x"}]
    planned = _plan_of(refs)
    assert planned.units == [
        Unit(split="val", index=0, images=2, records=1 + 2 + 1 + 1, masks=2),
        Unit(split="train", index=0, images=0, records=3, masks=2),
    ]
    assert planned.payload(planned.units[1])[0]["image_id"] is None


def test_tuples_of_a_pickle_are_lists() -> None:
    ref = {**REFS[2], "ann_id": (11, 12), "sentences": tuple(REFS[2]["sentences"])}
    listed, packed = _plan_of([REFS[2]], expected={"all": 3}), _plan_of([ref], expected={"all": 3})
    assert packed.units == listed.units
    assert packed.payload(packed.units[0]) == listed.payload(listed.units[0])
    assert [one.found for one in packed.expectations] == [3]


PLAIN = {
    "json": ({"a": [1, 2.5, None, True, "ü"]}, {"a": [1, 2.5, None, True, "ü"]}),
    "tuple": ((1, (2,)), [1, [2]]),
    "key": ({1: "a"}, {"1": "a"}),
    "bytes": (b"\xff", {"bytes": "b'\\xff'"}),
    "nan": (float("nan"), {"float": "nan"}),
    "large": (10**5000, {"int": "16610 bits"}),
    "set": ({1}, {"set": "not shown"}),
    "deep": ([[[[[[[1]]]]]]], [[[[[[{"list": "not shown"}]]]]]]),
}


@pytest.mark.parametrize(("value", "expected"), PLAIN.values(), ids=PLAIN)
def test_values_become_json_values(value: Any, expected: Any) -> None:
    assert plain(value) == expected
    json.dumps(expected, allow_nan=False)


def test_a_split_does_not_depend_on_the_other_splits_asked_for(tmp_path: Path) -> None:
    refs = [grefs.ref(1, 1, [1]), grefs.ref(1, 2, [2], split="val"), grefs.ref(2, 2, [2], split="val")]
    images, annotations = [grefs.image(1), grefs.image(2)], [grefs.annotation(1, 1), grefs.annotation(2, 2)]
    root = grefs.write_gres(tmp_path, images=images, annotations=annotations, refs=refs)
    converter = open_converter("gres", root=str(root))
    alone = converter.plan(splits=("val",), unit_size=9, limit=None)
    among = converter.plan(splits=("all",), unit_size=9, limit=None)
    (unit,) = alone.units
    payload = alone.payload(unit)
    assert payload == among.payload(unit)
    assert [listed["duplicates"] for listed in payload[0]["refs"]] == [[0], []]


def test_the_first_image_of_a_split_has_a_target(tmp_path: Path) -> None:
    refs = [grefs.ref(1, 1, []), grefs.ref(2, 2, []), grefs.ref(3, 3, [3]), grefs.ref(4, 1, [])]
    images = [grefs.image(number) for number in (1, 2, 3)]
    root = grefs.write_gres(tmp_path, images=images, annotations=[grefs.annotation(3, 3)], refs=refs)
    plan = open_converter("gres", root=str(root)).plan(splits=("train",), unit_size=1, limit=None)
    assert [plan.payload(unit)[0]["image_id"] for unit in plan.units] == [3, 1, 2]
