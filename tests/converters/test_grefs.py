"""The writer of test folders, and the bundled sample."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from converters.dialogues.registry import open_converter
from samtok_data import masks
from samtok_data.scenes import Scene
from tests.converters import grefs

SAMPLE = Path(__file__).parents[2] / "samples" / "gres"


def test_a_written_folder_has_images_of_the_listed_sizes_and_boxes_of_the_given_pixels(tmp_path: Path) -> None:
    images = [grefs.image(1), grefs.image(2, height=30, width=50)]
    annotations = [grefs.annotation(11, 1, (3, 4, 5, 6)), grefs.annotation(21, 2, (0, 0, 50, 30))]
    refs = [grefs.ref(1, 1, [11]), grefs.ref(2, 2, [21])]
    root = grefs.write_gres(tmp_path, images=images, annotations=annotations, refs=refs)
    converter = open_converter("gres", root=str(root))
    plan = converter.plan(splits=("all",), unit_size=100, limit=None)
    boxes = {}
    for scene in converter.scenes(plan.payload(plan.units[0])):
        assert isinstance(scene, Scene)
        with Image.open(f"{plan.images_root}/{scene.image}") as picture:
            assert (picture.format, picture.size) == ("JPEG", (scene.width, scene.height))
        boxes |= {region.id: masks.coco_box(region.rle) for region in scene.regions}
    assert boxes == {"11": (3, 4, 5, 6), "21": (0, 0, 50, 30)}


def test_the_full_size_folder_shrinks_in_proportion(tmp_path: Path) -> None:
    converter = open_converter("gres", root=str(grefs.write_full_size(tmp_path, num_images=200)))
    plan = converter.plan(splits=("all",), unit_size=500, limit=None)
    counts = {one.split: one.found for one in plan.expectations}
    assert counts == {"train": 2093, "val": 169, "testA": 187, "testB": 149, "all": 2598}
    found = [one for unit in plan.units for one in converter.scenes(plan.payload(unit))]
    dialogues = [dialogue for one in found if isinstance(one, Scene) for dialogue in one.dialogues]
    assert len(dialogues) == sum(unit.records for unit in plan.units) == 2598
    assert sum(not dialogue.refs for dialogue in dialogues) / 2598 == pytest.approx(0.09, abs=0.02)
    assert sum(len(dialogue.refs) > 1 for dialogue in dialogues) / 2598 == pytest.approx(0.33, abs=0.03)


@pytest.mark.skipif(not (SAMPLE / "grefcoco").is_dir(), reason="the bundled sample is not in this copy")
def test_the_bundled_sample_converts() -> None:
    converter = open_converter("gres", root=str(SAMPLE))
    plan = converter.plan(splits=("all",), unit_size=20, limit=None)
    assert plan.units
    for unit in plan.units:
        found = list(converter.scenes(plan.payload(unit)))
        assert sum(len(one.dialogues) if isinstance(one, Scene) else 1 for one in found) == unit.records
        for scene in found:
            if isinstance(scene, Scene):
                with Image.open(f"{plan.images_root}/{scene.image}") as picture:
                    assert picture.size == (scene.width, scene.height)
