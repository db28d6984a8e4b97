"""LISA++: rows that name annotations of COCO, joined with COCO's own files."""

from __future__ import annotations

import json
import pickle
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from converters.masks.registry import open_mask_source, read_mix
from converters.masks.source import MaskSource
from samtok_data.errors import SetupError
from samtok_data.storage import Folder
from tests.converters.mask_sources import (
    HEIGHT,
    WIDTH,
    areas,
    box_polygon,
    coco_annotation,
    coco_image,
    photograph,
    printed_by,
    read_all,
    reasons,
)

HALF = HEIGHT * WIDTH // 2
CROWD = {"iscrowd": 1, "segmentation": {"size": [HEIGHT, WIDTH], "counts": [0, HALF, HALF]}}
ROWS = "LISA_Plus_Instance_Seg/data.json"


def row(image: int, *ids: Any, **fields: Any) -> dict[str, Any]:
    """A row of Instance_Seg; the polygons in it are wrong on purpose: nobody may read them."""
    points = {str(one): {"label name": "dog", "points": [[0, 0, 1, 0, 1, 1]]} for one in ids}
    usual = {"English Question": "Which dog?", "img_path": f"{image:012d}.jpg", "ID": list(ids), "points": points}
    return {**usual, **fields}


def write(root: Path, *rows: Any, file: str = ROWS) -> Path:
    """COCO of three images: 1 with a polygon and a crowd, 2 with two polygons, 3 with one; and rows."""
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(json.dumps(list(rows)))
    wide = coco_annotation(21, 2, segmentation=[box_polygon(0, 0, 30, 10)])
    annotations = [coco_annotation(20, 2), coco_annotation(11, 1, **CROWD), wide, coco_annotation(10, 1)]
    write_coco(root, "train", [1, 2, 3], [*annotations, coco_annotation(30, 3)])
    return root


def write_coco(root: Path, split: str, images: list[int], annotations: list[Any]) -> None:
    path = root / "annotations" / f"instances_{split}2017.json"
    path.parent.mkdir(exist_ok=True)
    listed = [coco_image(number) for number in images]
    path.write_text(json.dumps({"images": listed, "annotations": annotations, "categories": []}))
    for number in images:
        photograph(root / f"{split}2017" / f"{number:012d}.jpg")


def open_lisa(root: Path, **options: Any) -> MaskSource:
    return open_mask_source("lisa++", root=str(root), index=str(root / "index"), **options)


def test_ids_are_looked_up_in_cocos_file(tmp_path: Path) -> None:
    write(tmp_path, row(2, "20", "21"), row(1, "10"))
    source = pickle.loads(pickle.dumps(open_lisa(tmp_path)))
    (one, two), rejects = read_all(source)
    assert rejects == []
    assert (areas(one), areas(two)) == ({"10": 100}, {"20": 100, "21": 300})
    assert (one.scene.id, one.scene.image) == ("1", "train2017/000000000001.jpg")
    assert one.open().size == (WIDTH, HEIGHT)
    assert source.unit_name(0) == "train2017/000000000001.jpg"
    assert source.num_units == 2  # no row names the third image
    assert source.name == "lisa-plus-plus"


def test_an_annotation_of_several_rows_is_one_mask(tmp_path: Path) -> None:
    write(tmp_path, row(2, "20"), row(1, "10", "10"), row(2, "21", "20"), row(2, 20, " 21"))
    (one, two), rejects = read_all(open_lisa(tmp_path))
    assert (areas(one), areas(two), rejects) == ({"10": 100}, {"20": 100, "21": 300}, [])


def test_crowds_are_kept_unless_they_are_skipped(tmp_path: Path) -> None:
    write(tmp_path, row(1, "10", "11"))
    (one,), rejects = read_all(open_lisa(tmp_path))
    assert (areas(one), rejects) == ({"11": HALF, "10": 100}, [])
    for options, found in (({"crowd": "skip"}, {"10": 100}), ({"min_area": 101}, {"11": HALF})):
        source = open_lisa(tmp_path, **options)
        (one,), rejects = read_all(source)
        assert (areas(one), rejects) == (found, [])
        assert {field: source.settings[field] for field in options} == options


