"""Label maps in PNG files: which map belongs to which image, what becomes a mask, what a reject."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import converters.files.listings
from converters.masks.registry import open_mask_source
from converters.masks.source import MaskSource
from samtok_data import masks
from samtok_data.errors import RecordError, SetupError
from tests.converters.mask_sources import areas, columns, label_map, photograph, read_all, reasons


def open_bsds(root: Path, **options: Any) -> MaskSource:
    usual = {"images": "images", "masks": "segments"}
    return open_mask_source("index-png", root=str(root), index=str(root / "index"), **{**usual, **options})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two images; the second has maps of two annotators."""
    for name in ("one.jpg", "two.png"):
        photograph(tmp_path / "images" / name)
    label_map(tmp_path / "segments" / "one.png", columns(0, 7))
    label_map(tmp_path / "segments" / "two_a2.png", columns(1, 2, 3))
    label_map(tmp_path / "segments" / "two_a10.png", columns(1, 300))
    return tmp_path


def test_each_label_is_a_mask_and_0_is_none(root: Path) -> None:
    (one, two), rejects = read_all(open_bsds(root))
    assert rejects == []
    assert (one.scene.id, one.scene.image) == ("one", "one.jpg")
    assert areas(one) == {"7": 1200}
    assert areas(two) == {"a2-1": 800, "a2-2": 800, "a2-3": 800, "a10-1": 1200, "a10-300": 1200}
    assert one.open().size == two.open().size == (60, 40)


def test_without_void_every_label_is_a_mask(root: Path) -> None:
    (one, _two), _ = read_all(open_bsds(root, void=None))
    assert areas(one) == {"0": 1200, "7": 1200}


def test_the_first_map_is_the_lowest_annotator_by_number(root: Path) -> None:
    (_one, two), _ = read_all(open_bsds(root, maps="first"))
    assert list(areas(two)) == ["a2-1", "a2-2", "a2-3"]


def test_small_masks_are_left_out_and_are_no_rejects(root: Path) -> None:
    (one, two), rejects = read_all(open_bsds(root, min_area=801))
    assert rejects == []
    assert areas(one) == {"7": 1200}
    assert areas(two) == {"a10-1": 1200, "a10-300": 1200}


def test_an_image_without_a_mask_does_not_appear(root: Path) -> None:
    assert read_all(open_bsds(root, min_area=1201)) == ([], [])


def test_the_masks_are_those_of_the_map(root: Path) -> None:
    (_one, two), _ = read_all(open_bsds(root))
    regions = {region.id: region.rle for region in two.scene.regions}
    assert np.array_equal(masks.decode(regions["a2-2"]), columns(1, 2, 3) == 2)


def test_a_palette_gives_its_index(root: Path) -> None:
    image = Image.fromarray(columns(4, 9).astype(np.uint8))
    image.putpalette([10, 10, 10] * 256)  # every colour the same
    assert image.mode == "P"
    image.save(root / "segments" / "one.png")
    (one, _two), _ = read_all(open_bsds(root))
    assert areas(one) == {"4": 1200, "9": 1200}


def of_another_size(root: Path) -> None:
    label_map(root / "segments" / "two_a2.png", columns(1, 2, width=59))


