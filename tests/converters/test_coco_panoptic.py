"""COCO panoptic: the segments of a PNG file against those that are listed."""

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
from samtok_data.errors import SetupError
from tests.converters.mask_sources import (
    areas,
    coco_image,
    colour_map,
    columns,
    label_map,
    photograph,
    read_all,
    reasons,
)

LARGE = 7 + 256 * 21 + 65536 * 200


def annotation(image: int, *segments: Any, **fields: Any) -> dict[str, Any]:
    """An entry of ``annotations``; a number stands for a segment of that id."""
    listed = [
        {"id": one, "category_id": 1, "area": 3, "bbox": [0] * 4} if isinstance(one, int) else one for one in segments
    ]
    return {"image_id": image, "file_name": f"{image}.png", "segments_info": listed, **fields}


def write(root: Path, *annotations: Any, **more: Any) -> Path:
    images = [coco_image(number, file_name=f"{number}.jpg") for number in (1, 2)]
    (root / "panoptic_train.json").write_text(json.dumps({"images": images, "annotations": annotations, **more}))
    for number in (1, 2):
        photograph(root / "train" / f"{number}.jpg")
        colour_map(root / "panoptic_train" / f"{number}.png", columns(0, 5, 256, LARGE))
    return root


def open_panoptic(root: Path, **options: Any) -> MaskSource:
    usual = {"json": "panoptic_train.json", "images": "train"}
    return open_mask_source("coco-panoptic", root=str(root), index=str(root / "index"), **{**usual, **options})


def test_segments_are_read_by_the_24_bit_rule(tmp_path: Path) -> None:
    (one, two), rejects = read_all(
        open_panoptic(write(tmp_path, annotation(2, 5, 256, LARGE), annotation(1, 5, 256, LARGE)))
    )
    assert rejects == []
    assert [image.scene.image for image in (one, two)] == ["1.jpg", "2.jpg"]
    assert areas(one) == {"5": 600, "256": 600, str(LARGE): 600}
    assert np.array_equal(masks.decode(one.scene.regions[1].rle), columns(0, 5, 256, LARGE) == 256)
    assert one.open().size == (60, 40)


@pytest.mark.parametrize("labels", [(0, 5, 9), (0, 5, 1000)], ids=["8 bits", "16 bits"])
def test_grey_files_hold_the_id_itself(tmp_path: Path, labels: tuple[int, ...]) -> None:
    write(tmp_path, annotation(1, *labels[1:]))
    label_map(tmp_path / "panoptic_train" / "1.png", columns(*labels))
    (one,), rejects = read_all(open_panoptic(tmp_path))
    assert (areas(one), rejects) == ({str(label): 800 for label in labels[1:]}, [])


def test_crowds_are_skipped_unless_they_are_kept(tmp_path: Path) -> None:
    write(tmp_path, annotation(1, 5, {"id": 256, "iscrowd": 1}, {"id": LARGE, "iscrowd": 0}))
    (one,), rejects = read_all(open_panoptic(tmp_path))
    assert (list(areas(one)), rejects) == (["5", str(LARGE)], [])  # a crowd is listed: its pixels are no fault
    (one,), rejects = read_all(open_panoptic(tmp_path, crowd="keep"))
    assert (list(areas(one)), rejects) == (["5", "256", str(LARGE)], [])


def test_small_segments_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, annotation(1, 5, 256, LARGE))
    assert read_all(open_panoptic(tmp_path, min_area=601)) == ([], [])


def test_what_only_one_of_both_files_knows_is_a_reject(tmp_path: Path) -> None:
    write(tmp_path, annotation(1, 5, 77, LARGE, 5))
    (one,), rejects = read_all(open_panoptic(tmp_path))
    assert list(areas(one)) == ["5", str(LARGE)]
    assert reasons(rejects) == [("1/77", "mask-empty"), ("1/5", "record-duplicate"), ("1/256", "mask-unlisted")]
    assert rejects[0].message == "1.png: no pixel has the id 77, which segments_info lists"
    assert rejects[2].message == "1.png: it holds the id 256, which segments_info does not list"