SUBSETS = {
    "instance-seg": ("Instance_Seg", {"img_path": "000000000002.jpg", "ID": ["21"], "points": {"20": {}}}),
    "cot": ("COT", {"image_path": "train2017/000000000002.jpg", "info": {"21": {"polygon": []}}}),
    "caption": ("Caption", {"image_path": "coco/train2017/000000000002.jpg", "info": {"21": {}}}),
    "conversations": ("Conversations", {"img_pth": "COCO_train2014_000000000002.jpg", "output": "", "info": {"21": 0}}),
}


@pytest.mark.parametrize(("subset", "called", "fields"), [(key, *value) for key, value in SUBSETS.items()], ids=SUBSETS)
def test_every_subset_spells_the_image_in_its_own_way(
    tmp_path: Path, subset: str, called: str, fields: dict[str, Any]
) -> None:
    stranger = {**fields, next(field for field in fields if field.startswith("im")): "000000000001.jpg"}
    write(tmp_path, fields, stranger, file=f"LISA_Plus_{called}/data.json")
    source = open_lisa(tmp_path, subset=subset)
    (image,), rejects = read_all(source)
    assert (image.scene.id, areas(image)) == ("2", {"21": 300})
    assert reasons(rejects) == [("1/21", "annotation-image")]  # the field was looked at
    assert source.settings["subset"] == subset


@pytest.mark.parametrize("file", [ROWS, f"Senqiao/{ROWS}", "LISA_Plus_Instance_Seg.json", "data.json"])
def test_the_rows_are_found_where_they_are_published(tmp_path: Path, file: str) -> None:
    write(tmp_path, row(1, "10"), file=file)
    assert [areas(image) for image in read_all(open_lisa(tmp_path))[0]] == [{"10": 100}]


def test_coco_may_lie_in_a_folder_of_its_own_and_packed(tmp_path: Path) -> None:
    wanted = [image.scene for image in read_all(open_lisa(write(tmp_path, row(1, "10"), row(2, "20"))))[0]]
    (tmp_path / "coco").mkdir()
    (tmp_path / "annotations").rename(tmp_path / "coco" / "annotations")
    shutil.make_archive(str(tmp_path / "coco" / "train2017"), "zip", tmp_path, "train2017")
    shutil.rmtree(tmp_path / "train2017")
    images, rejects = read_all(pickle.loads(pickle.dumps(open_lisa(tmp_path))))
    assert ([image.scene for image in images], rejects) == (wanted, [])
    assert {image.open().size for image in images} == {(WIDTH, HEIGHT)}
    assert len(list((tmp_path / "index").glob("*.sqlite"))) == 1  # the same bytes, the same index


def test_ids_that_coco_does_not_list_are_rejects(tmp_path: Path) -> None:
    write(tmp_path, row(1, "99", "10"), row(3, "98"), row(2, "20"), row(1, "99"))
    (one, two), rejects = read_all(open_lisa(tmp_path))
    assert (areas(one), areas(two)) == ({"10": 100}, {"20": 100})
    assert reasons(rejects) == [("1/99", "annotation-missing"), ("3/98", "annotation-missing")]
    assert rejects[0].message == "99: COCO's file lists no such annotation"
    assert [reject.record for reject in rejects] == [{"row": 0, "annotation": 99}, {"row": 1, "annotation": 98}]


def test_an_annotation_of_another_image_is_a_reject(tmp_path: Path) -> None:
    write(tmp_path, row(1, "10", "20"), row(2, "20"))
    (one, two), (reject,) = read_all(open_lisa(tmp_path))
    assert (areas(one), areas(two)) == ({"10": 100}, {"20": 100})  # the row that is right still counts
    assert (reject.key, reject.reason) == ("1/20", "annotation-image")
    assert reject.message == "20: a row names it with image 1, in COCO's file it belongs to image 2"
    (tmp_path / ROWS).write_text(json.dumps([row(1, "10", "20")]))
    (one,), rejects = read_all(open_lisa(tmp_path))
    assert (areas(one), reasons(rejects)) == ({"10": 100}, [("1/20", "annotation-image")])


def test_a_row_without_an_image_has_that_of_its_annotation(tmp_path: Path) -> None:
    nameless = [{"ID": ["20"]}, {"ID": ["21"], "img_path": None}, {"ID": ["10", "99"], "img_path": "photo.jpg"}]
    write(tmp_path, *nameless)
    (one, two), rejects = read_all(open_lisa(tmp_path))
    assert (areas(one), areas(two)) == ({"10": 100}, {"20": 100, "21": 300})
    assert reasons(rejects) == [("None/99", "annotation-missing")]