def cut(root: Path) -> None:
    path = root / "segments" / "two_a2.png"
    noise = np.random.default_rng(0).integers(0, 255, (40, 60)).astype(np.uint8)
    data = label_map(path, noise).read_bytes()
    path.write_bytes(data[: len(data) // 2])


def no_png(root: Path) -> None:
    (root / "segments" / "two_a2.png").unlink()
    photograph(root / "a.jpg").rename(root / "segments" / "two_a2.png")


def with_alpha(root: Path) -> None:
    Image.new("RGBA", (60, 40)).save(root / "segments" / "two_a2.png")


FAULTS = {
    "of another size": (of_another_size, "mask-size", "two_a2.png: expected 60x40 pixels, as its image, got 59x40"),
    "cut": (cut, "annotation-unreadable", "two_a2.png: cannot be decoded: image file is truncated"),
    "no PNG": (no_png, "annotation-unreadable", "two_a2.png: is no PNG ("),
    "with alpha": (with_alpha, "annotation-unreadable", "two_a2.png: expected grey, a palette or RGB, got mode RGBA"),
}


@pytest.mark.parametrize(("fault", "reason", "message"), FAULTS.values(), ids=FAULTS)
def test_a_broken_map_is_one_reject_and_the_others_are_read(root: Path, fault: Any, reason: str, message: str) -> None:
    fault(root)
    (_one, two), (reject,) = read_all(open_bsds(root))
    assert list(areas(two)) == ["a10-1", "a10-300"]
    assert (reject.key, reject.reason) == ("two/a2", reason)
    assert reject.message.startswith(message)


def test_a_map_without_an_image_and_a_broken_image_are_rejects(root: Path) -> None:
    label_map(root / "segments" / "three_a1.png", columns(1, 2))
    (root / "images" / "one.jpg").write_bytes(b"no picture")
    (two,), rejects = read_all(open_bsds(root))
    assert two.scene.id == "two"
    assert reasons(rejects) == [("one", "image-unreadable"), ("three", "image-missing")]


def test_hidden_files_and_other_files_are_passed_over(root: Path) -> None:
    (root / "segments" / "._two_a2.png").write_bytes(b"what macOS writes beside each file")
    (root / "segments" / "README.txt").write_text("maps")
    (root / "segments" / "old.png").mkdir()
    (root / "images" / "one.json").write_text("{}")
    images, rejects = read_all(open_bsds(root))
    assert ([image.scene.id for image in images], rejects) == (["one", "two"], [])


def test_two_images_of_one_stem_are_not_guessed_between(root: Path) -> None:
    photograph(root / "images" / "one.png")
    _, (reject,) = read_all(open_bsds(root))
    assert (reject.reason, reject.message) == ("record-duplicate", "one: several images: one.jpg, one.png")


def test_a_picture_whose_pixels_are_cut_is_noticed_when_it_is_opened(root: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype(np.uint8)
    path = root / "images" / "one.jpg"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-300])
    (one, _two), rejects = read_all(open_bsds(root))
    assert rejects == []
    with pytest.raises(RecordError) as caught:
        one.open()
    assert caught.value.reason == "image-unreadable"


def test_a_map_that_is_gone_since_the_listing_is_a_reject(root: Path) -> None:
    source = open_bsds(root)
    (root / "segments" / "one.png").unlink()
    _, (reject,) = read_all(source)
    assert (reject.key, reject.reason) == ("one/map", "annotation-missing")


def test_another_file_in_the_folder_gives_another_index(root: Path) -> None:
    first = open_bsds(root)
    assert open_bsds(root).settings == first.settings
    photograph(root / "images" / "three.jpg")
    label_map(root / "segments" / "three.png", columns(1, 2))
    second = open_bsds(root)
    assert (first.num_units, second.num_units) == (2, 3)
    assert first.settings != second.settings
    assert len(list((root / "index").glob("*.sqlite"))) == 2


def test_files_that_come_while_the_folder_is_listed_leave_no_index(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = converters.files.listings.open_index

    def meanwhile(path: Path) -> Any:
        photograph(root / "images" / "three.jpg")
        return sound(path)

    monkeypatch.setattr("converters.files.listings.open_index", meanwhile)
    with pytest.raises(SetupError, match="files came or went while their folder was listed; start again"):
        open_bsds(root)
    assert list((root / "index").glob("*.sqlite")) == []
    open_bsds(root)


def test_a_source_travels_to_a_worker(root: Path) -> None:
    source = pickle.loads(pickle.dumps(open_bsds(root)))
    (one, _two), _ = read_all(source)
    assert pickle.loads(pickle.dumps(one)).open().size == (60, 40)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no folder of images": ({"images": "pictures"}, "no folder pictures; name another one with the option images"),
    "no folder of maps": ({"masks": "maps"}, "no folder maps; name another one with the option masks"),
    "a file": ({"images": "images/one.jpg"}, "no folder images/one.jpg; name another one with the option images"),
    "outside the root": ({"masks": "../maps"}, "masks: expected a name under the root, got '../maps'"),
    "maps of nothing": ({"masks": "images"}, "no map under images belongs to an image under images; expected <image>"),
    "maps": ({"maps": "some"}, "maps: expected all or first, got 'some'"),
    "void": ({"void": -1}, "void: expected a whole number from 0 on, got -1"),
    "min_area": ({"min_area": 0}, "min_area: expected a whole number from 1 on, got 0"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_opened_is_refused_at_once(root: Path, options: dict[str, Any], message: str) -> None:
    (root / "images" / "two.png").rename(root / "images" / "two.jpg")
    with pytest.raises(SetupError) as caught:
        open_bsds(root, **options)
    assert message in str(caught.value)


def test_real_photographs_of_bsds(samples: Path, tmp_path: Path) -> None:
    source = open_mask_source(
        "index-png",
        root=str(samples / "masks" / "bsds500"),
        index=str(tmp_path),
        images="images/train",
        masks="segments/train",
    )
    images, rejects = read_all(source)
    assert rejects == []
    assert len(images) == 24
    for image in images:
        whole = image.scene.height * image.scene.width
        annotators = {region.id.partition("-")[0] for region in image.scene.regions}
        assert sum(areas(image).values()) == whole * len(annotators)  # no pixel is left out, none counts twice
        assert image.open().size == (image.scene.width, image.scene.height)
