"""Real records: the samples of RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO in the folder that SAMTOK_SAMPLES names."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from converters.dialogues.registry import open_converter
from samtok_data import masks
from samtok_data.rejects import Reject
from samtok_data.scenes import Dialogue, Scene
from tests.converters import grefs

REFER = "refer_layout_derived"


@pytest.fixture
def refseg(samples: Path) -> Path:
    """The samples of referring segmentation."""
    return samples / "refseg"


COUNTS = {
    ("refcoco", "unc"): {"train": 5, "val": 6, "testA": 3, "testB": 6},
    ("refcoco", "google"): {"train": 6, "val": 5, "test": 6},
    ("refcoco+", "unc"): {"train": 6, "val": 7, "testA": 3, "testB": 6},
    ("refcocog", "umd"): {"train": 4, "val": 4, "test": 4},
    ("refcocog", "google"): {"train": 4, "val": 4},
}


@pytest.mark.parametrize(("dataset", "partition"), COUNTS, ids=" ".join)
def test_every_real_sentence_becomes_a_dialogue(refseg: Path, tmp_path: Path, dataset: str, partition: str) -> None:
    converter = open_converter(dataset, root=str(refseg / REFER), images_root=str(tmp_path), partition=partition)
    plan = converter.plan(splits=("all",), unit_size=2, limit=None)
    counts: Counter[str] = Counter()
    for unit in plan.units:
        found = list(converter.scenes(plan.payload(unit)))
        assert [one for one in found if isinstance(one, Reject)] == []
        dialogues = [dialogue for one in found if isinstance(one, Scene) for dialogue in one.dialogues]
        assert len(dialogues) == unit.records
        assert all(len(dialogue.refs) == 1 for dialogue in dialogues)
        counts[unit.split] += len(dialogues)
    assert counts == COUNTS[dataset, partition]
    table = {split: count for split, count in counts.items() if converter.info.sentences[split]}
    assert {one.split: one.found for one in plan.expectations if one.split != "all"} == table


def test_a_real_record_is_known_word_for_word(refseg: Path, tmp_path: Path) -> None:
    converter = open_converter("refcocog", root=str(refseg / REFER), images_root=str(tmp_path))
    plan = converter.plan(splits=("train",), unit_size=100, limit=None)
    dialogues: dict[str, tuple[Scene, Dialogue]] = {}
    for one in converter.scenes(plan.payload(plan.units[0])):
        assert isinstance(one, Scene)
        dialogues |= {dialogue.key: (one, dialogue) for dialogue in one.dialogues}
    scene, dialogue = dialogues["refcocog-umd-9093-10531"]
    assert scene.image == "COCO_train2014_000000460986.jpg"
    assert (scene.height, scene.width) == (427, 640)
    assert dialogue.turns[1].text[-1] == '", "label": "a small bowl in third from the right"}]\n```'
    assert [ref.region for ref in dialogue.refs] == ["1152939"]


def test_real_masks_have_the_area_and_box_that_their_annotations_state(refseg: Path, tmp_path: Path) -> None:
    annotations = json.loads((refseg / REFER / "refcoco" / "instances.json").read_text())["annotations"]
    by_id = {str(annotation["id"]): annotation for annotation in annotations}
    converter = open_converter("refcoco", root=str(refseg / REFER), images_root=str(tmp_path))
    plan = converter.plan(splits=("all",), unit_size=100, limit=None)
    regions = [
        region
        for unit in plan.units
        for one in converter.scenes(plan.payload(unit))
        if isinstance(one, Scene)
        for region in one.regions
    ]
    assert len(regions) == 7
    for region in regions:
        stated = by_id[region.id]
        assert masks.area(region.rle) == pytest.approx(stated["area"], rel=0.06, abs=20)
        assert masks.coco_box(region.rle) == pytest.approx(stated["bbox"], abs=2)


def _gres(root: Path, refs: list[Any], images: list[Any], annotations: list[Any], **options: Any) -> list[Any]:
    grefs.write_gres(root, images=images, annotations=annotations, refs=refs, image_files="train2014")
    converter = open_converter("gres", root=str(root), **options)
    plan = converter.plan(splits=("val",), unit_size=100, limit=None)
    return [one for unit in plan.units for one in converter.scenes(plan.payload(unit))]


def test_the_real_record_without_target(refseg: Path, tmp_path: Path) -> None:
    ref = json.loads((refseg / "gref_issues" / "issue12_no_target_ref.json").read_text())
    (scene,) = _gres(tmp_path, [ref], [grefs.image(909)], [])
    (dialogue,) = scene.dialogues
    assert dialogue.key == "gres-135-400"
    assert "the b;ack keyboard in front of the computer on the table" in dialogue.turns[0].text[0]
    assert dialogue.turns[1].text == ("No target.",)
    assert scene.regions == ()


def test_the_real_crowd(refseg: Path, tmp_path: Path) -> None:
    crowd = json.loads((refseg / "gref_issues" / "issue7_iscrowd_annotation.json").read_text())
    tables = ([grefs.ref(1, 10881, [crowd["id"]], split="val")], [grefs.image(10881, height=480, width=640)], [crowd])
    (scene,) = _gres(tmp_path, *tables)
    (region,) = scene.regions
    assert region.id == "904700010881"
    assert masks.area(region.rle) == 2188  # the file says 2517
    x, y, width, height = crowd["bbox"]
    assert masks.coco_box(region.rle) == (x, y, width + 1, height + 1)  # the file's box ends on the last pixel
    (reject,) = _gres(tmp_path, *tables, crowd="skip")
    assert reject.reason == "crowd-skipped"