BROKEN = {
    "no object": ("row", "expected an object with ids in ID or info, got 'row'"),
    "no ids": ({"img_path": "000000000001.jpg"}, "expected an object with ids in ID or info"),
    "ids as text": ({"ID": "20"}, "expected an object with ids in ID or info"),
    "null": ({"ID": None}, "expected an object with ids in ID or info"),
    "a word": ({"ID": ["dog"]}, "expected ids of COCO's annotations, got 'dog'"),
    "a fraction": ({"ID": [2.5]}, "got 2.5"),
    "negative": ({"ID": ["-3"]}, "got '-3'"),
    "true": ({"ID": [True]}, "got True"),
    "too long": ({"ID": ["9" * 30]}, "got '999"),
    "a list": ({"ID": [["20"]]}, "got ['20']"),
}


@pytest.mark.parametrize(("bad", "message"), BROKEN.values(), ids=BROKEN)
def test_a_row_or_id_that_is_none_is_a_reject(tmp_path: Path, bad: Any, message: str) -> None:
    if isinstance(bad, dict) and isinstance(bad.get("ID"), list):
        bad = {**bad, "ID": ["21", *bad["ID"], "20"]}  # the others of the row still count
    write(tmp_path, row(2, "20", "21"), bad)
    (two,), (reject,) = read_all(open_lisa(tmp_path))
    assert areas(two) == {"20": 100, "21": 300}
    assert reject.key.endswith("/row-1")
    assert reject.reason == "record-invalid"
    assert message in reject.message
    assert reject.record["row"] == 1


def test_ids_may_be_looked_up_in_val_as_well(tmp_path: Path) -> None:
    write(tmp_path, row(1, "10"), row(7, "70"))
    write_coco(tmp_path, "val", [7], [coco_annotation(70, 7)])
    (one,), rejects = read_all(open_lisa(tmp_path))
    assert (areas(one), reasons(rejects)) == ({"10": 100}, [("7/70", "annotation-missing")])
    source = open_lisa(tmp_path, instances_val="annotations/instances_val2017.json")
    (one, seven), rejects = read_all(source)
    assert ([one.scene.image, seven.scene.image], rejects) == (
        ["train2017/000000000001.jpg", "val2017/000000000007.jpg"],
        [],
    )
    assert seven.open().size == (WIDTH, HEIGHT)
    assert len(source.settings["coco"]) == 2


def test_an_image_that_both_files_list_is_a_reject(tmp_path: Path) -> None:
    write(tmp_path, row(1, "10"), row(2, "20"))
    write_coco(tmp_path, "val", [2], [])
    (one,), rejects = read_all(open_lisa(tmp_path, instances_val="annotations/instances_val2017.json"))
    assert (one.scene.id, reasons(rejects)) == ("1", [("2", "record-duplicate")])


@pytest.mark.parametrize("name", ["../x.jpg", "/etc/x.jpg", None, "c:/x.jpg"])
def test_an_image_whose_name_leads_out_is_not_read(tmp_path: Path, name: Any) -> None:
    write(tmp_path, row(1, "10"), row(2, "20"))
    path = tmp_path / "annotations" / "instances_train2017.json"
    value = json.loads(path.read_text())
    value["images"][1]["file_name"] = name
    path.write_text(json.dumps(value))
    images, rejects = read_all(open_lisa(tmp_path))
    if rejects:
        assert ([image.scene.id for image in images], reasons(rejects)) == (["1"], [("2", "record-invalid")])
    else:
        with pytest.raises(ValueError, match="no such image"):
            images[1].open()


REFUSED = {
    "no row": ([], "expected a list of rows, found none"),
    "an object": ({"ID": ["10"]}, "expected a list of rows, found none"),
    "nothing in COCO": ([row(1, "98"), row(1, "99")], "none of the 2 annotations that it names is in "),
    "no ids": ([row(1)], "none of the 0 annotations"),
}