@pytest.mark.parametrize("segment", [0, -3, 2**24, {"id": "5"}, {"id": True}, {}, "five", None])
def test_a_segment_without_a_usable_id_is_a_reject(tmp_path: Path, segment: Any) -> None:
    write(tmp_path, annotation(1, 5, 256, LARGE, segment))
    (one,), (reject,) = read_all(open_panoptic(tmp_path))
    assert len(areas(one)) == 3
    assert (reject.key, reject.reason) == ("1/segment-3", "record-invalid")


FAULTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "no file": ({"file_name": "3.png"}, "annotation-missing", "3.png: no such PNG file under "),
    "leads out": ({"file_name": "../1.png"}, "record-invalid", "file_name: expected a relative name, got '../1.png'"),
    "no name": ({"file_name": None}, "record-invalid", "file_name: expected a relative name, got None"),
    "no segments": ({"segments_info": None}, "record-invalid", "segments_info: expected a list, got None"),
    "another image's": (
        {"file_name": "small.png"},
        "mask-size",
        "small.png: expected 60x40 pixels, as its image, got 9x9",
    ),
    "no PNG": ({"file_name": "text.png"}, "annotation-unreadable", "text.png: is no PNG (4 bytes)"),
}


@pytest.mark.parametrize(("fields", "reason", "message"), FAULTS.values(), ids=FAULTS)
def test_an_annotation_that_cannot_be_read_is_one_reject(
    tmp_path: Path, fields: Any, reason: str, message: str
) -> None:
    write(tmp_path, annotation(1, 5, 256, LARGE), annotation(2, 5, 256, LARGE, **fields))
    colour_map(tmp_path / "panoptic_train" / "small.png", columns(5, height=9, width=9))
    (tmp_path / "panoptic_train" / "text.png").write_text("text")
    (one,), (reject,) = read_all(open_panoptic(tmp_path))
    assert one.scene.id == "1"
    assert (reject.key, reject.reason) == ("2/map", reason)
    assert message in reject.message


def test_a_second_annotation_of_an_image_is_a_reject(tmp_path: Path) -> None:
    write(tmp_path, annotation(1, 5, 256, LARGE), annotation(1, 5, file_name="2.png"))
    (one,), (reject,) = read_all(open_panoptic(tmp_path))
    assert len(areas(one)) == 3
    assert (reject.key, reject.reason) == ("1/map", "record-duplicate")


def test_an_annotation_of_no_image_is_a_reject(tmp_path: Path) -> None:
    write(tmp_path, annotation(1, 5, 256, LARGE), annotation(9, 5))
    (_one,), rejects = read_all(open_panoptic(tmp_path))
    assert reasons(rejects) == [("9", "image-unlisted")]


def test_instances_are_told_from_panoptic_annotations(tmp_path: Path) -> None:
    write(tmp_path, {"id": 1, "image_id": 1, "segmentation": [[0, 0, 5, 0, 5, 5]]})
    with pytest.raises(SetupError, match=r"it looks like COCO instances \(kind coco-instances\)"):
        open_panoptic(tmp_path)


def test_the_folder_of_maps_can_be_named(tmp_path: Path) -> None:
    write(tmp_path, annotation(1, 5, 256, LARGE))
    (tmp_path / "panoptic_train").rename(tmp_path / "maps")
    with pytest.raises(SetupError, match="no folder panoptic_train; name another one with the option masks"):
        open_panoptic(tmp_path)
    (_one,), rejects = read_all(open_panoptic(tmp_path, masks="maps"))
    assert rejects == []


