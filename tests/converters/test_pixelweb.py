"""PixelWeb: elements of web pages, their numbers, and files that do not belong together."""

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
    columns,
    photograph,
    printed_by,
    read_all,
)

CLASSES = ["body", "button", "none", "image", "link"]


def write(folder: Path, name: str = "a", *, classes: Any = CLASSES, labels: Any = None) -> Path:
    """A page of six stripes: nothing, the page, then an element each; the link is covered."""
    photograph(folder / f"{name}-screenshot.png")
    stripes = columns(0, 1, 2, 3, 4, 4) if labels is None else labels
    (folder / f"{name}-mask.json").write_text(json.dumps(np.asarray(stripes).tolist()))
    (folder / f"{name}-class.json").write_text(json.dumps(classes))
    return folder


def open_pixelweb(root: Path, **options: Any) -> MaskSource:
    return open_mask_source("pixelweb", root=str(root), index=str(root / "index"), **options)


def test_elements_are_masks_but_for_the_page_and_those_without_class(tmp_path: Path) -> None:
    write(tmp_path / "annotated" / "part-1", "a.b")
    source = pickle.loads(pickle.dumps(open_pixelweb(tmp_path)))
    (image,), rejects = read_all(source)
    assert rejects == []
    assert (image.scene.id, image.scene.image) == ("part-1/a.b", "part-1/a.b-screenshot.png")
    assert areas(image) == {"2": 400, "4": 800}  # number 4 is the fourth class; the fifth has no pixel
    assert np.array_equal(masks.decode(image.scene.regions[0].rle), columns(0, 1, 2, 3, 4, 4) == 2)
    assert image.open().size == (WIDTH, HEIGHT)
    assert source.unit_name(0) == "part-1/a.b-screenshot.png"


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"page": "keep"}, ["1", "2", "4"]),
        ({"unclassed": "keep"}, ["2", "3", "4"]),
        ({"page": "keep", "unclassed": "keep"}, ["1", "2", "3", "4"]),
        ({"min_area": 401}, ["4"]),
    ],
)
def test_what_is_left_out_is_an_option(tmp_path: Path, options: dict[str, Any], found: list[str]) -> None:
    source = open_pixelweb(write(tmp_path / "annotated"), **options)
    (image,), rejects = read_all(source)
    assert (list(areas(image)), rejects) == (found, [])
    assert {field: source.settings[field] for field in options} == options


PLACES = ["annotated", "annotated/train", "pixelweb_100k/annotated/train", "train", "."]


@pytest.mark.parametrize("place", PLACES)
def test_pages_are_found_where_they_are_published(tmp_path: Path, place: str) -> None:
    write(tmp_path / place)
    (image,), rejects = read_all(open_pixelweb(tmp_path))
    prefix = "train/" if place.endswith("train") else ""
    assert (image.scene.id, image.scene.image, rejects) == (f"{prefix}a", f"{prefix}a-screenshot.png", [])


def test_splits_have_names_of_their_own(tmp_path: Path) -> None:
    for split in ("one", "two"):
        write(tmp_path / "annotated" / split)
    images, rejects = read_all(open_pixelweb(tmp_path))
    assert ([image.scene.id for image in images], rejects) == (["one/a", "two/a"], [])
    source = open_pixelweb(tmp_path, split="two")
    assert [image.scene.id for image in read_all(source)[0]] == ["two/a"]
    assert source.settings["split"] == "two"
    with pytest.raises(SetupError, match="no folder three; name another one with the option split"):
        open_pixelweb(tmp_path, split="three")
    assert [image.scene.id for image in read_all(open_pixelweb(tmp_path, folder="annotated/one"))[0]] == ["a"]


@pytest.mark.parametrize("packed", ["annotated", "annotated/one"])
def test_packed_pages_are_read_in_place(tmp_path: Path, packed: str) -> None:
    for split in ("one", "two"):
        write(tmp_path / "in" / "annotated" / split)
    wanted = [image.scene for image in read_all(open_pixelweb(tmp_path / "in"))[0]]
    folder = tmp_path / "in" / packed
    shutil.make_archive(str(folder), "zip", folder.parent, folder.name)
    shutil.rmtree(folder)
    for options, scenes in (({}, wanted), ({"split": "one"}, wanted[:1])):
        images, rejects = read_all(pickle.loads(pickle.dumps(open_pixelweb(tmp_path / "in", **options))))
        assert ([image.scene for image in images], rejects) == (scenes, [])
        assert {image.open().size for image in images} == {(WIDTH, HEIGHT)}


FAULTS: dict[str, tuple[str, Any, str, str]] = {
    "no screenshot": ("screenshot.png", None, "image-missing", "a: no image of this name"),
    "no matrix": ("mask.json", None, "annotation-missing", "a: no a-mask.json beside its screenshot"),
    "no classes": ("class.json", None, "annotation-missing", "a: no a-class.json beside its screenshot"),
    "another size": ("mask.json", columns(1, 2, width=50), "mask-size", "expected 60x40 numbers, as its screenshot"),
    "turned round": ("mask.json", columns(1, 2).T, "mask-size", "got 40x60"),
    "unequal rows": ("mask.json", [[1, 2], [1]], "annotation-unreadable", "row 1 has 1 numbers, the first one 2"),
    "no numbers": ("mask.json", [[1.5]], "annotation-unreadable", "expected a matrix of whole numbers"),
    "no list": ("class.json", {"1": "button"}, "annotation-unreadable", "expected a list of the elements' classes"),
    "no names": ("class.json", [1, 2], "annotation-unreadable", "expected a list of the elements' classes"),
    "no JSON": ("class.json", b"[", "annotation-unreadable", "no JSON that can be read"),
    "no picture": ("screenshot.png", b"PNG", "image-unreadable", "a-screenshot.png: is no image"),
}