@pytest.mark.parametrize(("rows", "message"), REFUSED.values(), ids=REFUSED)
def test_files_that_do_not_belong_together_are_refused(tmp_path: Path, rows: Any, message: str) -> None:
    write(tmp_path)
    (tmp_path / ROWS).write_text(json.dumps(rows))
    with pytest.raises(SetupError) as caught:
        open_lisa(tmp_path)
    assert message in str(caught.value)
    assert list((tmp_path / "index").glob("*.sqlite")) == []


def test_files_that_are_not_there_or_cut_are_refused(tmp_path: Path) -> None:
    write(tmp_path, row(1, "10"))
    with pytest.raises(
        SetupError, match=r"none of the files LISA_Plus_COT/data\.json, .*; name the file with the option"
    ):
        open_lisa(tmp_path, subset="cot")
    with pytest.raises(SetupError, match=r"b\.json: no such file; give the annotation file with the option instances"):
        open_lisa(tmp_path, instances="b.json")
    with pytest.raises(SetupError, match="subset: expected instance-seg or cot or caption or conversations, got 'COT'"):
        open_lisa(tmp_path, subset="COT")
    text = (tmp_path / ROWS).read_text()
    (tmp_path / ROWS).write_text(text[:-9])
    with pytest.raises(SetupError, match="no complete JSON"):
        open_lisa(tmp_path)


@pytest.mark.parametrize("changing", ["data.json", "instances_train2017.json"])
def test_a_file_that_changes_while_it_is_read_leaves_no_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changing: str
) -> None:
    write(tmp_path, row(1, "10"))
    opened = Folder.open

    def change(folder: Folder, name: str) -> Any:
        file = opened(folder, name)
        if name.endswith(changing):
            path = tmp_path / name
            path.with_suffix(".new").write_text(path.read_text() + " ")
            path.with_suffix(".new").replace(path)
        return file

    monkeypatch.setattr(Folder, "open", change)
    with pytest.raises(SetupError, match="it changed while it was read; start again"):
        open_lisa(tmp_path)
    assert list((tmp_path / "index").glob("*.sqlite")) == []


def test_lists_that_span_chunks_are_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converters.files.json_stream._CHUNK", 64)
    write(tmp_path, *(row(image, one) for image, one in ((3, "30"), (1, "11"), (2, "21"), (1, "10"), (2, "20"))))
    images, rejects = read_all(open_lisa(tmp_path))
    assert [areas(image) for image in images] == [{"11": HALF, "10": 100}, {"20": 100, "21": 300}, {"30": 100}]
    assert rejects == []


def test_the_name_in_a_mix_needs_no_saying(tmp_path: Path) -> None:
    (tmp_path / "mix.yaml").write_text("sources: [{kind: lisa++, root: lisa}]")
    (mixed,) = read_mix(tmp_path / "mix.yaml")
    assert (mixed.kind, mixed.name) == ("lisa++", "lisa-plus-plus")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_is_flat_over_rows(tmp_path: Path) -> None:
    """10,000 rows with 10 MB of polygons that nobody needs."""
    write(tmp_path)
    polygon = {"points": {"1": {"label name": "dog", "points": [[1.5] * 180]}}}
    with (tmp_path / ROWS).open("w") as file:
        file.write(f"[{json.dumps(row(1, '10', **polygon))}")
        for number in range(10_000):
            file.write(f", {json.dumps({**row(number + 9, str(number + 100)), **polygon})}")
        file.write("]")
    program = """
        import sys
        from converters.masks.registry import open_mask_source
        from tests.converters.mask_sources import peak_mib
        import ijson
        before = peak_mib()
        source = open_mask_source("lisa++", root=sys.argv[1], index=sys.argv[1])
        print(before, peak_mib(), source.num_units)
    """
    before, peak, units = printed_by(program, tmp_path)
    assert units == 10_001
    assert peak - before < 30


def test_the_index_holds_named_annotations_alone(tmp_path: Path) -> None:
    write(tmp_path, row(2, "21"))
    open_lisa(tmp_path)
    (path,) = (tmp_path / "index").glob("*.sqlite")
    with sqlite3.connect(path) as connection:
        ((images, annotations),) = connection.execute("SELECT images, annotations FROM units")
    connection.close()
    assert [entry["file_name"] for entry in json.loads(images)] == ["train2017/000000000002.jpg"]
    assert [entry["id"] for entry in json.loads(annotations)] == [21]
