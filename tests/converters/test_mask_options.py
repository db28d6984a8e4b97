"""Options of mask sources: files and folders where they are usually found, as they are or packed."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from converters.masks.options import (
    checked_limit,
    checked_treatment,
    checked_words,
    find_folder,
    first_file,
    first_folder,
)
from samtok_data.errors import SetupError
from samtok_data.storage import Folder

PLACES = ("train2017", "images/train2017")


def pack(archive: Path, *names: str) -> None:
    """A zip or tar of files that hold their own names."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as file:
            for name in names:
                file.writestr(name, name)
        return
    here = archive.with_name("unpacked")
    with tarfile.open(archive, "w") as tar:
        for name in names:
            here.write_text(name)
            tar.add(here, name)
    here.unlink()


PACKINGS = {
    "a folder of the same name": ("train2017.zip", "train2017/1.jpg"),
    "no folder": ("train2017.zip", "1.jpg"),
    "a tar": ("train2017.tar", "train2017/1.jpg"),
    "below": ("images/train2017.zip", "train2017/1.jpg"),
    "the folder above": ("images.zip", "images/train2017/1.jpg"),
    "in the folder above": ("images.tar", "train2017/1.jpg"),
}


@pytest.mark.parametrize(("archive", "member"), PACKINGS.values(), ids=PACKINGS)
def test_a_packed_folder_takes_the_place_of_the_folder(tmp_path: Path, archive: str, member: str) -> None:
    pack(tmp_path / archive, member, "__MACOSX/._1.jpg")
    assert first_folder(Folder(tmp_path), "images", None, PLACES).read("1.jpg") == member.encode()
    place = "train2017" if archive.startswith("train2017") else "images/train2017"
    assert find_folder(Folder(tmp_path), "images", place).read("1.jpg") == member.encode()


def test_a_folder_goes_before_its_archive_and_places_go_in_their_order(tmp_path: Path) -> None:
    pack(tmp_path / "images" / "train2017.zip", "train2017/1.jpg")
    (tmp_path / "images" / "train2017").mkdir()
    assert first_folder(Folder(tmp_path), "images", None, PLACES).path == str(tmp_path / "images" / "train2017")
    (tmp_path / "train2017").mkdir()
    assert first_folder(Folder(tmp_path), "images", None, PLACES).path == str(tmp_path / "train2017")
    assert first_folder(Folder(tmp_path), "images", "images/train2017", PLACES).path.endswith("images/train2017")
    assert first_folder(Folder(tmp_path), "images", None, ("nowhere", ".")).path == str(tmp_path)


def test_what_is_not_there_names_the_option(tmp_path: Path) -> None:
    pack(tmp_path / "train2017.zip", "others/1.jpg")
    root = Folder(tmp_path)
    with pytest.raises(SetupError, match="none of the folders train2018, a/b; name the folder with the option images"):
        first_folder(root, "images", None, ("train2018", "a/b"))
    with pytest.raises(SetupError, match="no folder train2018; name another one with the option images"):
        first_folder(root, "images", "train2018", PLACES)
    with pytest.raises(SetupError, match=r"none of the files a\.json, b/c\.json; name the file with the option json"):
        first_file(root, "json", None, ("a.json", "b/c.json"))
    with pytest.raises(SetupError, match="nowhere: no such folder; name the source's folder with root"):
        first_file(Folder(tmp_path / "nowhere"), "json", None, ("a.json",))
    with pytest.raises(SetupError, match="json: expected a name under the root, got "):
        first_file(root, "json", "../a.json", ())


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "train2017.zip").write_bytes(b"PK\x03\x04")
    with pytest.raises(SetupError, match=r"train2017\.zip: the archive cannot be read"):
        first_folder(Folder(tmp_path), "images", None, PLACES)


def test_files_are_looked_for_in_their_order(tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "c.json").mkdir()
    assert first_file(Folder(tmp_path), "json", None, ("c.json", "b.json", "a.json")) == "b.json"
    assert first_file(Folder(tmp_path), "json", "d.json", ("a.json",)) == "d.json"


@pytest.mark.parametrize("value", [0, -1, True, "3", 2.5])
def test_a_limit_is_a_number_or_none(value: Any) -> None:
    assert (checked_limit("masks_per_image", None), checked_limit("masks_per_image", 3)) == (None, 3)
    with pytest.raises(SetupError, match="masks_per_image: expected a whole number from 1 on, or null for no limit"):
        checked_limit("masks_per_image", value)


def test_a_treatment_is_one_of_two_words() -> None:
    assert checked_treatment("crowd", "keep") == "keep"
    with pytest.raises(SetupError, match="crowd: expected keep or skip, got None"):
        checked_treatment("crowd", None)


def test_words_are_a_list_of_texts() -> None:
    assert (checked_words("labels", ["a", "b c"]), checked_words("labels", [])) == (("a", "b c"), ())
    for value in ("sky", None, [1], {"sky": 1}):
        with pytest.raises(SetupError, match="labels: expected a list of texts, got "):
            checked_words("labels", value)
