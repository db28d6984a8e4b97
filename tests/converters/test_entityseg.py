"""EntitySeg: its layouts, its two sizes, and its splits, which number their images each for itself."""

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

PARTS = ("entity_01_11580", "entity_02_11598")


def write(root: Path, file: str = "entityseg_train_lr.json", folder: str = "images_lr", *, area: int = 10) -> Path:
    """Two images in two sub-folders: one has a polygon and an RLE, the other a polygon."""
    whole = masks.encode(np.ones((HEIGHT, WIDTH), np.bool_)).json
    names = [f"{part}/{number}.jpg" for number, part in enumerate(PARTS, start=1)]
    value = {
        "images": [coco_image(number, file_name=name) for number, name in enumerate(names, start=1)],
        "annotations": [
            coco_annotation(5, 2, segmentation=[box_polygon(0, 0, area, 10)], category_id=0),
            coco_annotation(3, 1, segmentation=[box_polygon(0, 0, area, 10)]),
            coco_annotation(4, 1, segmentation=whole, area=1, bbox=[1, 1, 1, 1]),
        ],
        "categories": [{"id": 0, "name": "unknown", "type": "thing", "c_name": "unknown"}],
    }
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(json.dumps(value))
    for name in names:
        photograph(root / folder / name)
    return root


def open_entityseg(root: Path, **options: Any) -> MaskSource:
    return open_mask_source("entityseg", root=str(root), index=str(root / "index"), **options)


def test_polygons_and_rles_of_the_small_images_are_read(tmp_path: Path) -> None:
    source = pickle.loads(pickle.dumps(open_entityseg(write(tmp_path))))
    (one, two), rejects = read_all(source)
    assert rejects == []
    assert [image.scene.image for image in (one, two)] == ["entity_01_11580/1.jpg", "entity_02_11598/2.jpg"]
    assert (areas(one), areas(two)) == ({"3": 100, "4": HEIGHT * WIDTH}, {"5": 100})
    assert one.open().size == two.open().size == (WIDTH, HEIGHT)
    assert source.settings["size"] == "low"


NAMES = [
    "entityv2_010203_entity_{}{}.json",
    "entityseg_{}{}.json",
    "entitysef_{}{}.json",
    "annotations/entityseg_{}{}.json",
]


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_the_annotation_file_is_found(tmp_path: Path, name: str) -> None:
    options = {
        ("train", "low"): ("train", "_lr", "images_lr", 11),
        ("val", "low"): ("val", "_lr", "images_lr", 12),
        ("train", "full"): ("train", "", "images", 13),
        ("val", "full"): ("val", "", "images", 14),
    }
    for split, ending, folder, area in options.values():
        write(tmp_path, name.format(split, ending), folder, area=area)
    for (split, size), (*_, area) in options.items():
        (one, _two), rejects = read_all(open_entityseg(tmp_path, split=split, size=size))
        assert (areas(one)["3"], rejects) == (10 * area, [])
    assert areas(read_all(open_entityseg(tmp_path))[0][0])["3"] == 110  # the published choice


def test_splits_number_their_images_each_for_itself(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, "entityseg_val_lr.json", area=20)
    train, val = (read_all(open_entityseg(tmp_path, split=split))[0] for split in ("train", "val"))
    assert [image.scene.id for image in train] == [image.scene.id for image in val] == ["1", "2"]
    assert (areas(train[1]), areas(val[1])) == ({"5": 100}, {"5": 200})


@pytest.mark.parametrize("packed", ["images_lr", *(f"images_lr/{part}" for part in PARTS)])
def test_packed_images_are_read_in_place(tmp_path: Path, packed: str) -> None:
    wanted = [image.scene for image in read_all(open_entityseg(write(tmp_path)))[0]]
    folder = tmp_path / packed
    shutil.make_archive(str(folder), "zip", folder.parent, folder.name)
    shutil.rmtree(folder)
    images, rejects = read_all(pickle.loads(pickle.dumps(open_entityseg(tmp_path))))
    assert ([image.scene for image in images], rejects) == (wanted, [])
    assert {image.open().size for image in images} == {(WIDTH, HEIGHT)}


def test_images_of_the_other_size_are_noticed(tmp_path: Path) -> None:
    write(tmp_path)
    photograph(tmp_path / "images_lr" / PARTS[0] / "1.jpg", height=2 * HEIGHT, width=2 * WIDTH)
    (one, _), rejects = read_all(open_entityseg(tmp_path))
    assert rejects == []
    with pytest.raises(RecordError, match="drawn on 60x40, the image is 120x80") as caught:
        one.open()
    assert caught.value.reason == "image-size"


def test_a_mask_of_the_other_size_is_a_reject(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "entityseg_train_lr.json"
    value = json.loads(path.read_text())
    value["annotations"][2]["segmentation"] = masks.encode(np.ones((2 * HEIGHT, WIDTH), np.bool_)).json
    path.write_text(json.dumps(value))
    (one, two), rejects = read_all(open_entityseg(tmp_path))
    assert (areas(one), areas(two), reasons(rejects)) == ({"3": 100}, {"5": 100}, [("1/4", "mask-size")])


def test_masks_of_an_image_can_be_drawn(tmp_path: Path) -> None:
    write(tmp_path)
    drawn = {seed: read_all(open_entityseg(tmp_path, masks_per_image=1, seed=seed))[0] for seed in range(8)}
    assert {len(image.scene.regions) for images in drawn.values() for image in images} == {1}
    assert {images[0].scene.regions[0].id for images in drawn.values()} == {"3", "4"}
    (one,), _ = read_all(open_entityseg(tmp_path, masks_per_image=1, min_area=101))
    assert list(areas(one)) == ["4"]


def test_options_are_checked_and_are_settings(tmp_path: Path) -> None:
    write(tmp_path)
    settings = open_entityseg(tmp_path, masks_per_image=3, seed=2, crowd="skip", min_area=4).settings
    wanted = {"split": "train", "size": "low", "crowd": "skip", "min_area": 4, "masks_per_image": 3, "seed": 2}
    assert {field: settings[field] for field in wanted} == wanted
    with pytest.raises(SetupError, match="size: expected low or full, got 'lr'"):
        open_entityseg(tmp_path, size="lr")
    with pytest.raises(
        SetupError, match=r"none of the files entityseg_val_lr\.json, .*; name the file with the option"
    ):
        open_entityseg(tmp_path, split="val")
    (tmp_path / "entityseg_train.json").write_text("{}")
    with pytest.raises(SetupError, match="none of the folders images; name the folder with the option images"):
        open_entityseg(tmp_path, size="full")
