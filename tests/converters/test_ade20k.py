"""ADE20K: the published preparation, and the challenge's files from which the same masks are made."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from converters.masks.ade20k import INFO
from converters.masks.registry import open_mask_source
from converters.masks.source import MaskSource
from samtok_data.errors import SetupError
from tests.converters.mask_sources import HEIGHT, WIDTH, areas, columns, label_map, photograph, read_all, reasons

NAME = "ADE_train_00000001"
CHALLENGE = "ADEChallengeData2016"
WALL, ROAD, BED, CAR, TOWER = 1, 7, 8, 21, 49  # classes; of them beds (1) and cars (9) are things
COLOURS = {WALL: (120, 120, 120), ROAD: (140, 140, 140), TOWER: (140, 140, 140), CAR: (0, 102, 200), BED: (204, 5, 255)}


def open_ade(root: Path, **options: Any) -> MaskSource:
    return open_mask_source("ade20k", root=str(root), index=str(root / "index"), **options)


def instance_map(path: Path, things_HW: NDArray[Any]) -> None:
    """``100 * class + instance`` in each pixel, as R and G; B holds nothing of use."""
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = [things_HW // 100, things_HW % 100, np.full_like(things_HW, 7)]
    Image.fromarray(np.stack(channels, axis=2).astype(np.uint8)).save(path)


def write(root: Path, classes_HW: NDArray[Any], things_HW: NDArray[Any] | None = None, name: str = NAME) -> Path:
    """The challenge's files of one image."""
    photograph(root / CHALLENGE / "images" / "training" / f"{name}.jpg")
    label_map(root / CHALLENGE / "annotations" / "training" / f"{name}.png", classes_HW)
    if things_HW is not None:
        instance_map(root / CHALLENGE / "annotations_instance" / "training" / f"{name}.png", things_HW)
    return root


