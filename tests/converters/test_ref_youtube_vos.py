"""Ref-YouTube-VOS: objects from palette PNG files, by the ids that expressions name."""

from __future__ import annotations

import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from converters.masks.registry import open_mask_source
from converters.masks.source import MaskSource
from samtok_data import masks
from samtok_data.errors import RecordError, SetupError
from tests.converters.mask_sources import HEIGHT, WIDTH, areas, colour_map, columns, photograph, read_all, reasons
from tests.converters.video_sources import described, expressions, names, write_frames, write_json

ALL: dict[str, Any] = {"frames": None, "expressions": None}
# DAVIS's and YouTube-VOS's first colours: as grey they would be 38, 75 and 113.
PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, *range(12, 3 * 64)]


def palette_map(path: Path, *labels: int, height: int = HEIGHT, width: int = WIDTH) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(columns(*labels, height=height, width=width).astype(np.uint8), "P")
    image.putpalette(PALETTE)
    image.save(path)
    return path


def said_of(*ids: str) -> dict[str, Any]:
    return expressions(*ids, field="obj_id")


def write(root: Path, said: Any = None, frames: int = 2) -> Path:
    videos = {"v": described(names(frames, 5), said_of("1", "2", "1") if said is None else said)}
    write_json(root / "meta_expressions" / "train" / "meta_expressions.json", {"videos": videos})
    write_frames(root / "train" / "JPEGImages", videos)
    for frame in names(frames, 5):
        palette_map(root / "train" / "Annotations" / "v" / f"{frame}.png", 0, 1, 2, 2, 3)
    return root


def open_vos(root: Path, **options: Any) -> MaskSource:
    return open_mask_source("ref-youtube-vos", root=str(root), index=str(root / "index"), **options)


def test_a_pixel_is_the_object(tmp_path: Path) -> None:
    source = open_vos(write(tmp_path), **ALL)
    images, rejects = read_all(pickle.loads(pickle.dumps(source)))
    assert rejects == []
    assert {image.scene.id: areas(image) for image in images} == {
        "v/00000": {"1": 480, "2": 960},
        "v/00005": {"1": 480, "2": 960},
    }
    assert np.array_equal(masks.decode(images[0].scene.regions[1].rle), columns(0, 1, 2, 2, 3) == 2)
    assert (images[1].scene.image, images[1].open().size, images[1].frame) == ("v/00005.jpg", (WIDTH, HEIGHT), None)


def test_one_expression_in_five_frames_is_taken(tmp_path: Path) -> None:
    images, rejects = read_all(open_vos(write(tmp_path, frames=9)))
    assert (len(images), rejects) == (5, [])
    assert {len(image.scene.regions) for image in images} == {1}
    assert [image.scene for image in read_all(open_vos(tmp_path))[0]] == [image.scene for image in images]


def test_an_object_that_is_not_in_a_frame_is_no_fault(tmp_path: Path) -> None:
    write(tmp_path)
    palette_map(tmp_path / "train" / "Annotations" / "v" / "00000.png", 0, 2)
    palette_map(tmp_path / "train" / "Annotations" / "v" / "00005.png", 0)
    (image,), rejects = read_all(open_vos(tmp_path, **ALL))
    assert (image.scene.id, areas(image), rejects) == ("v/00000", {"2": 1200}, [])


def test_files_of_masks_that_nothing_speaks_of_are_not_read(tmp_path: Path) -> None:
    write(tmp_path, {"0": {"exp": "nothing", "obj_id": []}, "1": {"exp": "a dog", "obj_id": "1"}})
    shutil.rmtree(tmp_path / "train" / "Annotations" / "v")
    reasons_of = {seed: reasons(read_all(open_vos(tmp_path, seed=seed))[1]) for seed in range(6)}
    missing = [("v/00000", "annotation-missing"), ("v/00005", "annotation-missing")]
    assert [found for found in reasons_of.values() if found not in ([], missing)] == []
    assert {len(found) for found in reasons_of.values()} == {0, 2}


def test_ids_of_two_digits_and_numbers_are_read(tmp_path: Path) -> None:
    write(tmp_path, {**said_of("10"), "7": {"exp": "two", "obj_id": 2}}, frames=1)
    palette_map(tmp_path / "train" / "Annotations" / "v" / "00000.png", 1, 10, 2, 2)
    (image,), rejects = read_all(open_vos(tmp_path, **ALL))
    assert (areas(image), rejects) == ({"10": 600, "2": 1200}, [])


