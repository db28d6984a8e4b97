"""COCO instances: which annotation belongs to which image, what becomes a mask, what a reject."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.masks.registry import open_mask_source
from converters.masks.source import MaskSource
from samtok_data import masks
from samtok_data.errors import RecordError, SetupError
from samtok_data.storage import Folder
from tests.converters.mask_sources import (
    HEIGHT,
    WIDTH,
    areas,
    box_polygon,
    coco_annotation,
    coco_image,
    photograph,
    read_all,
    reasons,
    write_coco,
)


def open_coco(root: Path, **options: Any) -> MaskSource:
    usual = {"json": "instances.json", "images": "images"}
    return open_mask_source("coco-instances", root=str(root), index=str(root / "index"), **{**usual, **options})


def crowd(number: int, image_id: int) -> dict[str, Any]:
    """The left half of the image as COCO writes crowds: an RLE that is not compressed."""
    half = HEIGHT * WIDTH // 2
    return coco_annotation(
        number, image_id, iscrowd=1, segmentation={"size": [HEIGHT, WIDTH], "counts": [0, half, half]}
    )


def test_annotations_in_any_order_join_their_images(tmp_path: Path) -> None:
    compressed = masks.encode(np.ones((HEIGHT, WIDTH), np.bool_)).json
    annotations = [
        coco_annotation(31, 3),
        coco_annotation(11, 1, segmentation=[box_polygon(0, 0, 10, 10), box_polygon(5, 0, 10, 10)]),
        coco_annotation(32, 3, segmentation=compressed),
        crowd(12, 1),
    ]
    write_coco(tmp_path, [coco_image(3), coco_image(2), coco_image(1)], annotations)
    source = open_coco(tmp_path)
    (first, third), rejects = read_all(source)
    assert rejects == []
    assert [source.unit_name(unit) for unit in range(source.num_units)] == ["000000000001.jpg", "000000000003.jpg"]
    assert (first.scene.id, first.scene.image) == ("1", "000000000001.jpg")
    assert areas(first) == {"11": 150, "12": HEIGHT * WIDTH // 2}
    assert areas(third) == {"31": 100, "32": HEIGHT * WIDTH}
    assert third.open().size == (WIDTH, HEIGHT)


def test_images_may_lie_in_the_root_itself(tmp_path: Path) -> None:
    write_coco(tmp_path, [coco_image(1, file_name="images/000000000001.jpg")], [coco_annotation(11, 1)])
    (image,), rejects = read_all(open_coco(tmp_path, images="."))
    assert (image.open().size, rejects) == ((WIDTH, HEIGHT), [])


def test_crowds_and_small_masks_are_left_out_by_option(tmp_path: Path) -> None:
    write_coco(tmp_path, [coco_image(1), coco_image(2)], [coco_annotation(11, 1), crowd(12, 1), crowd(21, 2)])
    (first,), rejects = read_all(open_coco(tmp_path, crowd="skip"))
    assert (areas(first), rejects) == ({"11": 100}, [])
    (first, _), rejects = read_all(open_coco(tmp_path, min_area=101))
    assert (list(areas(first)), rejects) == (["12"], [])


def test_options_that_only_filter_share_one_index(tmp_path: Path) -> None:
    write_coco(tmp_path, [coco_image(1)], [coco_annotation(11, 1)])
    settings = [open_coco(tmp_path, **options).settings for options in ({}, {"crowd": "skip"}, {"min_area": 2})]
    assert len({json.dumps(dict(one), sort_keys=True) for one in settings}) == 3
    assert len(list((tmp_path / "index").glob("*.sqlite"))) == 1


BROKEN: dict[str, tuple[dict[str, Any], str, str]] = {
    "odd polygon": ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "mask-invalid", "expected x, y pairs, got an odd"),
    "box": ({"segmentation": [[1, 2, 3, 4]]}, "mask-invalid", "expected 6 numbers or more, got 4"),
    "far away": ({"segmentation": [[0, 0, 1e9, 0, 0, 5]]}, "mask-invalid", "1000000000.0 is no coordinate"),
    "no foreground": ({"segmentation": []}, "mask-empty", "got an empty list"),
    "null": ({"segmentation": None}, "mask-invalid", "expected a list or an RLE, got NoneType"),
    "other size": (
        {"segmentation": {"size": [4, 4], "counts": [16]}},
        "mask-size",
        "expected size [40, 60], got [4, 4]",
    ),
    "same id": ({"id": 10}, "record-duplicate", "10: a second mask of this id"),
}


@pytest.mark.parametrize(("fields", "reason", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_annotation_rejects_one_mask(tmp_path: Path, fields: Any, reason: str, message: str) -> None:
    annotations = [coco_annotation(10, 1), coco_annotation(11, 1, **fields), coco_annotation(12, 1)]
    write_coco(tmp_path, [coco_image(1)], annotations)
    (image,), (reject,) = read_all(open_coco(tmp_path))
    assert areas(image) == {"10": 100, "12": 100}
    assert reject.reason == reason
    assert message in reject.message
    assert reject.key == f"1/{fields.get('id', 11)}"
    assert reject.record["image"] == "000000000001.jpg"


def test_annotations_without_segmentation_or_id_are_rejects(tmp_path: Path) -> None:
    bare = {"id": 11, "image_id": 1, "iscrowd": 0}
    nameless = {"image_id": 1, "segmentation": [box_polygon(0, 0, 5, 5)]}
    write_coco(tmp_path, [coco_image(1)], [coco_annotation(10, 1), bare, nameless])
    (image,), rejects = read_all(open_coco(tmp_path))
    assert areas(image) == {"10": 100}
    assert reasons(rejects) == [("1/11", "record-invalid"), ("1/annotation-2", "record-invalid")]


def test_a_crowd_that_is_left_out_is_still_checked_for_its_id_and_keeps_the_places(tmp_path: Path) -> None:
    nameless = {name: value for name, value in crowd(13, 1).items() if name != "id"}
    broken = coco_annotation(14, 1, segmentation=[])
    write_coco(tmp_path, [coco_image(1)], [crowd(12, 1), crowd(12, 1), broken, nameless, coco_annotation(12, 1)])
    (image,), rejects = read_all(open_coco(tmp_path, crowd="skip"))
    assert areas(image) == {"12": 100}
    assert reasons(rejects) == [("1/14", "mask-empty"), ("1/annotation-3", "record-invalid")]


def test_annotations_of_no_image_are_one_reject_a_key(tmp_path: Path) -> None:
    others = [
        coco_annotation(20, 2),
        coco_annotation(21, 2),
        coco_annotation(30, None),
        "nothing",
        coco_annotation(4, -1),
    ]
    write_coco(tmp_path, [coco_image(1)], [coco_annotation(10, 1), *others])
    (image,), rejects = read_all(open_coco(tmp_path))
    assert image.scene.id == "1"
    assert reasons(rejects) == [("None", "image-unlisted"), ("2", "image-unlisted")]
    assert [reject.record["annotations"] for reject in rejects] == [3, 2]


UNUSABLE: dict[str, tuple[list[dict[str, Any]], str, str]] = {
    "leads out": ([coco_image(2, file_name="../a.jpg")], "record-invalid", "expected a relative name, got '../a.jpg'"),
    "absolute": ([coco_image(2, file_name="/a.jpg")], "record-invalid", "expected a relative name, got '/a.jpg'"),
    "two lines": ([coco_image(2, file_name="a\nb.jpg")], "record-invalid", "expected a relative name, got 'a\\nb.jpg'"),
    "no name": ([{"id": 2, "height": 4, "width": 4}], "record-invalid", "expected a relative name, got None"),
    "no size": ([coco_image(2, width=0)], "record-invalid", "expected height and width in pixels, got 40 and 0"),
    "huge": ([coco_image(2, height=10**9)], "record-invalid", "expected height and width in pixels, got 1000000000"),
    "twice": ([coco_image(2), coco_image(2, width=61)], "record-duplicate", "image 2: listed 2 times, differently"),
}


@pytest.mark.parametrize(("images", "reason", "message"), UNUSABLE.values(), ids=UNUSABLE)
def test_an_image_that_cannot_be_used_is_one_reject(tmp_path: Path, images: Any, reason: str, message: str) -> None:
    annotations = [coco_annotation(10, 1), coco_annotation(20, 2), coco_annotation(21, 2)]
    write_coco(tmp_path, [coco_image(1), *images], annotations)
    (image,), (reject,) = read_all(open_coco(tmp_path))
    assert image.scene.id == "1"
    assert (reject.key, reject.reason) == ("2", reason)
    assert message in reject.message


def test_an_image_that_is_listed_twice_alike_is_one(tmp_path: Path) -> None:
    write_coco(tmp_path, [coco_image(1), coco_image(1)], [coco_annotation(10, 1)])
    (image,), rejects = read_all(open_coco(tmp_path))
    assert (areas(image), rejects) == ({"10": 100}, [])


def test_pictures_are_looked_at_when_they_are_opened(tmp_path: Path) -> None:
    write_coco(tmp_path, [coco_image(1), coco_image(2)], [coco_annotation(10, 1), coco_annotation(20, 2)])
    (tmp_path / "images" / "000000000001.jpg").unlink()
    photograph(tmp_path / "images" / "000000000002.jpg", width=61)
    (first, second), rejects = read_all(open_coco(tmp_path))
    assert rejects == []
    with pytest.raises(RecordError, match="no such image") as caught:
        first.open()
    assert caught.value.reason == "image-missing"
    with pytest.raises(RecordError, match="drawn on 60x40, the image is 61x40") as caught:
        second.open()
    assert caught.value.reason == "image-size"


def as_text(value: Any) -> bytes:
    return json.dumps(value).encode()


ONE = {"images": [coco_image(1)], "annotations": [coco_annotation(10, 1)]}
PANOPTIC = {"images": [coco_image(1)], "annotations": [{"image_id": 1, "segments_info": []}]}
CAPTIONS = {"images": [coco_image(1)], "annotations": [{"id": 1, "image_id": 1, "caption": "a dog"}]}
REFUSED = {
    "panoptic": (as_text(PANOPTIC), "it looks like COCO panoptic annotations (kind coco-panoptic)"),
    "captions": (as_text(CAPTIONS), "it looks like COCO captions"),
    "a list": (as_text([coco_annotation(10, 1)]), "found none among 0; is it the right file?"),
    "no annotations": (as_text({"images": [coco_image(1)]}), "found none among 0"),
    "no images": (
        as_text({"annotations": ONE["annotations"]}),
        "no annotation belongs to an image that the file lists",
    ),
    "another split's": (as_text({**ONE, "images": [coco_image(2)]}), "no annotation belongs to an image"),
    "cut": (as_text(ONE)[:-20], "no complete JSON: parse error: premature EOF; the file is cut"),
    "two values": (as_text(ONE) * 2, "no complete JSON: parse error: trailing garbage"),
    "no JSON": (b"PK\x03\x04", "no complete JSON: lexical error"),
    "no UTF-8": (b'{"images": "\xff\xfe"}', "no complete JSON"),
    "empty": (b"", "no complete JSON"),
    "a number of 5,000 digits": (b'{"images": [' + b"9" * 5000 + b"]}", "no complete JSON"),
    "another kind, cut": (as_text({"annotations": CAPTIONS["annotations"] * 3000})[:-9], "it looks like COCO captions"),
}


@pytest.mark.parametrize(("data", "message"), REFUSED.values(), ids=REFUSED)
def test_a_file_of_another_kind_is_refused_and_leaves_nothing(tmp_path: Path, data: bytes, message: str) -> None:
    write_coco(tmp_path, [coco_image(1)], [coco_annotation(10, 1)])
    (tmp_path / "instances.json").write_bytes(data)
    with pytest.raises(SetupError) as caught:
        open_coco(tmp_path)
    assert message in str(caught.value)
    assert "instances.json" in str(caught.value)


@pytest.mark.parametrize("order", [("images", "annotations"), ("annotations", "images")])
@pytest.mark.parametrize("chunk", [64, 1 << 18], ids=["small chunks", "one chunk"])
def test_the_two_lists_stand_in_any_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: tuple[str, str], chunk: int
) -> None:
    monkeypatch.setattr("converters.files.json_stream._CHUNK", chunk)
    lists = {
        "images": [coco_image(number) for number in range(1, 9)],
        "annotations": [coco_annotation(10 * number, number) for number in range(1, 9)],
    }
    write_coco(tmp_path, lists["images"], [])
    others = {"info": {"images": [1, 2]}, "categories": [{"annotations": [3]}]}
    value = {"info": others["info"], **{name: lists[name] for name in order}, "categories": others["categories"]}
    (tmp_path / "instances.json").write_text(json.dumps(value))
    images, rejects = read_all(open_coco(tmp_path))
    assert ([areas(image) for image in images], rejects) == ([{str(10 * number): 100} for number in range(1, 9)], [])


def test_a_file_that_changes_while_it_is_read_leaves_no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_coco(tmp_path, [coco_image(1)], [coco_annotation(10, 1)])
    path, opened = tmp_path / "instances.json", Folder.open

    def changing(folder: Folder, name: str) -> Any:
        file = opened(folder, name)
        path.with_suffix(".new").write_text(path.read_text() + " ")
        path.with_suffix(".new").replace(path)
        return file

    monkeypatch.setattr(Folder, "open", changing)
    with pytest.raises(SetupError, match=r"instances\.json: it changed while it was read; start again"):
        open_coco(tmp_path)
    assert list((tmp_path / "index").glob("*.sqlite")) == []


LAYOUTS = [("annotations/instances_{}2017.json", "{}2017"), ("instances_{}2017.json", "images/{}2017")]


@pytest.mark.parametrize(("json_place", "image_place"), LAYOUTS)
@pytest.mark.parametrize("is_packed", [False, True])
def test_cocos_own_layouts_need_no_option(tmp_path: Path, json_place: str, image_place: str, is_packed: bool) -> None:
    for split, number in (("train", 1), ("val", 2)):
        write_coco(tmp_path / "in", [coco_image(number)], [coco_annotation(10 * number, number)])
        for name, place in (("instances.json", json_place), ("images", image_place)):
            target = tmp_path / place.format(split)
            target.parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "in" / name).rename(target)
        if is_packed:
            folder = tmp_path / image_place.format(split)
            shutil.make_archive(str(folder), "zip", folder.parent, folder.name)
            shutil.rmtree(folder)
    options = {"root": str(tmp_path), "index": str(tmp_path / "index")}
    for chosen, number in (({}, 1), ({"split": "val"}, 2)):
        source = pickle.loads(pickle.dumps(open_mask_source("coco-instances", **options, **chosen)))
        (image,), rejects = read_all(source)
        assert (areas(image), rejects) == ({str(10 * number): 100}, [])
        assert image.scene.image == f"00000000000{number}.jpg"
        assert image.open().size == (WIDTH, HEIGHT)
    with pytest.raises(SetupError, match="split: expected train or val, got 'test'"):
        open_mask_source("coco-instances", **options, split="test")


def test_a_file_that_is_not_there_names_the_option(tmp_path: Path) -> None:
    write_coco(tmp_path, [], [])
    with pytest.raises(SetupError, match=r"nothing\.json: no such file; give the annotation file with the option json"):
        open_coco(tmp_path, json="nothing.json")
    with pytest.raises(SetupError, match=r"instances_train\.json; name the file with the option json"):
        open_coco(tmp_path, json=None)
    with pytest.raises(SetupError, match="train2017, images/train2017, images/train; name the folder with the"):
        open_coco(tmp_path, images=None)
    with pytest.raises(SetupError, match="crowd: expected keep or skip, got 'drop'"):
        open_coco(tmp_path, crowd="drop")


def test_real_photographs_of_fruits_and_nuts(samples: Path, tmp_path: Path) -> None:
    root = samples / "masks" / "fruits_nuts_coco"
    options = {"root": str(root), "index": str(tmp_path), "json": "trainval.json", "images": "images"}
    images, rejects = read_all(open_mask_source("coco-instances", **options))
    assert (len(images), rejects) == (18, [])
    assert sum(len(image.scene.regions) for image in images) == 165
    by_id = {entry["id"]: entry for entry in json.loads((root / "trainval.json").read_text())["annotations"]}
    for image in images:
        assert image.open().size == (800, 600)
        for region in image.scene.regions:
            assert region.rle == masks.read_segmentation(by_id[int(region.id)]["segmentation"], 600, 800)
