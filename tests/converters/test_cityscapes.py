"""Cityscapes: polygons, each whole, and label maps of 16 bits."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from converters.masks.cityscapes import INFO
from converters.masks.registry import open_mask_source
from converters.masks.source import MaskSource
from samtok_data import masks
from samtok_data.errors import SetupError
from samtok_data.rejects import Reject
from tests.converters.mask_sources import HEIGHT, WIDTH, areas, photograph, read_all, reasons

SCENE = "aachen/aachen_000000_000019"


def corners(left: int, top: int, width: int, height: int) -> list[list[int]]:
    """A polygon of exactly these pixels."""
    right, bottom = left + width, top + height
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def thing(label: str, *, width: int = 10, **fields: Any) -> dict[str, Any]:
    """An object whose area is ten times its width."""
    return {"label": label, "polygon": corners(5, 5, width, 10), **fields}


def write(root: Path, *objects: Any, scene: str = SCENE, split: str = "train", **fields: Any) -> Path:
    photograph(root / "leftImg8bit" / split / f"{scene}_leftImg8bit.png")
    path = root / "gtFine" / split / f"{scene}_gtFine_polygons.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"imgHeight": HEIGHT, "imgWidth": WIDTH, "objects": objects, **fields}))
    return root


def open_cityscapes(root: Path, **options: Any) -> MaskSource:
    return open_mask_source("cityscapes", root=str(root), index=str(root / "index"), **options)


def test_polygons_are_masks_but_for_three_labels(tmp_path: Path) -> None:
    labels = (
        *("road", "building", "sky", "out of roi", "ego vehicle", "rectification border", "static", "dynamic"),
        *("license plate", "cargroup", "building group"),
    )
    write(tmp_path, *(thing(label) for label in labels))
    (image,), rejects = read_all(open_cityscapes(tmp_path))
    left_out = {"building", "sky", "out of roi"}
    wanted = {f"object-{place}": 100 for place, label in enumerate(labels) if label not in left_out}
    assert (areas(image), rejects) == (wanted, [])
    assert (image.scene.id, image.scene.image) == (SCENE, f"{SCENE}_leftImg8bit.png")
    assert image.open().size == (WIDTH, HEIGHT)


def test_what_a_later_polygon_covers_stays_part_of_an_earlier_one(tmp_path: Path) -> None:
    write(tmp_path, {"label": "road", "polygon": corners(0, 0, 40, 20)}, thing("car"))
    (image,), _ = read_all(open_cityscapes(tmp_path))
    assert areas(image) == {"object-0": 800, "object-1": 100}


def test_an_object_keeps_its_id_whatever_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, thing("sky"), thing("road", width=20), thing("building", width=30))
    (image,), _ = read_all(open_cityscapes(tmp_path, leave_out=[]))
    assert areas(image) == {"object-0": 100, "object-1": 200, "object-2": 300}
    (image,), _ = read_all(open_cityscapes(tmp_path, leave_out=["road"]))
    assert areas(image) == {"object-0": 100, "object-2": 300}


OPTIONS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "as published": ({}, ["car", "cargroup", "static", "car, deleted"]),
    "without groups": ({"groups": "skip"}, ["car", "static", "car, deleted"]),
    "without deleted ones": ({"deleted": "skip"}, ["car", "cargroup", "static"]),
    "without void": ({"void": "skip"}, ["car", "cargroup", "car, deleted"]),
}


@pytest.mark.parametrize(("options", "kept"), OPTIONS.values(), ids=OPTIONS)
def test_groups_void_and_deleted_polygons_are_left_out_by_option(
    tmp_path: Path, options: dict[str, Any], kept: list[str]
) -> None:
    names = ["car", "cargroup", "static", "car, deleted"]
    write(
        tmp_path,
        thing("car", deleted=0),
        thing("cargroup"),
        thing("static"),
        thing("car", deleted=1, verified=0, user="a", date="b"),
    )
    (image,), rejects = read_all(open_cityscapes(tmp_path, **options))
    assert rejects == []
    assert [names[int(region.removeprefix("object-"))] for region in areas(image)] == kept


def test_a_polygon_of_several_parts_is_one_mask(tmp_path: Path) -> None:
    parts = [corners(0, 0, 10, 10), corners(20, 0, 10, 10)]
    write(tmp_path, {"label": "car", "polygon": parts})
    (image,), _ = read_all(open_cityscapes(tmp_path))
    assert areas(image) == {"object-0": 200}


BROKEN: dict[str, tuple[Any, str]] = {
    "no object": ("car", "record-invalid"),
    "no label": ({"polygon": corners(0, 0, 9, 9)}, "record-invalid"),
    "no polygon": ({"label": "car"}, "record-invalid"),
    "no list": ({"label": "car", "polygon": 7}, "mask-invalid"),
    "no points": ({"label": "car", "polygon": [1, 2, 3, 4, 5, 6]}, "mask-invalid"),
    "two points": ({"label": "car", "polygon": [[1, 2], [30, 30]]}, "mask-invalid"),
    "nothing": ({"label": "car", "polygon": []}, "mask-invalid"),
    "far outside": ({"label": "car", "polygon": [[0, 0], [10**9, 0], [0, 10**9]]}, "mask-invalid"),
    "outside": ({"label": "car", "polygon": corners(70, 50, 5, 5)}, "mask-empty"),
}


@pytest.mark.parametrize(("fault", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_polygon_is_one_reject(tmp_path: Path, fault: Any, reason: str) -> None:
    write(tmp_path, thing("road"), fault, thing("car"))
    (image,), rejects = read_all(open_cityscapes(tmp_path))
    assert areas(image) == {"object-0": 100, "object-2": 100}
    assert reasons(rejects) == [(f"{SCENE}/object-1", reason)]


FILES: dict[str, tuple[bytes, str]] = {
    "cut": (b'{"imgHeight": 40, "objects": [', "annotation-unreadable"),
    "another format": (b'{"shapes": []}', "annotation-unreadable"),
    "no size": (json.dumps({"imgHeight": 0, "imgWidth": WIDTH, "objects": []}).encode(), "annotation-unreadable"),
    "a list": (b"[]", "annotation-unreadable"),
}


@pytest.mark.parametrize(("data", "reason"), FILES.values(), ids=FILES)
def test_a_broken_file_is_one_reject_and_the_others_are_read(tmp_path: Path, data: bytes, reason: str) -> None:
    write(tmp_path, thing("road"))
    write(tmp_path, thing("car"), scene="bonn/bonn_000001_000019")
    (tmp_path / "gtFine" / "train" / f"{SCENE}_gtFine_polygons.json").write_bytes(data)
    (image,), rejects = read_all(open_cityscapes(tmp_path))
    assert image.scene.id == "bonn/bonn_000001_000019"
    assert reasons(rejects) == [(SCENE, reason)]


def test_an_annotation_without_its_image_is_a_reject_and_another_size_shows_when_it_is_opened(tmp_path: Path) -> None:
    write(tmp_path, thing("road"))
    write(tmp_path, thing("car"), scene="bonn/bonn_000001_000019", imgWidth=WIDTH + 1)
    write(tmp_path, thing("car"), scene="ulm/ulm_000000_000019")
    (tmp_path / "leftImg8bit" / "train" / "ulm" / "ulm_000000_000019_leftImg8bit.png").unlink()
    (_aachen, bonn), rejects = read_all(open_cityscapes(tmp_path))
    assert reasons(rejects) == [("ulm/ulm_000000_000019", "image-missing")]
    with pytest.raises(ValueError, match=r"its masks are drawn on 61x40, the image is 60x40 \[image-size\]"):
        bonn.open()


def test_two_annotations_of_an_image_are_a_reject(tmp_path: Path) -> None:
    write(tmp_path, thing("road"))
    path = tmp_path / "gtFine" / "train" / f"{SCENE}_gtFine_polygons.json"
    path.with_name(path.name.replace("gtFine", "gtCoarse")).write_bytes(path.read_bytes())
    assert reasons(read_all(open_cityscapes(tmp_path))[1]) == [(SCENE, "record-duplicate")]


def test_masks_are_drawn_by_lot_after_small_ones_are_left_out(tmp_path: Path) -> None:
    things = [thing("car", width=width) for width in range(1, 11)]
    for scene in (SCENE, "bonn/bonn_000001_000019"):
        write(tmp_path, *things, scene=scene)
    few = open_cityscapes(tmp_path, masks_per_image=3, min_area=50)
    first, second = ([areas(image) for image in read_all(few)[0]] for _ in range(2))
    assert first == second
    assert [len(one) for one in first] == [3, 3]
    assert first[0] != first[1]
    assert all(area >= 50 for one in first for area in one.values())
    # The image alone decides, neither what was read before nor the others.
    (alone,) = (item for item in few.read(1) if not isinstance(item, Reject))
    assert areas(alone) == first[1]
    other = [areas(image) for image in read_all(open_cityscapes(tmp_path, masks_per_image=3, seed=1))[0]]
    assert other != first


# --- label maps ------------------------------------------------------------------------------------------------------


def write_ids(root: Path, *numbers: int, scene: str = SCENE) -> Path:
    """A label map of upright stripes, 16 bits as published."""
    write(root, scene=scene)
    row = np.asarray(numbers, np.uint16)[np.arange(WIDTH) * len(numbers) // WIDTH]
    path = root / "gtFine" / "train" / f"{scene}_gtFine_instanceIds.png"
    Image.fromarray(np.tile(row, (HEIGHT, 1))).save(path)
    return root


IDS = (4, 7, 23, 26, 26000, 26001)  # static, road, sky, a group of cars, two cars
IDS_OPTIONS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "as usual": ({}, ["7", "26", "26000", "26001"]),
    "with void": ({"void": "keep"}, ["4", "7", "26", "26000", "26001"]),
    "without groups": ({"groups": "skip"}, ["7", "26000", "26001"]),
    "with the sky": ({"leave_out": ["car"]}, ["7", "23"]),
}


@pytest.mark.parametrize(("options", "kept"), IDS_OPTIONS.values(), ids=IDS_OPTIONS)
def test_label_maps_hold_stuff_groups_and_instances(tmp_path: Path, options: dict[str, Any], kept: list[str]) -> None:
    source = open_cityscapes(write_ids(tmp_path, *IDS), masks="instance-ids", **options)
    (image,), rejects = read_all(source)
    assert (areas(image), rejects) == (dict.fromkeys(kept, 400), [])


def test_a_group_of_poles_is_a_group_though_it_has_a_class_of_its_own(tmp_path: Path) -> None:
    write_ids(tmp_path, 17, 18)
    (image,), _ = read_all(open_cityscapes(tmp_path, masks="instance-ids", groups="skip"))
    assert list(areas(image)) == ["17"]


def test_numbers_of_no_class_are_rejects(tmp_path: Path) -> None:
    write_ids(tmp_path, 7, 34, 7001, 34000, 65535, 26000)
    (image,), rejects = read_all(open_cityscapes(tmp_path, masks="instance-ids"))
    assert list(areas(image)) == ["7", "26000"]
    assert reasons(rejects) == [(f"{SCENE}/{number}", "mask-unlisted") for number in (34, 7001, 34000, 65535)]


def test_a_label_map_of_colours_is_refused(tmp_path: Path) -> None:
    write_ids(tmp_path, *IDS)
    photograph(tmp_path / "gtFine" / "train" / f"{SCENE}_gtFine_instanceIds.png")
    images, (reject,) = read_all(open_cityscapes(tmp_path, masks="instance-ids"))
    assert (images, reject.reason) == ([], "annotation-unreadable")
    assert "expected grey or a palette, got mode RGB" in reject.message


def test_a_real_image(samples: Path, tmp_path: Path) -> None:
    root = samples / "masks" / "cityscapes_mini"
    options = {"root": str(root), "index": str(tmp_path), "split": "val", "masks": "instance-ids"}
    (image,), rejects = read_all(open_mask_source("cityscapes", **options, void="keep", leave_out=[]))
    assert rejects == []
    assert (image.scene.height, image.scene.width) == image.open().size[::-1] == (128, 256)
    path = root / "gtFine" / "val" / f"{image.scene.id}_gtFine_instanceIds.png"
    labels_HW = np.asarray(Image.open(path))
    numbers, counts = np.unique(labels_HW, return_counts=True)
    assert areas(image) == {str(number): count for number, count in zip(numbers.tolist(), counts.tolist(), strict=True)}
    assert [number for number in numbers if number >= 1000] == [*range(24000, 24004), *range(26000, 26003)]
    # Cityscapes' own second map holds the class of every pixel.
    classes_HW = np.asarray(Image.open(path.with_name(path.name.replace("instanceIds", "labelIds"))))
    for region in image.scene.regions:
        assert set(classes_HW[masks.decode(region.rle)].tolist()) == {int(region.id) // 1000 or int(region.id)}
    (usual,), _ = read_all(open_mask_source("cityscapes", **options))
    assert set(areas(image)) - set(areas(usual)) == {"1", "2", "3", "4", "11", "23"}


def test_the_examples_of_datumaro(samples: Path, tmp_path: Path) -> None:
    for place, wanted in (("dataset", ["24"]), ("train_dataset", ["24001"])):
        root = samples / "masks" / "datumaro_layout_fixtures" / "cityscapes_dataset" / place
        source = open_mask_source("cityscapes", root=str(root), index=str(tmp_path), masks="instance-ids")
        (image,), rejects = read_all(source)
        assert (list(areas(image)), rejects) == (wanted, [])


# --- files and options -----------------------------------------------------------------------------------------------


def test_archives_as_published_hold_the_same_masks(tmp_path: Path) -> None:
    here = write(tmp_path / "here", thing("road", width=20), thing("car"))
    wanted = read_all(open_cityscapes(here))
    packed = tmp_path / "packed"
    packed.mkdir()
    for folder in ("leftImg8bit", "gtFine"):
        with zipfile.ZipFile(packed / f"{folder}_trainvaltest.zip", "w") as archive:
            archive.writestr("README", "")
            for path in sorted((here / folder).rglob("*.*")):
                archive.write(path, path.relative_to(here))
    source = open_cityscapes(packed)
    assert dict(source.settings) == dict(open_cityscapes(here).settings)
    images, rejects = read_all(pickle.loads(pickle.dumps(source)))
    assert ([image.scene for image in images], rejects) == ([image.scene for image in wanted[0]], [])
    assert images[0].open().tobytes() == wanted[0][0].open().tobytes()


def test_coarse_annotations_are_read_by_naming_their_folder(tmp_path: Path) -> None:
    write(tmp_path, thing("road"), split="train_extra")
    (tmp_path / "gtFine").rename(tmp_path / "gtCoarse")
    path = tmp_path / "gtCoarse" / "train_extra" / f"{SCENE}_gtFine_polygons.json"
    path.rename(path.with_name(path.name.replace("gtFine", "gtCoarse")))
    (image,), _ = read_all(open_cityscapes(tmp_path, split="train_extra", annotations="gtCoarse"))
    assert areas(image) == {"object-0": 100}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "split": ({"split": "all"}, "split: expected train or val or test or train_extra, got 'all'"),
    "masks": ({"masks": "labels"}, "masks: expected polygons or instance-ids, got 'labels'"),
    "leave_out": ({"leave_out": "sky"}, "leave_out: expected a list of texts, got 'sky'"),
    "groups": ({"groups": False}, "groups: expected keep or skip, got False"),
    "deleted": ({"deleted": "drop"}, "deleted: expected keep or skip, got 'drop'"),
    "void": ({"void": 0}, "void: expected keep or skip, got 0"),
    "min_area": ({"min_area": 0}, "min_area: expected a whole number from 1 on, got 0"),
    "masks_per_image": ({"masks_per_image": 0}, "masks_per_image: expected a whole number from 1 on, or null"),
    "seed": ({"seed": "a"}, "seed: expected a whole number from 0 on, got 'a'"),
    "images": ({"images": "pictures"}, "no folder pictures; name another one with the option images"),
    "no split": ({"split": "val"}, "val: no such folder"),
    "no annotation": ({"masks": "instance-ids"}, r"expected <city>/<image>_leftImg8bit\.png and <city>/<image>_gtFine"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_wrong_options_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    write(tmp_path, thing("road"))
    with pytest.raises(SetupError, match=message):
        open_cityscapes(tmp_path, **options)


def test_every_option_is_in_the_settings(tmp_path: Path) -> None:
    write(tmp_path, thing("road"))
    usual = dict(open_cityscapes(tmp_path).settings)
    assert {key: value for key, value in usual.items() if key != "names"} == {
        **{"kind": "cityscapes", "split": "train", "masks": "polygons", "leave_out": ["building", "sky", "out of roi"]},
        **{"groups": "keep", "deleted": "keep", "void": "keep", "min_area": 1, "masks_per_image": None, "seed": 0},
    }
    json.dumps(usual)
    assert (INFO.images, INFO.masks) == (2975, 223_000)
