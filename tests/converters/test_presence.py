"""Looking for files: patterns, archives, and an end of looking where a folder is large."""

from __future__ import annotations

from pathlib import Path

import pytest

from converters.masks import presence
from converters.masks.presence import Sighting, sight
from converters.masks.registry import MASK_SOURCE_INFOS
from samtok_data.storage import Folder, is_contained
from tests.conftest import BUCKET

THERE = ("a/b/one.jpg", "a/c/two.png", "x.json", "train2017.zip", "up.tar", "deep/1/2/3/four.jpg", ".hidden.json")
CASES: dict[str, tuple[list[str], str | None]] = {
    "file": (["x.json"], "x.json"),
    "folder": (["a/c"], "a/c"),
    "second place": (["y.json", "x.json"], "x.json"),
    "pattern": (["*.json"], "*.json"),
    "pattern below a folder": (["a/*/*.png"], "a/*/*.png"),
    "name below a pattern": (["*/c/two.png"], "*/c/two.png"),
    "no such ending": (["a/*/*.gif"], None),
    "a file is no folder": (["x.json/*"], None),
    "hidden": ([".hid*"], None),
    "any depth": (["deep/**/*.jpg"], "deep/**/*.jpg"),
    "any depth, none between": (["a/b/**/*.jpg"], "a/b/**/*.jpg"),
    "any depth, not there": (["**/*.gif"], None),
    "zip of a folder": (["train2017"], "train2017.zip"),
    "tar of the folder above": (["up/images/*.jpg"], "up.tar"),
    "a file is not packed": (["up/x.json"], None),
    "an ending counts": (["train2017.json"], None),
    "the folder goes before its archive": (["nothing", "a"], "a"),
}


@pytest.mark.parametrize("where", ["disk", "memory", "s3"])
def test_what_is_there_is_found(tmp_path: Path, request: pytest.FixtureRequest, where: str) -> None:
    if where == "s3":
        request.getfixturevalue("s3_endpoint")
    address = {"disk": str(tmp_path), "memory": f"memory://{tmp_path}", "s3": f"s3://{BUCKET}/{tmp_path.name}"}[where]
    root = Folder(address)
    for name in THERE:
        root.write(name, b"x")
    found = {label: sight(root, places, packed=True) for label, (places, _) in CASES.items()}
    assert found == {label: Sighting(place) for label, (_, place) in CASES.items()}
    assert sight(root, ["train2017"]) == Sighting(None)


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    assert sight(Folder(tmp_path / "none"), ["*.json", "a", "*/*"], packed=True) == Sighting(None)


@pytest.mark.parametrize(
    ("places", "names", "folders", "found"),
    [
        (["*.tar"], 20, 9, Sighting(None)),
        (["*.tar"], 19, 9, Sighting(None, is_sure=False)),
        (["*.tar", "*.jpg"], 19, 9, Sighting("*.jpg")),
        (["*/*.tar"], 99, 3, Sighting(None)),
        (["*/*.tar"], 99, 2, Sighting(None, is_sure=False)),
    ],
)
def test_looking_has_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, places: list[str], names: int, folders: int, found: Sighting
) -> None:
    for number in range(18):
        (tmp_path / f"{number}.jpg").touch()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(presence, "MAX_NAMES", names)
    monkeypatch.setattr(presence, "MAX_FOLDERS", folders)
    assert sight(Folder(tmp_path), places) == found


def test_a_listing_ends_at_the_first_match(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(50):
        (tmp_path / f"{number}.jpg").touch()
    monkeypatch.setattr(presence, "MAX_NAMES", 1)
    assert sight(Folder(tmp_path), ["*.jpg"]) == Sighting("*.jpg")


def test_every_published_place_can_be_looked_for() -> None:
    places = [
        place for info in MASK_SOURCE_INFOS.values() for file in info.files for place in (file.place, *file.elsewhere)
    ]
    assert len(places) > 60
    assert [place for place in places if not is_contained(place) or " " in place] == []