def test_grey_files_hold_the_id_itself(tmp_path: Path) -> None:
    write(tmp_path, frames=1)
    Image.fromarray(columns(0, 1, 2, 2).astype(np.uint8)).save(tmp_path / "train" / "Annotations" / "v" / "00000.png")
    (image,), _ = read_all(open_vos(tmp_path, **ALL))
    assert areas(image) == {"1": 600, "2": 1200}


def test_broken_files_of_masks_are_one_reject_each(tmp_path: Path) -> None:
    write(tmp_path, frames=6)
    folder = tmp_path / "train" / "Annotations" / "v"
    colour_map(folder / "00000.png", columns(0, 1, 2))  # colours: objects cannot be told
    (folder / "00005.png").write_bytes((folder / "00010.png").read_bytes()[:-30])
    (folder / "00015.png").unlink()
    (folder / "00020.png").write_text("text")
    images, rejects = read_all(open_vos(tmp_path, **ALL))
    assert [image.scene.id for image in images] == ["v/00010", "v/00025"]
    assert reasons(rejects) == [
        ("v/00000", "annotation-unreadable"),
        ("v/00005", "annotation-unreadable"),
        ("v/00015", "annotation-missing"),
        ("v/00020", "annotation-unreadable"),
    ]
    assert rejects[0].message == "v/00000.png: expected grey or a palette, got mode RGB"


def test_a_frame_that_is_not_there_is_one_reject(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "train" / "JPEGImages" / "v" / "00005.jpg").unlink()
    (image,), rejects = read_all(open_vos(tmp_path, **ALL))
    assert (image.scene.id, reasons(rejects)) == ("v/00000", [("v/00005", "frame-missing")])


def test_a_frame_of_another_size_is_noticed_when_it_is_opened(tmp_path: Path) -> None:
    write(tmp_path, frames=1)
    photograph(tmp_path / "train" / "JPEGImages" / "v" / "00000.jpg", height=HEIGHT + 1)
    (image,), _ = read_all(open_vos(tmp_path))
    with pytest.raises(RecordError) as caught:
        image.open()
    assert caught.value.reason == "image-size"


def test_a_list_without_frames_and_an_expression_without_object_are_rejects(tmp_path: Path) -> None:
    write(tmp_path, {**said_of("1"), "9": {"exp": "what"}})
    images, rejects = read_all(open_vos(tmp_path, **ALL))
    assert (len(images), reasons(rejects)) == (2, [("v/expression-9", "record-invalid")])
    path = tmp_path / "meta_expressions" / "train" / "meta_expressions.json"
    write_json(path, {"videos": {"v": described([], said_of("1"))}})
    assert reasons(read_all(open_vos(tmp_path))[1]) == [("v", "frame-missing")]


def test_folders_are_found_packed_and_without_train(tmp_path: Path) -> None:
    write(tmp_path)
    before = [image.scene for image in read_all(open_vos(tmp_path, **ALL))[0]]
    with zipfile.ZipFile(tmp_path / "train.zip", "w") as archive:
        for path in sorted((tmp_path / "train").rglob("*.*")):
            archive.write(path, path.relative_to(tmp_path))
    shutil.rmtree(tmp_path / "train")
    images, rejects = read_all(open_vos(tmp_path, **ALL))
    assert ([image.scene for image in images], rejects) == (before, [])
    assert images[0].open().size == (WIDTH, HEIGHT)
    (tmp_path / "train.zip").unlink()
    write(tmp_path / "other")
    for folder in ("JPEGImages", "Annotations"):
        (tmp_path / "other" / "train" / folder).rename(tmp_path / folder)
    assert [image.scene for image in read_all(open_vos(tmp_path, **ALL))[0]] == before
    named = {
        "json": "other/meta_expressions/train/meta_expressions.json",
        "images": "JPEGImages",
        "masks": "Annotations",
    }
    assert len(read_all(open_vos(tmp_path, **named))[0]) == 2


def test_what_cannot_be_opened_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"none of the files meta_expressions/train/meta_expressions\.json"):
        open_vos(tmp_path)
    write(tmp_path, {"0": {"exp": "the valid split names no object"}})
    with pytest.raises(SetupError, match="expected 'videos' with 'expressions' that have 'obj_id', found none among 1"):
        open_vos(tmp_path)
    shutil.rmtree(tmp_path / "train" / "Annotations")
    with pytest.raises(SetupError, match=r"none of the folders train/Annotations, Annotations, .*the option masks"):
        open_vos(tmp_path)
    with pytest.raises(SetupError, match="frames: expected a whole number from 1 on, or null for no limit"):
        open_vos(tmp_path, frames=-1)