def test_cocos_own_layout_needs_no_option(tmp_path: Path) -> None:
    write(tmp_path, annotation(1, 5, 256, LARGE))
    (tmp_path / "annotations").mkdir()
    (tmp_path / "panoptic_train.json").rename(tmp_path / "annotations" / "panoptic_train2017.json")
    maps = tmp_path / "annotations" / "panoptic_train2017"
    (tmp_path / "panoptic_train").rename(maps)
    (tmp_path / "train").rename(tmp_path / "train2017")
    source = open_panoptic(tmp_path, json=None, images=None)
    (whole,), rejects = read_all(source)
    assert (len(areas(whole)), rejects) == (3, [])
    shutil.make_archive(str(maps), "zip", maps.parent, maps.name)  # as COCO packs them, in a zip of their own
    shutil.rmtree(maps)
    packed = pickle.loads(pickle.dumps(open_panoptic(tmp_path, json=None, images=None)))
    assert packed.settings == source.settings
    assert [image.scene for image in read_all(packed)[0]] == [whole.scene]


def test_real_maps_in_cocos_own_layout(samples: Path, tmp_path: Path) -> None:
    """One image of each split; the sample's files list no images, so these are added."""
    there, here = samples / "masks" / "coco_panoptic_mseg_sample" / "annotations", tmp_path / "annotations"
    here.mkdir()
    for split, number, width, height in (("train", 9, 640, 480), ("val", 139, 640, 426)):
        name = f"panoptic_{split}2017"
        value = json.loads((there / f"{name}.json").read_text())
        value["images"] = [coco_image(number, height=height, width=width)]
        (here / f"{name}.json").write_text(json.dumps(value))
        (here / name).symlink_to(there / name)
        photograph(tmp_path / f"{split}2017" / f"{number:012d}.jpg", height=height, width=width)
    for split, segments in (("train", 10), ("val", 30)):
        options = {"root": str(tmp_path), "index": str(tmp_path / "index"), "split": split, "crowd": "keep"}
        (image,), rejects = read_all(open_mask_source("coco-panoptic", **options))
        (listed,) = json.loads((here / f"panoptic_{split}2017.json").read_text())["annotations"]
        stated = {str(segment["id"]): segment["area"] for segment in listed["segments_info"]}
        assert (areas(image), rejects, len(stated)) == (stated, [], segments)
        assert image.open().size == (image.scene.width, image.scene.height)


def test_another_set_in_cocos_layout(samples: Path, tmp_path: Path) -> None:
    """Made up by Datumaro: no year in the names, images/train. The map of train's image has another size."""
    root = samples / "masks" / "datumaro_layout_fixtures" / "coco_dataset" / "coco_panoptic"
    options = {"root": str(root), "index": str(tmp_path), "crowd": "keep"}
    assert reasons(read_all(open_mask_source("coco-panoptic", **options))[1]) == [("5/map", "mask-size")]
    (found,), rejects = read_all(open_mask_source("coco-panoptic", split="val", **options))
    (listed,) = json.loads((root / "annotations" / "panoptic_val.json").read_text())["annotations"]
    stated = {str(segment["id"]): segment["area"] for segment in listed["segments_info"]}
    assert (found.scene.image, areas(found), rejects) == ("b.jpg", stated, [])
    assert found.open().size == (found.scene.width, found.scene.height)


def test_real_images_of_coco(samples: Path, tmp_path: Path) -> None:
    """Areas as COCO counted them, and masks as its own converter made them of the same PNG files."""
    root = samples / "masks" / "coco_panoptic_sample"
    options = {"root": str(root), "index": str(tmp_path), "images": "input_images"}
    source = open_mask_source("coco-panoptic", json="panoptic_examples.json", crowd="keep", **options)
    images, rejects = read_all(source)
    assert rejects == []
    assert {image.scene.image: len(image.scene.regions) for image in images} == {
        "000000142238.jpg": 18,
        "000000439180.jpg": 32,
    }
    listed = json.loads((root / "panoptic_examples.json").read_text())["annotations"]
    stated = {(one["image_id"], segment["id"]): segment["area"] for one in listed for segment in one["segments_info"]}
    found = {(int(image.scene.id), int(region)): area for image in images for region, area in areas(image).items()}
    assert found == stated
    converted = open_mask_source("coco-instances", json="panoptic_coco_detection_format.json", **options)
    theirs = {region.rle for image in read_all(converted)[0] for region in image.scene.regions}
    assert {region.rle for image in images for region in image.scene.regions} == theirs
