"""COCONut: its three parts, each in its own format, as one source."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from converters.masks.coconut import INFO
from converters.masks.registry import open_mask_source
from converters.masks.source import MaskSource
from samtok_data.errors import SetupError
from tests.converters.mask_sources import (
    HEIGHT,
    WIDTH,
    areas,
    colour_map,
    columns,
    jpeg,
    label_map,
    photograph,
    printed_by,
    read_all,
    reasons,
)

O365 = "objects365_v2_{:08d}"
LABELS = columns(0, 1, 2, 3)  # 600 pixels each
LARGE_JSON = "coconut_large/panseg_object365_train_v2.json"


def png(mode: str = "RGB", labels_HW: Any = LABELS) -> bytes:
    """A label map as the parts hold it: black with a little red, grey, or a palette that says something else."""
    buffer = io.BytesIO()
    image = Image.fromarray(labels_HW.astype(np.uint8))
    if mode == "P":
        image = image.copy()
        image.putpalette([200, 10, 60, 0, 0, 0, 90, 90, 90, 1, 2, 3])
    elif mode == "RGB":
        zeros = np.zeros_like(labels_HW)
        image = Image.fromarray(np.stack([labels_HW, zeros, zeros], axis=2).astype(np.uint8))
    image.save(buffer, "PNG")
    return buffer.getvalue()


def segment(number: Any, **fields: Any) -> dict[str, Any]:
    return {"id": number, "category_id": 118, "iscrowd": 0, "isthing": 0, "area": 45822, **fields}


SEGMENTS = [segment(1, isthing=1, category_id=3), segment(2, iscrowd=1, isthing=1), segment(3)]


def row(number: int, data: Any = None, segments: Any = None, **image: Any) -> dict[str, Any]:
    """A row of the base."""
    stem = f"{number:012d}"
    listed = SEGMENTS if segments is None else segments
    return {
        "mask": {"bytes": png() if data is None else data, "path": None},
        "segments_info": {"file_name": f"{stem}.png", "image_id": number, "segments_info": listed},
        "image_info": {"file_name": f"{stem}.jpg", "height": HEIGHT, "width": WIDTH, "id": number, **image},
    }


def write_base(root: Path, *rows: dict[str, Any], place: str = "coconut_base", images: str = "coco/train2017") -> Path:
    """Two files, with row groups of two rows, and the images."""
    (root / place).mkdir(parents=True, exist_ok=True)
    half = (len(rows) + 1) // 2
    for number, some in enumerate((rows[:half], rows[half:])):
        if some:
            path = root / place / f"train-0000{number}-of-00002.parquet"
            parquet.write_table(pa.Table.from_pylist(list(some)), path, row_group_size=2)
    for one in rows:
        if isinstance(one["image_info"]["file_name"], str):
            photograph(root / images / one["image_info"]["file_name"])
    return root


def large(number: int, *, shape: str = "object365_file_name", **fields: Any) -> dict[str, Any]:
    """An annotation of the large part in one of its two shapes."""
    name = O365.format(number)
    names = {"object365_file_name": f"{name}.jpg", "file_name": f"{number:012d}.png"}
    return {
        "image_id": number,
        "segments_info": SEGMENTS,
        **(names if shape in names else {"file_name": f"{name}.png"}),
        **fields,
    }


def patched(root: Path, number: int, patch: int = 17) -> None:
    photograph(root / "object365" / f"patch{patch}" / f"{O365.format(number)}.jpg")


def write_large(root: Path, *annotations: Any) -> Path:
    path = root / LARGE_JSON
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"id": 1, "file_name": "000000000001.jpg", "height": 9, "width": 9}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": []}))
    for number in range(10, 10 + len(annotations)):
        patched(root, number)
        colour_map(path.parent / "panoptic_object365" / f"{O365.format(number)}.png", LABELS)
    return root


def write_xlarge(root: Path, number: int, segments: Any = None, *, above: str = "coconut_xlarge") -> Path:
    name = O365.format(number)
    info = root / above / "panseg_info" / f"{name}.json"
    info.parent.mkdir(parents=True, exist_ok=True)
    without_area = [{field: one[field] for field in ("id", "category_id", "isthing")} for one in SEGMENTS]
    info.write_text(json.dumps(without_area if segments is None else segments))
    label_map(root / above / "panseg" / f"{name}.png", LABELS)
    patched(root, number, 44)
    return root


def open_coconut(root: Path, **options: Any) -> MaskSource:
    return open_mask_source("coconut", root=str(root), index=str(root / "index"), **options)


WHOLE = {"1": 600, "2": 600, "3": 600}


# --- the parts -------------------------------------------------------------------------------------------------------


def test_rows_of_the_base_are_images(tmp_path: Path) -> None:
    write_base(tmp_path, *(row(number) for number in range(1, 6)))
    source = open_coconut(tmp_path)
    images, rejects = read_all(source)
    assert rejects == []
    assert [(image.scene.id, image.scene.image) for image in images] == [
        (f"{number:012d}", f"train2017/{number:012d}.jpg") for number in range(1, 6)
    ]
    assert [areas(image) for image in images] == [WHOLE] * 5  # things, stuff and crowds
    assert images[0].open().size == (WIDTH, HEIGHT)
    assert source.settings["parts"] == ["base"]


def test_each_row_has_its_own_mask(tmp_path: Path) -> None:
    rows = [row(number, png("RGB", columns(*[1] * number, *[0] * (6 - number)))) for number in range(1, 6)]
    write_base(
        tmp_path, *(dict(one, segments_info={**one["segments_info"], "segments_info": [segment(1)]}) for one in rows)
    )
    images, rejects = read_all(open_coconut(tmp_path))
    assert ([areas(image) for image in images], rejects) == ([{"1": 400 * number} for number in range(1, 6)], [])


@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_a_label_is_the_number_in_the_file_never_its_brightness(tmp_path: Path, mode: str) -> None:
    write_base(tmp_path, row(1, png(mode)))
    (image,), rejects = read_all(open_coconut(tmp_path))
    assert (areas(image), rejects) == (WHOLE, [])


def test_ids_beyond_255_lie_in_green_and_blue(tmp_path: Path) -> None:
    labels_HW = columns(0, 300, 70000)
    colour_map(tmp_path / "map.png", labels_HW)
    write_base(tmp_path, row(1, (tmp_path / "map.png").read_bytes(), [segment(300), segment(70000)]))
    (image,), rejects = read_all(open_coconut(tmp_path))
    assert (areas(image), rejects) == ({"300": 800, "70000": 800}, [])


def test_images_of_the_base_lie_in_two_folders(tmp_path: Path) -> None:
    write_base(tmp_path, row(1), row(2))
    write_base(tmp_path, row(1), row(2), row(3), images="coco/unlabeled2017")
    (tmp_path / "coco" / "train2017" / "000000000002.jpg").unlink()
    images, rejects = read_all(open_coconut(tmp_path))
    assert rejects == []
    assert [image.scene.image for image in images] == [
        "train2017/000000000001.jpg",
        "unlabeled2017/000000000002.jpg",
        "unlabeled2017/000000000003.jpg",
    ]


@pytest.mark.parametrize("shape", ["object365_file_name", "file_name is the map's"])
def test_both_shapes_of_the_large_parts_annotations_are_read(tmp_path: Path, shape: str) -> None:
    (image,), rejects = read_all(open_coconut(write_large(tmp_path, large(10, shape=shape))))
    assert (areas(image), rejects) == (WHOLE, [])
    assert (image.scene.id, image.scene.image) == (O365.format(10), f"patch17/{O365.format(10)}.jpg")
    assert image.open().size == (WIDTH, HEIGHT)


@pytest.mark.parametrize("above", ["coconut_xlarge", "coconut_xlarge/coconuts_xlarge", "coconuts_xlarge", ""])
def test_the_extra_large_part_has_a_file_for_each_image(tmp_path: Path, above: str) -> None:
    (image,), rejects = read_all(open_coconut(write_xlarge(tmp_path, 20, above=above)))
    assert (areas(image), rejects) == (WHOLE, [])
    assert image.scene.image == f"patch44/{O365.format(20)}.jpg"


def everything(root: Path) -> Path:
    write_large(write_base(root, row(1), row(2), row(3)), large(10), large(11, shape="file_name"))
    (root / LARGE_JSON).write_text(json.dumps({"annotations": [large(10), large(11, shape="file")]}))
    return write_xlarge(write_xlarge(root, 11, [segment(1)]), 12)


def test_an_image_of_two_parts_counts_once(tmp_path: Path) -> None:
    source = open_coconut(everything(tmp_path))
    images, (reject,) = read_all(source)
    assert {image.scene.id: len(image.scene.regions) for image in images} == {
        **{f"{number:012d}": 3 for number in (1, 2, 3)},
        **{O365.format(number): 3 for number in (10, 11, 12)},  # of 11, the extra-large part has one mask
    }
    assert (reject.key, reject.reason) == (f"{O365.format(11)}/xlarge", "record-duplicate")
    assert reject.message == f"{O365.format(11)}: the part large has this image already"
    assert source.settings["parts"] == ["base", "large", "xlarge"]


def test_the_base_goes_before_the_large_part(tmp_path: Path) -> None:
    annotation = {"image_id": 1, "file_name": "000000000001.png", "segments_info": [segment(1)]}
    write_base(write_large(tmp_path, annotation), row(1))
    (image,), rejects = read_all(open_coconut(tmp_path))
    assert (areas(image), reasons(rejects)) == (WHOLE, [("000000000001/large", "record-duplicate")])


def test_of_two_places_for_the_same_images_the_first_is_read(tmp_path: Path) -> None:
    write_base(tmp_path, row(1), row(2), images="train2017")
    photograph(tmp_path / "coco" / "train2017" / "000000000001.jpg")
    images, rejects = read_all(open_coconut(tmp_path))
    assert ([image.scene.id for image in images], reasons(rejects)) == (
        ["000000000001"],
        [("000000000002", "image-missing")],
    )


def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_large(tmp_path, large(10))
    monkeypatch.setattr("converters.masks.coconut_parts.sha256_of", lambda *_: "0" * 64)
    with pytest.raises(SetupError, match="it changed while it was read; start again"):
        open_coconut(tmp_path)


def test_parts_are_read_by_option(tmp_path: Path) -> None:
    everything(tmp_path)
    images, rejects = read_all(open_coconut(tmp_path, parts=["xlarge"]))
    assert ({image.scene.id: len(image.scene.regions) for image in images}, reasons(rejects)) == (
        {O365.format(11): 1, O365.format(12): 3},
        [(f"{O365.format(11)}/2", "mask-unlisted"), (f"{O365.format(11)}/3", "mask-unlisted")],
    )
    assert len(read_all(open_coconut(tmp_path, parts=["large", "base"]))[0]) == 5


def test_places_can_be_named(tmp_path: Path) -> None:
    everything(tmp_path)
    wanted = dict(open_coconut(tmp_path).settings)
    for place, other in (
        ("coconut_base", "a"),
        ("coconut_large", "b"),
        ("coconut_xlarge", "c"),
        ("coco", "d"),
        ("object365", "e"),
    ):
        (tmp_path / place).rename(tmp_path / other)
    options = {"base": "a", "large_json": f"b/{Path(LARGE_JSON).name}", "large_masks": "b/panoptic_object365"}
    options |= {"xlarge_json": "c/panseg_info", "xlarge_masks": "c/panseg"}
    source = open_coconut(tmp_path, **options, images=["d/train2017", "e"])
    assert dict(source.settings) == wanted
    assert len(read_all(source)[0]) == 6


# --- options ---------------------------------------------------------------------------------------------------------

OPTIONS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "as published": ({}, ["1", "2", "3"]),
    "no crowds": ({"crowd": "skip"}, ["1", "3"]),
    "things": ({"segments": "things"}, ["1", "2"]),
    "stuff": ({"segments": "stuff"}, ["3"]),
    "large ones": ({"min_area": 601}, []),
}


@pytest.mark.parametrize(("options", "kept"), OPTIONS.values(), ids=OPTIONS)
def test_what_is_a_mask_is_an_option(tmp_path: Path, options: dict[str, Any], kept: list[str]) -> None:
    images, rejects = read_all(open_coconut(write_base(tmp_path, row(1)), **options))
    assert ([region for image in images for region in areas(image)], rejects) == (kept, [])


def test_things_are_known_by_their_category_where_nothing_else_says_so(tmp_path: Path) -> None:
    listed = [{"id": 1, "category_id": 90}, {"id": 2, "category_id": 92}, {"id": 3}]
    write_xlarge(tmp_path, 20, listed)
    (image,), rejects = read_all(open_coconut(tmp_path, segments="things"))
    assert (list(areas(image)), reasons(rejects)) == (["1"], [(f"{O365.format(20)}/3", "record-invalid")])
    (image,), rejects = read_all(open_coconut(tmp_path))
    assert (areas(image), rejects) == (WHOLE, [])


def test_masks_are_drawn_by_lot(tmp_path: Path) -> None:
    labels_HW = columns(*range(1, 21))
    rows = [row(number, png("L", labels_HW), [segment(one) for one in range(1, 21)]) for number in (1, 2)]
    source = open_coconut(write_base(tmp_path, *rows), masks_per_image=4, seed=7)
    chosen = [[list(areas(image)) for image in read_all(source)[0]] for _ in range(2)]
    assert chosen[0] == chosen[1]
    assert [len(one) for one in chosen[0]] == [4, 4]
    assert chosen[0][0] != chosen[0][1]


# --- faults ----------------------------------------------------------------------------------------------------------

BROKEN: dict[str, tuple[dict[str, Any], list[tuple[str, str]]]] = {
    "no PNG": (row(1, b"text"), [("", "annotation-unreadable")]),
    "cut": (row(1, png()[:70]), [("", "annotation-unreadable")]),
    "another size": (row(1, png("L", LABELS[1:])), [("", "mask-size")]),
    "no mask": ({**row(1), "mask": {"bytes": None, "path": "x.png"}}, [("", "annotation-missing")]),
    "an empty segment": (row(1, None, [*SEGMENTS, segment(9)]), [("/9", "mask-empty")]),
    "a segment that is not listed": (row(1, None, SEGMENTS[:2]), [("/3", "mask-unlisted")]),
    "two of one id": (row(1, None, [*SEGMENTS, segment(1)]), [("/1", "record-duplicate")]),
    "no id": (row(1, None, [*SEGMENTS, segment(None)]), [("/segment-3", "record-invalid")]),
}


@pytest.mark.parametrize(("fault", "wanted"), BROKEN.values(), ids=BROKEN)
def test_a_broken_row_is_one_reject_and_the_others_are_read(
    tmp_path: Path, fault: dict[str, Any], wanted: list[tuple[str, str]]
) -> None:
    write_base(tmp_path, fault, row(2), row(3))
    images, rejects = read_all(open_coconut(tmp_path))
    assert [areas(image) for image in images][-2:] == [WHOLE, WHOLE]
    assert reasons(rejects) == [(f"{1:012d}{region}", reason) for region, reason in wanted]
    assert rejects[0].record


def test_a_row_without_a_name_is_a_reject(tmp_path: Path) -> None:
    nameless = row(1, file_name=None)
    nameless["segments_info"]["file_name"] = None
    write_base(tmp_path, nameless, row(2))
    (image,), rejects = read_all(open_coconut(tmp_path))
    assert image.scene.id == "000000000002"
    assert reasons(rejects) == [("none/base-0", "record-invalid")]
    assert rejects[0].record["row"] == 0


def test_the_name_of_the_map_serves_where_the_images_is_missing(tmp_path: Path) -> None:
    write_base(tmp_path, row(1, file_name=None))
    photograph(tmp_path / "coco" / "train2017" / "000000000001.jpg")
    (image,), _ = read_all(open_coconut(tmp_path))
    assert image.scene.id == "000000000001"


def test_an_image_that_is_not_there_is_a_reject(tmp_path: Path) -> None:
    write_base(tmp_path, row(1), row(2))
    (tmp_path / "coco" / "train2017" / "000000000001.jpg").unlink()
    source = open_coconut(tmp_path)
    (image,), (reject,) = read_all(source)
    assert image.scene.id == "000000000002"
    assert (reject.key, reject.reason) == ("000000000001", "image-missing")
    assert reject.message == "000000000001: no image of this name in train2017"
    assert source.unit_name(0) == "000000000001"


def test_two_images_of_one_name_in_a_folder_are_a_reject(tmp_path: Path) -> None:
    write_base(tmp_path, row(1), row(2))
    photograph(tmp_path / "coco" / "train2017" / "000000000001.png")
    (image,), rejects = read_all(open_coconut(tmp_path))
    assert (image.scene.id, reasons(rejects)) == ("000000000002", [("000000000001", "record-duplicate")])


def test_a_base_whose_columns_are_texts_has_no_names(tmp_path: Path) -> None:
    table = pa.table({"mask": [row(1)["mask"]], "segments_info": ["{}"], "image_info": ["{}"]})
    write_base(tmp_path, row(1))
    parquet.write_table(table, tmp_path / "coconut_base" / "b.parquet")
    _images, rejects = read_all(open_coconut(tmp_path))
    assert reasons(rejects) == [("none/base-0", "record-invalid")]


def test_an_image_of_another_size_shows_when_it_is_opened(tmp_path: Path) -> None:
    write_xlarge(tmp_path, 20)
    photograph(tmp_path / "object365" / "patch44" / f"{O365.format(20)}.jpg", height=9)
    (image,), _ = read_all(open_coconut(tmp_path))
    with pytest.raises(ValueError, match=r"drawn on 60x40, the image is 60x9 \[image-size\]"):
        image.open()


LARGE_FAULTS: dict[str, tuple[Any, tuple[str, str]]] = {
    "no map": (large(10, object365_file_name=O365.format(99)), (f"{O365.format(99)}", "annotation-missing")),
    "no segments": (large(10, segments_info=None), (f"{O365.format(10)}", "record-invalid")),
    "no name": ({"image_id": 4, "segments_info": []}, ("none/large-0", "record-invalid")),
    "no object": (7, ("none/large-0", "record-invalid")),
    "leads out": (large(10, object365_file_name=".."), ("none/large-0", "record-invalid")),
    "twice": (large(11), (f"{O365.format(11)}/large", "record-duplicate")),
}


@pytest.mark.parametrize(("fault", "wanted"), LARGE_FAULTS.values(), ids=LARGE_FAULTS)
def test_a_broken_annotation_of_the_large_part_is_one_reject(tmp_path: Path, fault: Any, wanted: Any) -> None:
    write_large(tmp_path, fault, large(11))
    patched(tmp_path, 99)
    (image,), rejects = read_all(open_coconut(tmp_path))
    assert (image.scene.id, areas(image)) == (O365.format(11), WHOLE)
    assert reasons(rejects) == [wanted]


XLARGE_FAULTS: dict[str, tuple[bytes, str]] = {
    "cut": (b'[{"id": 1,', "annotation-unreadable"),
    "an object": (b'{"segments_info": []}', "record-invalid"),
}


@pytest.mark.parametrize(("data", "reason"), XLARGE_FAULTS.values(), ids=XLARGE_FAULTS)
def test_a_broken_file_of_the_extra_large_part_is_one_reject(tmp_path: Path, data: bytes, reason: str) -> None:
    write_xlarge(write_xlarge(tmp_path, 20), 21)
    (tmp_path / "coconut_xlarge" / "panseg_info" / f"{O365.format(20)}.json").write_bytes(data)
    (image,), rejects = read_all(open_coconut(tmp_path))
    assert (image.scene.id, reasons(rejects)) == (O365.format(21), [(f"{O365.format(20)}", reason)])


def test_a_map_with_an_alpha_channel_is_refused(tmp_path: Path) -> None:
    write_xlarge(write_xlarge(tmp_path, 20), 21)
    Image.new("RGBA", (WIDTH, HEIGHT)).save(tmp_path / "coconut_xlarge" / "panseg" / f"{O365.format(20)}.png")
    (_image,), rejects = read_all(open_coconut(tmp_path))
    assert reasons(rejects) == [(f"{O365.format(20)}", "annotation-unreadable")]


# --- files -----------------------------------------------------------------------------------------------------------


def test_archives_hold_the_same_masks(tmp_path: Path) -> None:
    here, packed = everything(tmp_path / "here"), tmp_path / "packed"
    packed.mkdir()
    (here / "coconut_base").rename(packed / "coconut_base")
    wanted = {image.scene for image in read_all(open_coconut(here, parts=["large", "xlarge"]))[0]}

    def pack(name: str, folder: str) -> None:
        (packed / name).parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(packed / name, "w") as archive:
            for path in sorted((here / folder).rglob("*.*")):
                archive.write(path, path.relative_to((here / folder).parent))

    (packed / "coconut_large").mkdir()
    (here / LARGE_JSON).rename(packed / LARGE_JSON)
    pack("coconut_large/panoptic_object365.zip", "coconut_large/panoptic_object365")
    pack("coconut_xlarge.zip", "coconut_xlarge")
    pack("coco/train2017.zip", "coco/train2017")
    pack("object365/patch17.zip", "object365/patch17")
    pack("object365/patch44.zip", "object365/patch44")
    source = pickle.loads(pickle.dumps(open_coconut(packed)))
    images, rejects = read_all(source)
    assert wanted <= {image.scene for image in images}
    assert (len(images), len(rejects)) == (6, 1)
    assert {image.open().size for image in images} == {(WIDTH, HEIGHT)}


def test_the_index_is_made_anew_when_a_part_changes(tmp_path: Path) -> None:
    everything(tmp_path)
    before = open_coconut(tmp_path)
    assert open_coconut(tmp_path).settings == before.settings
    write_base(tmp_path, row(1), row(2), row(3), row(4))
    base = open_coconut(tmp_path)
    (tmp_path / LARGE_JSON).write_text(json.dumps({"annotations": [large(11)]}))
    large_one = open_coconut(tmp_path)
    write_xlarge(tmp_path, 13)
    last = open_coconut(tmp_path)
    assert [one.num_units for one in (before, base, large_one, last)] == [6, 7, 6, 7]
    assert len({str(one.settings) for one in (before, base, large_one, last)}) == 4
    with pytest.raises(SetupError, match="it has changed since it was indexed"):
        list(before.read(2))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a part": ({"parts": ["small"]}, "parts: expected base or large or xlarge, got 'small'"),
    "no part": ({"parts": []}, "parts: expected some of base, large, xlarge, got none"),
    "parts": ({"parts": "base"}, "parts: expected a list of texts, got 'base'"),
    "a part that is not there": (
        {"parts": ["base", "xlarge"]},
        "nothing is found of the part xlarge; expected coconut",
    ),
    "images": ({"images": "train2017"}, "images: expected a list of texts, got 'train2017'"),
    "no images": ({"images": ["nowhere"]}, "no folder nowhere; name another one with the option images"),
    "other images": ({"images": ["coconut_base"]}, "no annotation belongs to an image of .*coconut_base; name their"),
    "base": ({"base": "coco"}, r"no file \*\.parquet in coco; name their folder with the option base"),
    "large": ({"large_json": "a.json", "large_masks": "coco"}, "a.json: no such file; give the annotation file with"),
    "xlarge": ({"xlarge_json": "coco"}, "none of the folders .*; name the folder with the option xlarge_masks"),
    "segments": ({"segments": "thing"}, "segments: expected all or things or stuff, got 'thing'"),
    "crowd": ({"crowd": None}, "crowd: expected keep or skip, got None"),
    "min_area": ({"min_area": 0.5}, "min_area: expected a whole number from 1 on, got 0.5"),
    "masks_per_image": ({"masks_per_image": -1}, "masks_per_image: expected a whole number from 1 on, or null"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_wrong_options_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    write_base(tmp_path, row(1))
    with pytest.raises(SetupError, match=message):
        open_coconut(tmp_path, **options)


def test_a_folder_of_none_of_the_parts_is_refused(tmp_path: Path) -> None:
    photograph(tmp_path / "train2017" / "1.jpg")
    with pytest.raises(
        SetupError, match="nothing is found of the part base or large or xlarge; expected coconut_base/"
    ):
        open_coconut(tmp_path)
    write_base(tmp_path / "other", row(1))
    for path in (tmp_path / "other" / "coco").rglob("*.jpg"):
        path.unlink()
    (tmp_path / "other" / "coco" / "train2017").rmdir()
    with pytest.raises(SetupError, match=r"none of the folders coco/train2017, train2017, .*with the option images"):
        open_coconut(tmp_path / "other")
    write_large(tmp_path / "third", {"caption": "a cat", "image_id": 1})
    with pytest.raises(SetupError, match="expected annotations with segments_info, found none; is it the right file"):
        open_coconut(tmp_path / "third")


def test_a_base_that_is_damaged_or_packed_is_refused(tmp_path: Path) -> None:
    write_base(tmp_path, row(1))
    path = tmp_path / "coconut_base" / "train-00000-of-00002.parquet"
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        archive.write(path, path.name)
    with pytest.raises(SetupError, match="a Parquet file cannot be read in a zip or tar; unpack it"):
        open_coconut(tmp_path, base="packed.zip")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SetupError, match="is no whole Parquet file"):
        open_coconut(tmp_path)


def test_every_option_is_in_the_settings(tmp_path: Path) -> None:
    settings = dict(open_coconut(everything(tmp_path)).settings)
    json.dumps(settings)
    assert len(settings.pop("names")) == 64
    assert list(settings.pop("content")) == ["parts", "base", "large"]
    assert settings == {
        **{"kind": "coconut", "parts": ["base", "large", "xlarge"], "segments": "all", "crowd": "keep"},
        **{"min_area": 1, "masks_per_image": None, "seed": 0},
    }
    assert (INFO.images, INFO.masks) == (488_000, 3_500_000)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_does_not_grow_with_the_base(tmp_path: Path) -> None:
    """120 MB of masks in one file, 4 MB a row group, in a process that may need 60 MB of them."""
    noise = np.random.default_rng(0).integers(0, 256, 1 << 20, np.uint8).tobytes()
    (tmp_path / "coconut_base").mkdir()
    (tmp_path / "coco" / "train2017").mkdir(parents=True)
    with parquet.ParquetWriter(
        tmp_path / "coconut_base" / "a.parquet", pa.Table.from_pylist([row(1)]).schema
    ) as writer:
        for number in range(0, 120, 4):
            rows = [row(one, png() + noise) for one in range(number, number + 4)]
            writer.write_table(pa.Table.from_pylist(rows))
            for one in rows:
                (tmp_path / "coco" / "train2017" / one["image_info"]["file_name"]).write_bytes(jpeg())
    program = """
        import sys
        from converters.masks.registry import open_mask_source
        from tests.converters.mask_sources import peak_mib
        import pyarrow.parquet
        before = peak_mib()
        source = open_mask_source("coconut", root=sys.argv[1], index=sys.argv[1])
        indexed = peak_mib()
        masks = sum(len(found.scene.regions) for unit in range(source.num_units) for found in source.read(unit))
        print(before, indexed, peak_mib(), masks)
    """
    before, indexed, after, masks = printed_by(program, tmp_path)
    assert masks == 360
    assert indexed - before < 40
    assert after - before < 60