@pytest.mark.parametrize(("ending", "content", "reason", "message"), FAULTS.values(), ids=FAULTS)
def test_a_page_that_cannot_be_read_is_one_reject(
    tmp_path: Path, ending: str, content: Any, reason: str, message: str
) -> None:
    write(write(tmp_path, "b"))
    path = tmp_path / f"a-{ending}"
    if content is None:
        path.unlink()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(json.dumps(content.tolist() if isinstance(content, np.ndarray) else content))
    (image,), (reject,) = read_all(open_pixelweb(tmp_path))
    assert (image.scene.id, areas(image)) == ("b", {"2": 400, "4": 800})
    assert (reject.key, reject.reason) == ("a", reason)
    assert message in reject.message


def test_a_number_without_a_class_is_a_reject(tmp_path: Path) -> None:
    write(tmp_path, classes=["body", "button", "image"])
    (image,), (reject,) = read_all(open_pixelweb(tmp_path))
    assert areas(image) == {"2": 400, "3": 400}
    assert (reject.key, reject.reason) == ("a/4", "mask-unlisted")
    assert reject.message == "a-mask.json: it holds the number 4, but 3 elements have a class"


def test_a_page_of_nothing_gives_no_image_and_no_reject(tmp_path: Path) -> None:
    write(write(tmp_path), "b", labels=columns(0, 1, 3))
    images, rejects = read_all(open_pixelweb(tmp_path))
    assert ([image.scene.id for image in images], rejects) == (["a"], [])


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converters.masks.pixelweb.MAX_MATRIX_BYTES", 5000)
    write(tmp_path)
    images, (reject,) = read_all(open_pixelweb(tmp_path))
    assert (images, reject.reason) == ([], "annotation-unreadable")
    assert reject.message == "a-mask.json: more bytes than the 5,000 that are read"


def test_a_cut_screenshot_is_noticed_when_it_is_opened(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "a-screenshot.png"
    path.write_bytes(path.read_bytes()[:-30])
    (image,), rejects = read_all(open_pixelweb(tmp_path))
    assert rejects == []
    with pytest.raises(RecordError) as caught:
        image.open()
    assert caught.value.reason == "image-unreadable"


def test_masks_of_a_page_can_be_drawn(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path, name, classes=["x"] * 20, labels=columns(*range(1, 21)))
    images, _ = read_all(open_pixelweb(tmp_path, masks_per_image=5))
    chosen = [[region.id for region in image.scene.regions] for image in images]
    assert [len(one) for one in chosen] == [5, 5, 5]
    assert len({tuple(one) for one in chosen}) > 1
    other, _ = read_all(open_pixelweb(tmp_path, masks_per_image=5, seed=1))
    assert [[region.id for region in image.scene.regions] for image in other] != chosen
    program = """
        import sys
        from converters.masks.registry import open_mask_source
        source = open_mask_source("pixelweb", root=sys.argv[1], index=sys.argv[1] + "/index", masks_per_image=5)
        units = reversed(range(source.num_units))
        print(*(region.id for unit in units for image in source.read(unit) for region in image.scene.regions))
    """
    there = [str(int(number)) for number in printed_by(program, tmp_path)]
    assert there == [region for one in reversed(chosen) for region in one]


@pytest.mark.parametrize("content", ["nothing", "screenshots", "deeper"])
def test_a_folder_without_pages_is_refused(tmp_path: Path, content: str) -> None:
    root = tmp_path / "annotated"
    root.mkdir()
    if content == "screenshots":
        photograph(root / "a-screenshot.png")
    elif content == "deeper":
        write(root / "a" / "b")
    with pytest.raises(SetupError, match=r"expected pages as three files, <name>-screenshot\.png, <name>-mask\.json"):
        open_pixelweb(tmp_path)
    with pytest.raises(SetupError, match="page: expected keep or skip, got True"):
        open_pixelweb(tmp_path, page=True)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_a_long_page_takes_little_memory(tmp_path: Path) -> None:
    """1280x4000 pixels, 20 MB of text: as lists of numbers that is 110 MiB."""
    labels = np.arange(4000)[:, None] // 50 + np.arange(1280) // 16
    photograph(tmp_path / "in" / "a-screenshot.png", height=4000, width=1280)
    (tmp_path / "in" / "a-mask.json").write_text(json.dumps((labels + 100).tolist()))
    (tmp_path / "in" / "a-class.json").write_text(json.dumps(["x"] * 400))
    program = """
        import sys
        from converters.masks.registry import open_mask_source
        from tests.converters.mask_sources import peak_mib
        source = open_mask_source("pixelweb", root=sys.argv[1], index=sys.argv[1])
        before = peak_mib()
        (image,) = source.read(0)
        print(before, peak_mib(), len(image.scene.regions))
    """
    before, peak, regions = printed_by(program, tmp_path / "in")
    assert regions == 159
    assert peak - before < 160