def prepare(root: Path, classes_HW: NDArray[Any], things_HW: NDArray[Any], name: str = NAME) -> Path:
    """The prepared files of one image: stuff is painted, then things; a segment keeps the area of its own paint."""
    write(root, classes_HW, things_HW, name)
    pixels_HWC = np.zeros((*classes_HW.shape, 3), np.uint8)
    segments: list[dict[str, Any]] = []
    layers = [(classes_HW == number, COLOURS[number]) for number in np.unique(classes_HW) if number in (1, 7, 49)]
    layers += [
        (things_HW == number, tuple(np.add(COLOURS[{1: BED, 9: CAR}[number // 100]], (0, 0, -place))))
        for place, number in enumerate(np.unique(things_HW[things_HW > 0]))
    ]
    for mask_HW, colour in layers:
        pixels_HWC[mask_HW] = colour
        number = int(np.dot(colour, (1, 256, 65536)))
        segments.append({"id": number, "category_id": 0, "area": int(mask_HW.sum()), "iscrowd": 0, "bbox": [0] * 4})
    folder = root / CHALLENGE
    (folder / "ade20k_panoptic_train").mkdir(exist_ok=True)
    Image.fromarray(pixels_HWC).save(folder / "ade20k_panoptic_train" / f"{name}.png")
    image = {"id": name, "file_name": f"{name}.jpg", "height": HEIGHT, "width": WIDTH}
    annotation = {"image_id": name, "file_name": f"{name}.png", "segments_info": segments}
    value = {"images": [image], "annotations": [annotation], "categories": []}
    (folder / "ade20k_panoptic_train.json").write_text(json.dumps(value))
    return root


CLASSES = columns(0, WALL, CAR, BED, BED, ROAD)  # ten columns each
THINGS = np.zeros((HEIGHT, WIDTH), np.uint32)
THINGS[:, 15:30] = 901  # a car over half of the wall
THINGS[:, 30:35] = 102  # a bed; the rest of the class has no instance


def test_the_prepared_files_are_read_where_they_are_there(tmp_path: Path) -> None:
    source = open_ade(prepare(tmp_path, CLASSES, THINGS))
    (image,), rejects = read_all(source)
    assert rejects == []
    assert (image.scene.id, image.scene.image) == (NAME, f"{NAME}.jpg")  # an id that is a text
    # The wall has 400 pixels in the file: those that the car hides are no longer its own.
    assert sorted(areas(image).values()) == [200, 200, 400, 600]
    assert image.open().size == (WIDTH, HEIGHT)
    assert source.settings["layout"] == "panoptic"


def test_crowds_are_skipped_unless_they_are_kept(tmp_path: Path) -> None:
    path = prepare(tmp_path, CLASSES, THINGS) / CHALLENGE / "ade20k_panoptic_train.json"
    value = json.loads(path.read_text())
    value["annotations"][0]["segments_info"][0]["iscrowd"] = 1
    path.write_text(json.dumps(value))
    for options, count in (({}, 3), ({"crowd": "skip"}, 3), ({"crowd": "keep"}, 4)):
        (image,), rejects = read_all(open_ade(tmp_path, **options))
        assert (len(areas(image)), rejects) == (count, [])


def test_the_same_masks_are_made_of_the_challenges_files(tmp_path: Path) -> None:
    prepare(tmp_path, CLASSES, THINGS)
    (prepared,), _ = read_all(open_ade(tmp_path))
    (rebuilt,), rejects = read_all(open_ade(tmp_path, layout="challenge"))
    assert rejects == []
    assert areas(rebuilt) == {f"class-{WALL}": 200, f"class-{ROAD}": 400, "thing-1-2": 200, "thing-9-1": 600}
    assert {region.rle for region in rebuilt.scene.regions} == {region.rle for region in prepared.scene.regions}
    assert (rebuilt.scene.id, rebuilt.scene.image) == (prepared.scene.id, prepared.scene.image)


def test_roads_and_skyscrapers_have_one_colour_in_the_prepared_files(tmp_path: Path) -> None:
    prepare(tmp_path, columns(ROAD, TOWER, WALL), np.zeros((HEIGHT, WIDTH), np.uint32))
    (prepared,), rejects = read_all(open_ade(tmp_path))
    assert sorted(areas(prepared).values()) == [800, 1600]
    assert [reject.reason for reject in rejects] == ["record-duplicate"]
    (rebuilt,), rejects = read_all(open_ade(tmp_path, layout="challenge"))
    assert (areas(rebuilt), rejects) == ({"class-1": 800, "class-7": 800, "class-49": 800}, [])


def test_stuff_that_things_hide_is_a_reject_in_the_prepared_files_alone(tmp_path: Path) -> None:
    things_HW = np.full((HEIGHT, WIDTH), 901, np.uint32)
    prepare(tmp_path, columns(WALL, CAR), things_HW)
    (prepared,), rejects = read_all(open_ade(tmp_path))
    assert (list(areas(prepared).values()), [reject.reason for reject in rejects]) == ([2400], ["mask-empty"])
    (rebuilt,), rejects = read_all(open_ade(tmp_path, layout="challenge"))
    assert (areas(rebuilt), rejects) == ({"thing-9-1": 2400}, [])


def test_without_instances_a_class_of_things_is_one_mask(tmp_path: Path) -> None:
    classes = {f"class-{WALL}": 400, f"class-{ROAD}": 400, f"class-{BED}": 800, f"class-{CAR}": 400}
    source = open_ade(write(tmp_path, CLASSES))
    (image,), rejects = read_all(source)
    assert (areas(image), rejects, source.settings["things"]) == (classes, [], "classes")
    write(tmp_path, CLASSES, THINGS)
    assert open_ade(tmp_path).settings["things"] == "instances"
    (image,), _ = read_all(open_ade(tmp_path, things="classes"))
    assert areas(image) == classes


def test_the_instance_folder_can_lie_elsewhere(tmp_path: Path) -> None:
    write(tmp_path, CLASSES, THINGS)
    wanted = areas(read_all(open_ade(tmp_path))[0][0])
    with zipfile.ZipFile(tmp_path / "annotations_instance.zip", "w") as archive:
        path = tmp_path / CHALLENGE / "annotations_instance" / "training" / f"{NAME}.png"
        archive.write(path, f"annotations_instance/training/{NAME}.png")
    path.unlink()
    path.parent.rmdir()
    assert areas(read_all(open_ade(tmp_path))[0][0]) == wanted
    assert areas(read_all(open_ade(tmp_path, instances="annotations_instance.zip/annotations_instance/training"))[0][0])


def test_numbers_of_no_class_are_rejects(tmp_path: Path) -> None:
    things_HW = np.zeros((HEIGHT, WIDTH), np.uint32)
    things_HW[:, :10], things_HW[:, 10:20] = 3, 10105  # an instance of no class, and of class 101
    write(tmp_path, columns(WALL, WALL, WALL, 151, 200, WALL), things_HW)
    (image,), rejects = read_all(open_ade(tmp_path))
    assert areas(image) == {"class-1": 800}
    regions = ("class-151", "class-200", "thing-0-3", "thing-101-5")
    assert reasons(rejects) == [(f"{NAME}/{region}", "mask-unlisted") for region in regions]


def fault(root: Path, kind: str) -> None:
    """Damages the second image."""
    folder = root / CHALLENGE
    files = {part: folder / part / "training" / "b.png" for part in ("annotations", "annotations_instance")}
    if kind == "no image":
        (folder / "images" / "training" / "b.jpg").unlink()
    elif kind == "no instances":
        files["annotations_instance"].unlink()
    elif kind == "classes in colours":
        photograph(files["annotations"])
    elif kind == "instances in grey":
        label_map(files["annotations_instance"], CLASSES)
    elif kind == "cut":
        files["annotations"].write_bytes(files["annotations"].read_bytes()[:60])
    elif kind == "instances of another size":
        instance_map(files["annotations_instance"], THINGS[1:])
    elif kind == "two images":
        photograph(folder / "images" / "training" / "b.png")


FAULTS = {
    "no image": "image-missing",
    "no instances": "annotation-missing",
    "classes in colours": "annotation-unreadable",
    "instances in grey": "annotation-unreadable",
    "cut": "annotation-unreadable",
    "instances of another size": "mask-size",
    "two images": "record-duplicate",
}


@pytest.mark.parametrize(("kind", "reason"), FAULTS.items(), ids=FAULTS)
def test_a_broken_image_is_one_reject_and_the_others_are_read(tmp_path: Path, kind: str, reason: str) -> None:
    write(write(tmp_path, CLASSES, THINGS, "a"), CLASSES, THINGS, "b")
    fault(tmp_path, kind)
    (image,), rejects = read_all(open_ade(tmp_path))
    assert image.scene.id == "a"
    assert reasons(rejects) == [("b", reason)]


def test_an_image_of_another_size_shows_when_it_is_opened(tmp_path: Path) -> None:
    write(tmp_path, columns(WALL, width=WIDTH + 1))
    (image,), _ = read_all(open_ade(tmp_path))
    with pytest.raises(ValueError, match=r"drawn on 61x40, the image is 60x40 \[image-size\]"):
        image.open()


@pytest.mark.parametrize("layout", ["panoptic", "challenge"])
def test_masks_are_drawn_by_lot_after_small_ones_are_left_out(tmp_path: Path, layout: str) -> None:
    prepare(tmp_path, CLASSES, THINGS)
    source = open_ade(tmp_path, layout=layout, masks_per_image=2, min_area=400, seed=3)
    chosen = [areas(read_all(source)[0][0]) for _ in range(2)]
    assert chosen[0] == chosen[1]
    assert sorted(chosen[0].values()) == [400, 600]


def test_an_archive_holds_the_same_masks(tmp_path: Path) -> None:
    here = write(tmp_path / "here", CLASSES, THINGS)
    (tmp_path / "packed").mkdir()
    with zipfile.ZipFile(tmp_path / "packed" / f"{CHALLENGE}.zip", "w") as archive:
        for path in sorted(here.rglob("*.*")):
            archive.write(path, path.relative_to(here))
    (wanted,), _ = read_all(open_ade(here))
    source = pickle.loads(pickle.dumps(open_ade(tmp_path / "packed")))
    (image,), rejects = read_all(source)
    assert (image.scene, rejects) == (wanted.scene, [])
    assert image.open().tobytes() == wanted.open().tobytes()
    assert dict(source.settings) == dict(open_ade(here).settings)


REFUSED: dict[str, tuple[Mapping[str, Any], str]] = {
    "layout": ({"layout": "2017"}, "layout: expected panoptic or challenge or full, got '2017'"),
    "split": ({"split": "training"}, "split: expected train or val, got 'training'"),
    "things": ({"things": "none"}, "things: expected instances or classes, got 'none'"),
    "another layout's": ({"parts": "keep"}, "parts: the layout challenge has no such option; set layout: full, or"),
    "annotations": (
        {"layout": "full", "annotations": "a"},
        "annotations: the layout full has no such option; set layout: panoptic or challenge",
    ),
    "min_area": ({"min_area": "1"}, "min_area: expected a whole number from 1 on, got '1'"),
    "masks_per_image": ({"masks_per_image": True}, "masks_per_image: expected a whole number from 1 on, or null"),
    "no file": ({"layout": "panoptic"}, r"none of the files ADEChallengeData2016/ade20k_panoptic_train\.json, ade20k_"),
    "no instances": ({"things": "instances"}, "none of the folders ADEChallengeData2016/annotations_instance/training"),
    "no split": ({"split": "val"}, "none of ADEChallengeData2016/ade20k_panoptic_val.json, ADEChallengeData2016/annot"),
    "no pair": ({"images": "elsewhere"}, r"belongs to an image of .*elsewhere; expected <image>\.png"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_wrong_options_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    write(tmp_path, CLASSES)
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(SetupError, match=message):
        open_ade(tmp_path, **options)


def test_every_option_is_in_the_settings(tmp_path: Path) -> None:
    usual = {"kind": "ade20k", "split": "train", "min_area": 1, "masks_per_image": None, "seed": 0}
    settings = dict(open_ade(prepare(tmp_path, CLASSES, THINGS)).settings)
    assert len(settings.pop("sha256")) == 64
    assert settings == {**usual, "layout": "panoptic", "crowd": "skip"}
    settings = dict(open_ade(tmp_path, layout="challenge", seed=4).settings)
    assert len(settings.pop("names")) == 64
    assert settings == {**usual, "layout": "challenge", "things": "instances", "seed": 4}
    assert (INFO.images, INFO.masks) == (20_210, 197_000)


def test_real_images_of_the_challenge(samples: Path, tmp_path: Path) -> None:
    folder = samples / "masks" / "ade20k_sceneparsing150_sample"
    options = {"root": str(folder), "index": str(tmp_path), "images": "images", "annotations": "annotations"}
    images, rejects = read_all(open_mask_source("ade20k", **options))
    assert rejects == []
    assert {image.scene.id: len(image.scene.regions) for image in images} == {
        "ADE_val_00000001": 7,
        "ADE_val_00000002": 6,
        "ADE_val_00000003": 12,
    }
    for image in images:
        classes_HW = np.asarray(Image.open(folder / "annotations" / f"{image.scene.id}.png"))
        numbers, counts = np.unique(classes_HW, return_counts=True)
        stated = {f"class-{number}": int(count) for number, count in zip(numbers, counts, strict=True) if number}
        assert areas(image) == stated
        assert image.open().size == (image.scene.width, image.scene.height)
    root = samples / "masks" / "ade20k_2016_sample"
    for split, wanted in (("train", (512, 683, 16)), ("val", (512, 683, 7))):
        (image,), _ = read_all(open_mask_source("ade20k", root=str(root), index=str(tmp_path), split=split))
        assert (image.scene.height, image.scene.width, len(image.scene.regions)) == wanted
