"""ReVOS, beyond what MeViS has: folders in folders, frames beside the files, sizes, one file of masks."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest

from converters.masks.registry import open_mask_source
from converters.masks.source import MaskSource
from samtok_data.errors import SetupError
from tests.converters.mask_sources import HEIGHT, WIDTH, areas, read_all, reasons
from tests.converters.video_sources import described, expressions, names, stripe, write_frames, write_json

ALL: dict[str, Any] = {"frames": None, "expressions": None}
MASKS = {"6": [stripe(0)], "7": [stripe(0)] * 2, "8": [[stripe(1), stripe(2)], None], "9": [stripe(3)] * 2}


def write(root: Path, images: str = "JPEGImages", videos: dict[str, Any] | None = None) -> Path:
    train = videos or {
        "mose/abc": described(names(2), expressions([7], [8])),
        "UVO/all/-f": described(names(1), expressions([6])),
    }
    write_json(root / "meta_expressions_train_.json", {"videos": train})
    write_json(root / "meta_expressions_valid_.json", {"videos": {"lvvis/9": described(names(2), expressions([9]))}})
    write_json(root / "mask_dict.json", MASKS)
    write_frames(root / images, {**train, "lvvis/9": described(names(2), {})})
    return root


def open_revos(root: Path, **options: Any) -> MaskSource:
    return open_mask_source("revos", root=str(root), index=str(root / "index"), **options)


@pytest.mark.parametrize("images", ["JPEGImages", "."], ids=["in the folder of images", "beside the files"])
def test_videos_lie_folders_deep_in_either_place(tmp_path: Path, images: str) -> None:
    source = open_revos(write(tmp_path, images), **ALL)
    found, rejects = read_all(pickle.loads(pickle.dumps(source)))
    assert rejects == []
    assert {image.scene.id: areas(image) for image in found} == {
        "UVO/all/-f/00000": {"6": 600},
        "mose/abc/00000": {"7": 600, "8": 1200},
        "mose/abc/00001": {"7": 600},
    }
    assert found[1].scene.image == "mose/abc/00000.jpg"
    assert {image.open().size for image in found} == {(WIDTH, HEIGHT)}


def test_an_empty_folder_of_images_does_not_hide_the_videos(tmp_path: Path) -> None:
    write(tmp_path, ".")
    (tmp_path / "JPEGImages").mkdir()
    assert len(read_all(open_revos(tmp_path, **ALL))[0]) == 3


def test_a_video_that_is_not_there_does_not_decide_where_the_others_are(tmp_path: Path) -> None:
    write(tmp_path)
    for path in (tmp_path / "JPEGImages" / "UVO" / "all" / "-f").iterdir():
        path.unlink()
    (tmp_path / "JPEGImages" / "UVO" / "all" / "-f").rmdir()
    images, rejects = read_all(open_revos(tmp_path, **ALL))
    assert (len(images), reasons(rejects)) == (2, [("UVO/all/-f/00000", "frame-missing")])


def test_videos_stay_in_their_folder(tmp_path: Path) -> None:
    good = described(names(1), expressions([6]))
    write(tmp_path / "root", videos={"mose/abc": good})
    write_json(
        tmp_path / "root" / "meta_expressions_train_.json", {"videos": {"mose/../../abc": good, "mose/abc": good}}
    )
    write_frames(tmp_path, {"abc": good})
    (image,), (reject,) = read_all(open_revos(tmp_path / "root"))
    assert (image.scene.id, reject.key, reject.reason) == ("mose/abc/00000", "mose/../../abc", "record-invalid")


def test_both_splits_share_the_file_of_masks(tmp_path: Path) -> None:
    images, rejects = read_all(open_revos(write(tmp_path), split="valid", **ALL))
    assert rejects == []
    assert {image.scene.id: areas(image) for image in images} == {
        "lvvis/9/00000": {"9": 600},
        "lvvis/9/00001": {"9": 600},
    }


def test_names_without_the_last_underscore_and_a_folder_above(tmp_path: Path) -> None:
    write(tmp_path / "ReVOS")
    (tmp_path / "ReVOS" / "meta_expressions_train_.json").rename(tmp_path / "ReVOS" / "meta_expressions_train.json")
    assert len(read_all(open_revos(tmp_path, **ALL))[0]) == 3


def test_masks_are_held_against_the_size_that_the_video_states(tmp_path: Path) -> None:
    said = expressions([6])
    right, wrong = {"height": HEIGHT, "width": WIDTH}, {"height": 9, "width": 9}
    write(tmp_path, videos={"a": described(names(1), said, **right), "b": described(names(1), said, **wrong)})
    (image,), rejects = read_all(open_revos(tmp_path, **ALL))
    assert (image.scene.id, reasons(rejects)) == ("a/00000", [("b/00000/6", "mask-size")])
    write(tmp_path, videos={"a": described(names(1), said, height="x", width=None)})
    assert len(read_all(open_revos(tmp_path, **ALL))[0]) == 1


def test_the_published_zip_is_read_in_place(tmp_path: Path) -> None:
    write(tmp_path)
    before = [image.scene for image in read_all(open_revos(tmp_path, **ALL))[0]]
    with zipfile.ZipFile(tmp_path / "JPEGImages.zip", "w") as archive:
        for path in sorted((tmp_path / "JPEGImages").rglob("*.jpg")):
            archive.write(path, path.relative_to(tmp_path))
    (tmp_path / "JPEGImages").rename(tmp_path / "gone")
    images, rejects = read_all(open_revos(tmp_path, **ALL))
    assert ([image.scene for image in images], rejects) == (before, [])
    assert images[0].open().size == (WIDTH, HEIGHT)


def test_where_no_video_is_the_folders_are_named(tmp_path: Path) -> None:
    write(tmp_path, "frames")
    with pytest.raises(
        SetupError, match=r"no folder of frames, such as UVO/all/-f, under JPEGImages or \.; name the f"
    ):
        open_revos(tmp_path)
    assert len(read_all(open_revos(tmp_path, images="frames", **ALL))[0]) == 3
