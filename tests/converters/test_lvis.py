"""LVIS: names of images in two versions, and a real file of a hundred images."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest

from converters.masks.registry import open_mask_source
from converters.masks.source import MaskSource
from samtok_data import masks
from samtok_data.errors import RecordError, SetupError
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
)


def image_of(number: int, folder: str, **fields: Any) -> dict[str, Any]:
    """An entry of v1, which has no ``file_name``."""
    url = f"http://images.cocodataset.org/{folder}/{number:012d}.jpg"
    entry = coco_image(number, coco_url=url, neg_category_ids=[], not_exhaustive_category_ids=[], **fields)
    return {field: value for field, value in entry.items() if field != "file_name" or field in fields}


def write(root: Path, file: str = "lvis_v1_val.json", images: str = ".", **fields: Any) -> Path:
    """An image in each of COCO's folders; the second has one mask more."""
    listed = [image_of(1, "val2017", **fields), image_of(2, "train2017", **fields)]
    wide = coco_annotation(22, 2, segmentation=[box_polygon(0, 0, 30, 10)])
    annotations = [coco_annotation(10, 1), coco_annotation(20, 2), wide]
    for annotation in annotations:
        del annotation["iscrowd"]
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(json.dumps({"images": listed, "annotations": annotations, "categories": []}))
    photograph(root / images / "val2017" / "000000000001.jpg")
    photograph(root / images / "train2017" / "000000000002.jpg")
    return root


def open_lvis(root: Path, **options: Any) -> MaskSource:
    return open_mask_source("lvis", root=str(root), index=str(root / "index"), **options)


@pytest.mark.parametrize("images", [".", "images", "coco", "coco/images"])
def test_images_are_found_by_their_address(tmp_path: Path, images: str) -> None:
    source = pickle.loads(pickle.dumps(open_lvis(write(tmp_path, images=images), split="val")))
    (one, two), rejects = read_all(source)
    assert ([one.scene.image, two.scene.image], rejects) == (
        ["val2017/000000000001.jpg", "train2017/000000000002.jpg"],
        [],
    )
    assert (areas(one), areas(two)) == ({"10": 100}, {"20": 100, "22": 300})
    assert one.open().size == two.open().size == (WIDTH, HEIGHT)


def test_the_names_of_2014_are_those_of_no_file(tmp_path: Path) -> None:
    write(tmp_path, "lvis_v0.5_val.json", file_name="COCO_val2014_000000000001.jpg")
    (one, two), _ = read_all(open_lvis(tmp_path, split="val"))
    assert [one.scene.image, two.scene.image] == ["val2017/000000000001.jpg", "train2017/000000000002.jpg"]
    assert one.open().size == (WIDTH, HEIGHT)


def test_the_first_version_that_is_there_is_read(tmp_path: Path) -> None:
    write(tmp_path, "annotations/lvis_v0.5_val.json")
    old = open_lvis(tmp_path, split="val").settings["sha256"]
    write(tmp_path, "annotations/lvis_v1_val.json", license=7)
    new = open_lvis(tmp_path, split="val").settings["sha256"]
    assert old != new
    assert open_lvis(tmp_path, split="val", version="v0.5").settings["sha256"] == old
    assert open_lvis(tmp_path, split="val", json="annotations/lvis_v0.5_val.json").settings["sha256"] == old
    with pytest.raises(
        SetupError, match=r"none of the files lvis_v1_train\.json, annotations/lvis_v1_train\.json, lvis"
    ):
        open_lvis(tmp_path)
    with pytest.raises(SetupError, match=r"version: expected v1 or v0\.5, got 1"):
        open_lvis(tmp_path, version=1)


@pytest.mark.parametrize("part", ["train2017", "val2017"])
def test_packed_images_are_read_in_place(tmp_path: Path, part: str) -> None:
    wanted = [image.scene for image in read_all(open_lvis(write(tmp_path), split="val"))[0]]
    shutil.make_archive(str(tmp_path / part), "zip", tmp_path, part)
    shutil.rmtree(tmp_path / part)
    images, rejects = read_all(pickle.loads(pickle.dumps(open_lvis(tmp_path, split="val"))))
    assert ([image.scene for image in images], rejects) == (wanted, [])
    assert {image.open().size for image in images} == {(WIDTH, HEIGHT)}


def test_a_folder_without_cocos_images_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(SetupError, match="val2017 holds neither train2017 nor val2017; name the folder above them"):
        open_lvis(tmp_path, split="val", images="val2017")
    shutil.rmtree(tmp_path / "train2017")
    (one, two), _ = read_all(open_lvis(tmp_path, split="val"))
    assert one.open().size == (WIDTH, HEIGHT)
    with pytest.raises(RecordError) as caught:
        two.open()
    assert caught.value.reason == "image-missing"
    shutil.rmtree(tmp_path / "val2017")
    with pytest.raises(SetupError, match="it, images, coco and coco/images hold neither train2017 nor val2017"):
        open_lvis(tmp_path, split="val")


@pytest.mark.parametrize("url", [None, 7, "x.jpg", "http://a/../x.jpg"])
def test_an_image_without_a_usable_address_is_one_reject(tmp_path: Path, url: Any) -> None:
    write(tmp_path)
    path = tmp_path / "lvis_v1_val.json"
    value = json.loads(path.read_text())
    value["images"][1]["coco_url"] = url
    path.write_text(json.dumps(value))
    (one,), rejects = read_all(open_lvis(tmp_path, split="val"))
    assert (areas(one), reasons(rejects)) == ({"10": 100}, [("2", "record-invalid")])


def test_masks_of_an_image_can_be_drawn(tmp_path: Path) -> None:
    write(tmp_path)
    drawn = {seed: read_all(open_lvis(tmp_path, split="val", masks_per_image=1, seed=seed))[0] for seed in range(8)}
    assert {images[1].scene.regions[0].id for images in drawn.values()} == {"20", "22"}
    settings = open_lvis(tmp_path, split="val", masks_per_image=1, seed=3, min_area=2).settings
    assert (settings["masks_per_image"], settings["seed"], settings["min_area"]) == (1, 3, 2)


def test_a_hundred_real_images(samples: Path, tmp_path: Path) -> None:
    there = samples / "masks" / "lvis_json_only" / "lvis_val_100.json"
    (tmp_path / "lvis_v0.5_val.json").symlink_to(there)
    (tmp_path / "val2017").mkdir()
    images, rejects = read_all(open_lvis(tmp_path, split="val"))
    value = json.loads(there.read_text())
    polygons = {str(one["id"]): one for one in value["annotations"]}
    sizes = {str(one["id"]): (one["height"], one["width"]) for one in value["images"]}
    assert (len(sizes), len(polygons)) == (100, 977)
    assert (len(images), rejects) == (93, [])  # seven images have none
    found = {region.id: region.rle for image in images for region in image.scene.regions}
    assert found.keys() == polygons.keys()
    for image in images:
        assert (image.scene.height, image.scene.width) == sizes[image.scene.id]
        assert image.scene.image == f"val2017/{int(image.scene.id):012d}.jpg"
        for region in image.scene.regions:
            stated = polygons[region.id]["segmentation"]
            assert region.rle == masks.read_segmentation(stated, *sizes[image.scene.id])
    # LVIS states the areas of polygons; those of their pixels are near.
    ratio = sum(masks.area(rle) for rle in found.values()) / sum(one["area"] for one in polygons.values())
    assert 0.99 < ratio < 1.01
