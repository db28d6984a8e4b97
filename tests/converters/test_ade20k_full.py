"""ADE20K's releases: a colour code of its own, parts, and objects with what is hidden of them."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from converters.masks.registry import open_mask_source
from converters.masks.source import MaskSource
from samtok_data import masks
from samtok_data.errors import SetupError
from tests.converters.mask_sources import HEIGHT, WIDTH, areas, label_map, photograph, read_all, reasons

PLACE = "ADE20K_2021_17_01/images/ADE/training"
SCENE = "urban/street/one"
Pair = tuple[int, int]


def seg(path: Path, *pairs: Pair | tuple[int, int, int], height: int = HEIGHT) -> Path:
    """Upright stripes of ``(class, B)``, or of ``(R, G, B)``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colours = [(pair[0] // 256 * 10, pair[0] % 256, pair[1]) if len(pair) == 2 else pair for pair in pairs]
    row = np.asarray(colours, np.uint8)[np.arange(WIDTH) * len(pairs) // WIDTH]
    Image.fromarray(np.tile(row, (height, 1, 1))).save(path)
    return path


def thing(number: Any, *, level: Any = 0, **fields: Any) -> dict[str, Any]:
    """An object of the JSON file."""
    mask = f"one/instance_{number:03d}_one.png" if isinstance(number, int) else "one/x.png"
    usual = {"name_ndx": 312, "occluded": [], "parts": {"hasparts": [], "ispartof": [], "part_level": level}}
    return {"id": number, "instance_mask": mask, **usual, **fields}


def write_json(path: Path, *objects: Any, **fields: Any) -> None:
    value = {"filename": "one.jpg", "imsize": [HEIGHT, WIDTH, 3], "scene": ["été"], "object": objects, **fields}
    path.write_bytes(json.dumps({"annotation": value}, ensure_ascii=False).encode("latin-1"))


def write(root: Path, *, scene: str = SCENE, place: str = PLACE) -> Path:
    """An image of two objects of one class, a third one and void; the first object has parts, and parts of parts."""
    path = root / place / scene
    photograph(path.with_suffix(".jpg"))
    seg(Path(f"{path}_seg.png"), (312, 5), (312, 10), (0, 0), (2855, 8))
    seg(Path(f"{path}_parts_1.png"), (774, 3), (0, 0), (0, 0), (0, 0))
    seg(Path(f"{path}_parts_2.png"), (0, 0), *[(0, 0)] * 3, (60, 5, 9), *[(0, 0)] * 3)
    for number, columns in ((0, 30), (1, 10), (2, 15)):
        mask_HW = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask_HW[:, : columns // 2], mask_HW[:, columns // 2 : columns] = 255, 128  # seen, hidden
        label_map(path / f"instance_{number:03d}_one.png", mask_HW)
    write_json(path.with_suffix(".json"), thing(0), thing(1, level=1), thing(2))
    return root


def open_ade(root: Path, **options: Any) -> MaskSource:
    return open_mask_source("ade20k", root=str(root), index=str(root / "index"), **options)


def test_a_class_and_an_instance_are_one_object(tmp_path: Path) -> None:
    (image,), rejects = read_all(open_ade(write(tmp_path)))
    assert (areas(image), rejects) == ({"312-5": 600, "312-10": 600, "2855-8": 600}, [])
    assert (image.scene.id, image.scene.image) == (SCENE, f"{SCENE}.jpg")
    assert image.open().size == (WIDTH, HEIGHT)


def test_class_0_and_instance_0_are_void_and_red_counts_in_tens(tmp_path: Path) -> None:
    write(tmp_path)
    seg(tmp_path / PLACE / f"{SCENE}_seg.png", (0, 0, 7), (10, 56, 0), (19, 56, 4), (10, 56, 4), (9, 56, 4), (0, 0, 0))
    (image,), rejects = read_all(open_ade(tmp_path))
    assert (areas(image), rejects) == ({"312-4": 800, "56-4": 400}, [])


def test_parts_are_masks_by_option(tmp_path: Path) -> None:
    (image,), rejects = read_all(open_ade(write(tmp_path), parts="keep"))
    assert rejects == []
    assert areas(image) == {
        **{"312-5": 600, "312-10": 600, "2855-8": 600},
        **{"parts1-774-3": 600, "parts2-1541-9": 320},
    }


def test_objects_with_what_is_hidden_are_masks_by_option(tmp_path: Path) -> None:
    (image,), rejects = read_all(open_ade(write(tmp_path), shapes="amodal"))
    assert (areas(image), rejects) == ({"instance-0": 1200, "instance-2": 600}, [])
    (image,), _ = read_all(open_ade(tmp_path, shapes="amodal", parts="keep"))
    assert areas(image) == {"instance-0": 1200, "instance-1": 400, "instance-2": 600}


OBJECTS: dict[str, tuple[Any, str, str]] = {
    "no object": ("car", "object-1", "record-invalid"),
    "no id": ({**thing(1), "id": None}, "object-1", "record-invalid"),
    "no parts": ({**thing(1), "parts": []}, "instance-1", "record-invalid"),
    "no level": (thing(1, level="0"), "instance-1", "record-invalid"),
    "leads out": (thing(1, instance_mask="../../one.png"), "instance-1", "record-invalid"),
    "no mask": (thing(7), "instance-7", "annotation-missing"),
    "no PNG": (thing(1, instance_mask="one.json"), "instance-1", "annotation-unreadable"),
    "another size": (thing(1, instance_mask="one/small.png"), "instance-1", "mask-size"),
    "nothing": (thing(1, instance_mask="one/empty.png"), "instance-1", "mask-empty"),
    "twice": (thing(0), "instance-0", "record-duplicate"),
}


@pytest.mark.parametrize(("one", "region", "reason"), OBJECTS.values(), ids=OBJECTS)
def test_a_broken_object_is_one_reject(tmp_path: Path, one: Any, region: str, reason: str) -> None:
    write(tmp_path)
    path = tmp_path / PLACE / SCENE
    write_json(path.with_suffix(".json"), thing(0), one, thing(2))
    label_map(path / "small.png", np.full((9, 9), 255))
    label_map(path / "empty.png", np.zeros((HEIGHT, WIDTH)))
    (image,), rejects = read_all(open_ade(tmp_path, shapes="amodal"))
    assert areas(image) == {"instance-0": 1200, "instance-2": 600}
    assert reasons(rejects) == [(f"{SCENE}/{region}", reason)]


def fault(path: Path, kind: str) -> None:
    if kind == "no photograph":
        path.with_suffix(".jpg").unlink()
    elif kind == "no map":
        Path(f"{path}_seg.png").unlink()
    elif kind == "a grey map":
        label_map(Path(f"{path}_seg.png"), np.zeros((HEIGHT, WIDTH)))
    elif kind == "a cut map":
        Path(f"{path}_seg.png").write_bytes(Path(f"{path}_seg.png").read_bytes()[:80])
    elif kind == "no JSON":
        path.with_suffix(".json").unlink()
    elif kind == "no size":
        write_json(path.with_suffix(".json"), thing(0), imsize=[0, WIDTH, 3])
    elif kind == "no objects":
        path.with_suffix(".json").write_text("[]")


FAULTS = {
    "no photograph": ("visible", "image-missing"),
    "no map": ("visible", "annotation-missing"),
    "a grey map": ("visible", "annotation-unreadable"),
    "a cut map": ("visible", "annotation-unreadable"),
    "no JSON": ("amodal", "annotation-missing"),
    "no size": ("amodal", "annotation-unreadable"),
    "no objects": ("amodal", "annotation-unreadable"),
}


@pytest.mark.parametrize(("kind", "shapes", "reason"), [(kind, *row) for kind, row in FAULTS.items()], ids=FAULTS)
def test_a_broken_image_is_one_reject_and_the_others_are_read(
    tmp_path: Path, kind: str, shapes: str, reason: str
) -> None:
    write(write(tmp_path, scene="a/abbey/one"))
    fault(tmp_path / PLACE / SCENE, kind)
    (image,), rejects = read_all(open_ade(tmp_path, shapes=shapes))
    assert image.scene.id == "a/abbey/one"
    assert reasons(rejects) == [(SCENE, reason)]


def test_a_broken_map_of_parts_is_one_reject(tmp_path: Path) -> None:
    write(tmp_path)
    seg(tmp_path / PLACE / f"{SCENE}_parts_1.png", (774, 3), height=HEIGHT - 1)
    (image,), rejects = read_all(open_ade(tmp_path, parts="keep"))
    assert list(areas(image)) == ["312-5", "312-10", "2855-8", "parts2-1541-9"]
    assert reasons(rejects) == [(f"{SCENE}/parts1", "mask-size")]
    assert read_all(open_ade(tmp_path))[1] == []


@pytest.mark.parametrize(
    ("place", "root"),
    [
        ("ADE20K_2016_07_26/images/training", ""),
        ("ADE20K_2016_07_26/images/training", "ADE20K_2016_07_26"),
        (PLACE, "ADE20K_2021_17_01"),
        ("training", ""),
        ("elsewhere", ""),
    ],
)
def test_scenes_are_found_where_the_releases_have_them(tmp_path: Path, place: str, root: str) -> None:
    write(tmp_path, place=place, scene="one")
    options = {"images": "elsewhere", "layout": "full"} if place == "elsewhere" else {}
    (image,), _ = read_all(open_mask_source("ade20k", root=str(tmp_path / root), index=str(tmp_path), **options))
    assert image.scene.image == "one.jpg"


def test_an_archive_holds_the_same_masks(tmp_path: Path) -> None:
    here = write(tmp_path / "here")
    (tmp_path / "packed").mkdir()
    with zipfile.ZipFile(tmp_path / "packed" / "ADE20K_2021_17_01.zip", "w") as archive:
        archive.writestr(f"__MACOSX/{PLACE}/._two_seg.png", "")
        archive.writestr(f"{PLACE}/._two_seg.png", "")
        for path in sorted(here.rglob("*.*")):
            archive.write(path, path.relative_to(here))
    for options in ({"parts": "keep"}, {"shapes": "amodal"}):
        (wanted,), _ = read_all(open_ade(here, **options))
        (image,), rejects = read_all(pickle.loads(pickle.dumps(open_ade(tmp_path / "packed", **options))))
        assert (image.scene, rejects) == (wanted.scene, [])
        assert image.open().tobytes() == wanted.open().tobytes()


def test_folders_of_objects_are_not_listed(tmp_path: Path) -> None:
    write(tmp_path)
    seg(tmp_path / PLACE / SCENE / "two_seg.png", (312, 5))  # what lies among the objects is none of the scenes
    _images, rejects = read_all(open_ade(tmp_path))
    assert rejects == []


def test_a_folder_without_pairs_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / PLACE / f"{SCENE}.jpg").unlink()
    with pytest.raises(SetupError, match=r"expected pairs of <name>\.jpg and <name>_seg\.png, here or in folders"):
        open_ade(tmp_path)
    with pytest.raises(SetupError, match="shapes: expected visible or amodal, got 'all'"):
        open_ade(tmp_path, shapes="all")
    with pytest.raises(SetupError, match="parts: expected keep or skip, got True"):
        open_ade(tmp_path, parts=True)


def test_masks_are_drawn_by_lot(tmp_path: Path) -> None:
    source = open_ade(write(tmp_path), parts="keep", masks_per_image=2, seed=1, min_area=400)
    chosen = [areas(read_all(source)[0][0]) for _ in range(2)]
    assert chosen[0] == chosen[1]
    assert list(chosen[0].values()) == [600, 600]


# --- real files ------------------------------------------------------------------------------------------------------


def test_a_real_image_of_2021(samples: Path, tmp_path: Path) -> None:
    """Its classes are those of its JSON file, and each object has the pixels that its own file calls visible."""
    root = samples / "masks" / "ade20k_2021_sample"
    options = {"root": str(root), "index": str(tmp_path)}
    (image,), rejects = read_all(open_mask_source("ade20k", **options))
    assert rejects == []
    assert image.open().size == (2200, 1467)
    path = root / PLACE / f"{image.scene.id}.json"
    objects = json.loads(path.read_text("latin-1"))["annotation"]["object"]
    wholes = [one for one in objects if one["parts"]["part_level"] == 0]
    classes = Counter(int(region.id.partition("-")[0]) for region in image.scene.regions)
    assert len(wholes) == len(image.scene.regions) == 24
    assert classes == Counter(one["name_ndx"] for one in wholes)
    regions = {region.id: masks.decode(region.rle) for region in image.scene.regions}
    for one in wholes:
        seen_HW = np.asarray(Image.open(path.parent / one["instance_mask"])) == 255
        same_class = [mask for region, mask in regions.items() if region.startswith(f"{one['name_ndx']}-")]
        assert min(int((seen_HW ^ mask).sum()) for mask in same_class) < 700
    (parts,), rejects = read_all(open_mask_source("ade20k", **options, parts="keep"))
    assert (len(parts.scene.regions), rejects) == (32, [])
    found = Counter(int(region.split("-")[1]) for region in areas(parts) if region.startswith("parts1-"))
    assert found == Counter(one["name_ndx"] for one in objects if one["parts"]["part_level"] == 1)
    (amodal,), rejects = read_all(open_mask_source("ade20k", **options, shapes="amodal", parts="keep"))
    assert (len(amodal.scene.regions), rejects) == (32, [])
    for one in objects:
        mask_HW = np.asarray(Image.open(path.parent / one["instance_mask"]))
        assert areas(amodal)[f"instance-{one['id']}"] == np.count_nonzero(mask_HW)


def test_real_images_of_2016(samples: Path, tmp_path: Path) -> None:
    shutil.copytree(samples / "masks" / "ade20k_2016_sample" / "ADE20K_2016_07_26", tmp_path / "ADE20K_2016_07_26")
    for path in tmp_path.rglob("*_seg.png"):
        with Image.open(path) as opened:
            width, height = opened.size
        photograph(Path(f"{str(path).removesuffix('_seg.png')}.jpg"), height=height, width=width)  # not in the sample
    wanted = {"train": ("a/aiport_terminal/ADE_train_00000001", 102), "val": ("a/abbey/ADE_val_00000001", 8)}
    for split, (scene, count) in wanted.items():
        (image,), rejects = read_all(open_ade(tmp_path, split=split))
        assert (image.scene.id, len(image.scene.regions), rejects) == (scene, count, [])
        path = next(tmp_path.rglob(f"{Path(scene).name}_seg.png"))
        pixels = np.asarray(Image.open(path)).reshape(-1, 3)
        assert sum(areas(image).values()) == int((pixels[:, 2] > 0).sum())


def test_the_examples_of_datumaro(samples: Path, tmp_path: Path) -> None:
    folder = samples / "masks" / "datumaro_layout_fixtures"
    wanted = {
        ("2017", "train"): {"1-1": 3, "parts1-2-1": 3},
        ("2017", "val"): {"1-1": 6, "parts1-2-1": 6, "parts2-3-1": 3},
        ("2020", "train"): {"401-2": 15, "1831-1": 5, "parts1-774-1": 10},
        ("2020", "val"): {"401-2": 15, "1831-1": 5, "parts1-774-1": 10, "parts2-2122-1": 5},
    }
    for (year, split), stated in wanted.items():
        root = folder / f"ade20k{year}_dataset" / "dataset"
        source = open_mask_source("ade20k", root=str(root), index=str(tmp_path), split=split, parts="keep")
        (image,), rejects = read_all(source)
        assert (areas(image), rejects) == (stated, [])
        assert image.open().size == (image.scene.width, image.scene.height)
