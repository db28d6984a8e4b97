"""One PNG file a mask: both layouts, what is foreground, what a reject."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from converters.masks.registry import open_mask_source
from converters.masks.source import MaskSource
from samtok_data.errors import SetupError
from tests.converters.mask_sources import areas, columns, label_map, photograph, read_all, reasons


def open_binary(root: Path, **options: Any) -> MaskSource:
    usual = {"images": "images", "masks": "masks"}
    return open_mask_source("binary-png", root=str(root), index=str(root / "index"), **{**usual, **options})


def in_folders(root: Path) -> Path:
    for name in ("one.jpg", "img_2.png"):
        photograph(root / "images" / name)
    label_map(root / "masks" / "one" / "cell.png", columns(0, 255))
    label_map(root / "masks" / "one" / "3.png", columns(1, 0, 0))
    label_map(root / "masks" / "img_2" / "cell.png", columns(0, 0, 7))
    return root


def side_by_side(root: Path) -> Path:
    for name in ("one.jpg", "img_2.png"):
        photograph(root / "images" / name)
    label_map(root / "masks" / "one_cell.png", columns(0, 255))
    label_map(root / "masks" / "one_3.png", columns(1, 0, 0))
    label_map(root / "masks" / "img_2_cell.png", columns(0, 0, 7))
    return root


@pytest.mark.parametrize("layout", [in_folders, side_by_side])
def test_both_layouts_give_the_same_masks(tmp_path: Path, layout: Any) -> None:
    (second, one), rejects = read_all(open_binary(layout(tmp_path)))
    assert rejects == []
    assert (one.scene.id, areas(one)) == ("one", {"3": 800, "cell": 1200})
    assert (second.scene.image, areas(second)) == ("img_2.png", {"cell": 800})
    assert second.open().size == (60, 40)


def test_any_value_above_0_is_foreground(tmp_path: Path) -> None:
    in_folders(tmp_path)
    folder = tmp_path / "masks" / "one"
    Image.fromarray(np.stack([columns(0, 0), columns(0, 0), columns(0, 1)], axis=2).astype(np.uint8)).save(
        folder / "rgb.png"
    )
    label_map(folder / "deep.png", columns(0, 256))
    Image.fromarray(columns(0, 1) > 0).save(folder / "bit.png")
    (_, one), rejects = read_all(open_binary(tmp_path))
    assert rejects == []
    assert {areas(one)[region] for region in ("rgb", "deep", "bit")} == {1200}


def test_broken_masks_are_one_reject_each(tmp_path: Path) -> None:
    in_folders(tmp_path)
    folder = tmp_path / "masks" / "one"
    label_map(folder / "empty.png", columns(0))
    label_map(folder / "size.png", columns(1, width=59))
    (folder / "text.png").write_text("text")
    Image.new("RGBA", (60, 40), "red").save(folder / "alpha.png")
    photograph(folder / "notes.jpg")  # no PNG file: not a mask
    (_, one), rejects = read_all(open_binary(tmp_path))
    assert list(areas(one)) == ["3", "cell"]
    assert reasons(rejects) == [
        ("one/alpha", "annotation-unreadable"),
        ("one/empty", "mask-empty"),
        ("one/size", "mask-size"),
        ("one/text", "annotation-unreadable"),
    ]


def test_masks_without_an_image_are_one_reject(tmp_path: Path) -> None:
    in_folders(tmp_path)
    (tmp_path / "images" / "one.jpg").unlink()
    (second,), rejects = read_all(open_binary(tmp_path))
    assert second.scene.id == "img_2"
    assert reasons(rejects) == [("one", "image-missing")]
    assert rejects[0].record["masks"] == ["one/3.png", "one/cell.png"]


def test_small_masks_are_left_out(tmp_path: Path) -> None:
    (one,), rejects = read_all(open_binary(in_folders(tmp_path), min_area=801))
    assert (areas(one), rejects) == ({"cell": 1200}, [])


def test_names_that_no_text_can_hold_are_rejects(tmp_path: Path) -> None:
    in_folders(tmp_path)
    label_map(tmp_path / "masks" / "one" / "3.png", columns(1)).rename(tmp_path / "masks" / "a:b_1.png")
    os.rename(tmp_path / "masks" / "one" / "cell.png", bytes(tmp_path / "masks") + b"/\xff_2.png")
    (second,), rejects = read_all(open_binary(tmp_path))
    assert second.scene.id == "img_2"
    assert reasons(rejects) == [("None", "image-missing")]
    assert rejects[0].record["masks"] == ["a:b_1.png", "\udcff_2.png"]


@pytest.mark.parametrize("layout", ["another folder's", "no underscore", "empty", "deeper"])
def test_another_layout_is_refused(tmp_path: Path, layout: str) -> None:
    photograph(tmp_path / "images" / "one.jpg")
    (tmp_path / "masks").mkdir()
    name = {"another folder's": "two/1.png", "no underscore": "one1.png", "deeper": "one/a/1.png", "empty": None}[
        layout
    ]
    if name:
        label_map(tmp_path / "masks" / name, columns(1))
    with pytest.raises(SetupError, match=r"expected masks/<image>/<name>\.png or masks/<image>_<name>\.png"):
        open_binary(tmp_path)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    in_folders(tmp_path)
    with pytest.raises(SetupError, match="no folder pictures; name another one with the option images"):
        open_binary(tmp_path, images="pictures")
    with pytest.raises(SetupError, match="nowhere: no such folder; name the source's folder with root"):
        open_binary(tmp_path / "nowhere")
