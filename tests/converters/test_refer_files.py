"""Missing, broken and foreign annotation files stop the run with a sentence that helps."""

from __future__ import annotations

import gc
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from converters.dialogues.referring import ReferringConverter
from converters.dialogues.registry import open_converter
from converters.dialogues.source import Converter, Plan
from samtok_data.errors import SetupError
from tests.converters import grefs

IMAGES = [grefs.image(1), grefs.image(2)]
ANNOTATIONS = [grefs.annotation(11, 1), grefs.annotation(21, 2)]
REFS = [grefs.ref(1, 1, [11]), grefs.ref(2, 2, [21], split="val")]
BARE_REFS = [grefs.ref(1, 1, 11), grefs.ref(2, 2, 21, split="val")]

GREFS = "grefcoco/grefs(unc).json"
INSTANCES = "grefcoco/instances.json"


def gres(root: Path) -> Path:
    return grefs.write_gres(root, images=IMAGES, annotations=ANNOTATIONS, refs=REFS)


def refcoco(root: Path, **changes: Any) -> Path:
    tables = {"images": IMAGES, "annotations": ANNOTATIONS, "refs": BARE_REFS, **changes}
    return grefs.write_refer(root, "refcoco", "unc", **tables)


def plan(root: Path, dataset: str = "gres", *, splits: tuple[str, ...] = ("all",), **options: Any) -> Plan:
    return open_converter(dataset, root=str(root), **options).plan(splits=splits, unit_size=10, limit=None)


def records(planned: Plan) -> int:
    return sum(unit.records for unit in planned.units)


BROKEN_REFS = {
    "cut": (
        '[{"ref_id": 1,',
        "no complete JSON: Expecting property name enclosed in double quotes at line 1, column 15",
    ),
    "cut-below": ('[\n  {"a": 1},\n', "at line 3, column 1; the file is cut or of another format: fetch it again"),
    "empty-file": ("", "no complete JSON: Expecting value at line 1, column 1"),
    "no-utf-8": (b'["\xff"]', "no JSON that can be read: 'utf-8' codec can't decode byte 0xff"),
    "endless-number": ("[" + "9" * 5000 + "]", "no JSON that can be read: Exceeds the limit"),
    "deep": ("[" * 100_000, "no JSON that can be read: "),
    "instances": (
        json.dumps({"images": IMAGES, "annotations": ANNOTATIONS}),
        "expected a list of refs, each with ref_id, image_id, ann_id, split and sentences; it looks like COCO inst",
    ),
    "object": ('{"a": 1, "b": 2}', "it looks like an object with the keys a, b"),
    "empty-list": ("[]", "it looks like an empty list"),
    "numbers": ("[1, 2]", "it looks like a list of 2 entries that are no objects"),
    "text": ('"refs"', "it looks like a value of type str"),
    "dialogues": ('[{"image": "a.jpg", "conversations": []}]', "it looks like training dialogues"),
    "results": ('[{"image_id": 1, "segmentation": {}, "score": 1}]', "it looks like COCO results"),
    "rows": ('[{"image_id": 1, "caption": ""}]', "it looks like a list of objects with the keys image_id, caption"),
    "refcoco": (
        json.dumps(BARE_REFS),
        "expected refs of gRefCOCO (GRES); it looks like RefCOCO's refs: no ref has a list of annotation ids or 'no_t",
    ),
    "no-split": (
        json.dumps([{**ref, "split": None} for ref in REFS]),
        "no ref names its split (letters, digits, hyphens, underscores)",
    ),
}


@pytest.mark.parametrize(("text", "message"), BROKEN_REFS.values(), ids=BROKEN_REFS)
def test_a_broken_or_foreign_refs_file_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    gres(tmp_path)
    (tmp_path / GREFS).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SetupError, match="^" + re.escape(f"{tmp_path}: {GREFS}: ") + ".*" + re.escape(message)):
        plan(tmp_path)


NO_SEGMENTATION = [{"id": 11, "image_id": 1, "bbox": [0, 0, 1, 1]}]
BROKEN_INSTANCES = {
    "cut": ('{"images": [', "no complete JSON: Expecting value at line 1, column 13"),
    "no-annotations": (
        json.dumps({"info": {}, "images": IMAGES, "categories": []}),
        "expected COCO instances: an object with the lists 'images' and 'annotations', each annotation with a "
        "segmentation; it looks like an object with the keys info, images, categories",
    ),
    "no-images": (json.dumps({"annotations": NO_SEGMENTATION}), "it looks like an object with the keys annotations"),
    "refs": (json.dumps(REFS), "it looks like refs"),
    "panoptic": (
        json.dumps({"images": IMAGES, "annotations": [{"segments_info": [], "image_id": 1, "file_name": "1.png"}]}),
        "it looks like COCO panoptic annotations",
    ),
    "captions": (
        json.dumps({"images": IMAGES, "annotations": [{"id": 1, "image_id": 1, "caption": "a cat"}]}),
        "it looks like COCO captions",
    ),
    "google": (
        json.dumps({"images": {}, "annotations": {}, "refexps": {}}),
        "it looks like Google's RefExp annotations, the form before REFER",
    ),
    "boxes-only": (
        json.dumps({"images": IMAGES, "annotations": NO_SEGMENTATION}),
        "it looks like an object with the keys images, annotations",
    ),
}


@pytest.mark.parametrize(("text", "message"), BROKEN_INSTANCES.values(), ids=BROKEN_INSTANCES)
def test_a_broken_or_foreign_instances_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    gres(tmp_path)
    (tmp_path / INSTANCES).write_text(text)
    with pytest.raises(SetupError, match="^" + re.escape(f"{tmp_path}: {INSTANCES}: ") + ".*" + re.escape(message)):
        plan(tmp_path)


def test_instances_of_another_dataset_are_refused(tmp_path: Path) -> None:
    grefs.write_gres(tmp_path, images=[grefs.image(7)], annotations=[grefs.annotation(71, 7)], refs=REFS)
    message = (
        "none of its 2 images is listed in instances.json, which holds 1: one of the two files is another dataset's"
    )
    with pytest.raises(SetupError, match=re.escape(message)):
        plan(tmp_path)


def test_instances_with_an_empty_list_of_annotations_are_refused(tmp_path: Path) -> None:
    grefs.write_gres(tmp_path, images=IMAGES, annotations=[], refs=REFS)
    with pytest.raises(SetupError, match=re.escape("its refs name 2 annotations, and instances.json holds none")):
        plan(tmp_path)


def test_refs_of_grefcoco_are_refused_as_refcoco(tmp_path: Path) -> None:
    refcoco(tmp_path, refs=REFS)
    message = (
        "refcoco/refs(unc).p: expected refs of RefCOCO; it looks like gRefCOCO's refs: 2 of 2 have a list of "
        "annotation ids or 'no_target'"
    )
    with pytest.raises(SetupError, match=re.escape(message)):
        plan(tmp_path, "refcoco")


@pytest.mark.parametrize("missing", [GREFS, INSTANCES])
def test_a_missing_file_shows_the_layout(tmp_path: Path, missing: str) -> None:
    (gres(tmp_path) / missing).unlink()
    message = (
        f"{tmp_path}: {missing} not found. gres wants this under --root:\n"
        "  grefcoco/grefs(unc).json: refs and sentences\n"
        "  grefcoco/instances.json: images and masks, COCO format\n"
        "  images/train2014: images (COCO train2014, COCO_train2014_*.jpg)"
    )
    with pytest.raises(SetupError, match="^" + re.escape(message) + "$"):
        plan(tmp_path)


def test_a_missing_root_names_both_files(tmp_path: Path) -> None:
    message = "refs(unc).p and refcoco+/instances.json not found. refcoco+ wants this under --root:"
    with pytest.raises(SetupError, match=re.escape(message)):
        plan(tmp_path / "absent", "refcoco+")


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    (gres(tmp_path) / GREFS).unlink()
    (tmp_path / GREFS).mkdir()
    with pytest.raises(SetupError, match=r"grefs\(unc\)\.json: cannot be read: "):
        plan(tmp_path)


def test_a_pickle_that_runs_a_command_is_refused(tmp_path: Path) -> None:
    refcoco(tmp_path)
    path = tmp_path / "refcoco" / "refs(unc).p"
    path.write_bytes(b"(lcos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntRa.")
    with pytest.raises(SetupError, match=re.escape("refs(unc).p: the pickle names os.system, which is refused")):
        plan(tmp_path, "refcoco")
    assert not (tmp_path / "ran").exists()


def test_a_cut_pickle_is_refused(tmp_path: Path) -> None:
    path = refcoco(tmp_path) / "refcoco" / "refs(unc).p"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(SetupError, match=r"refs\(unc\)\.p: no complete pickle"):
        plan(tmp_path, "refcoco")


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_every_protocol_are_read(tmp_path: Path, protocol: int) -> None:
    assert records(plan(refcoco(tmp_path, protocol=protocol), "refcoco")) == 2


def test_wrapped_refs_are_read(tmp_path: Path) -> None:
    assert records(plan(refcoco(tmp_path, refs={"refs": BARE_REFS, "_splits": ["train", "val"]}), "refcoco")) == 2


def test_a_few_lists_among_bare_ids_are_still_refcoco(tmp_path: Path) -> None:
    refs = [*BARE_REFS, grefs.ref(3, 1, 11, ann_id=[11])]
    assert records(plan(refcoco(tmp_path, refs=refs), "refcoco")) == 3


def test_a_pickle_of_grefcoco_is_read(tmp_path: Path) -> None:
    (gres(tmp_path) / GREFS).unlink()
    (tmp_path / "grefcoco" / "grefs(unc).p").write_bytes(pickle.dumps(REFS))
    planned = plan(tmp_path)
    assert records(planned) == 2
    assert sorted(planned.files) == ["grefcoco/grefs(unc).p", INSTANCES]


def test_a_byte_order_mark_is_no_harm(tmp_path: Path) -> None:
    path = gres(tmp_path) / GREFS
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert records(plan(tmp_path)) == 2


PLACES = [
    "images/train2014",
    "images/mscoco/images/train2014",
    "images/coco2014/train2014",
    "coco2014/train2014",
    "train2014",
]


@pytest.mark.parametrize("place", PLACES)
def test_images_are_found_in_every_usual_place(tmp_path: Path, place: str) -> None:
    grefs.write_gres(tmp_path, images=IMAGES, annotations=ANNOTATIONS, refs=REFS, image_files=place)
    assert plan(tmp_path).images_root == f"{tmp_path}/{place}"


def test_the_first_usual_place_wins(tmp_path: Path) -> None:
    for place in PLACES[1:]:
        (gres(tmp_path) / place).mkdir(parents=True, exist_ok=True)
    assert plan(tmp_path).images_root == f"{tmp_path}/images/train2014"


IMAGE_OPTIONS: dict[str, tuple[str, str, str]] = {
    "itself": ("gres", "pictures", "pictures"),
    "child": ("gres", "pictures/train2014", "pictures"),
    "refclef-child": ("refclef", "pictures/saiapr_tc-12", "pictures"),
}


@pytest.mark.parametrize(("dataset", "folder", "option"), IMAGE_OPTIONS.values(), ids=IMAGE_OPTIONS)
def test_the_option_names_the_folder_or_its_parent(tmp_path: Path, dataset: str, folder: str, option: str) -> None:
    gres(tmp_path)
    grefs.write_refer(tmp_path, "refclef", "unc", images=IMAGES, annotations=ANNOTATIONS, refs=BARE_REFS)
    (tmp_path / folder).mkdir(parents=True)
    assert plan(tmp_path, dataset, images_root=str(tmp_path / option)).images_root == str(tmp_path / folder)


def test_a_missing_image_folder_names_the_places_and_the_option(tmp_path: Path) -> None:
    grefs.write_gres(tmp_path, images=IMAGES, annotations=ANNOTATIONS, refs=REFS, image_files=None)
    message = (
        f"{tmp_path}: no folder of images (COCO train2014, COCO_train2014_*.jpg); looked for {', '.join(PLACES)}; "
        "give it with --images-root"
    )
    with pytest.raises(SetupError, match="^" + re.escape(message) + "$"):
        plan(tmp_path)


def test_a_missing_image_folder_of_the_option_is_refused(tmp_path: Path) -> None:
    gres(tmp_path)
    absent = f"{tmp_path}/absent"
    with pytest.raises(SetupError, match=re.escape(f"--images-root {absent}: no such folder; it should hold COCO tra")):
        plan(tmp_path, images_root=absent)


def test_the_search_for_cycles_goes_on_after_a_plan_and_after_an_error(tmp_path: Path) -> None:
    gres(tmp_path)
    plan(tmp_path)
    assert gc.isenabled()
    (tmp_path / GREFS).write_text("[")
    with pytest.raises(SetupError):
        plan(tmp_path)
    assert gc.isenabled()


@pytest.fixture(name="in_memory")
def _in_memory(tmp_path: Path) -> Callable[[], Converter]:
    import fsspec

    gres(tmp_path)
    memory = fsspec.filesystem("memory")
    memory.put(f"{tmp_path}/", "/refer-files/", recursive=True)
    return lambda: open_converter("gres", root="memory://refer-files")


def test_the_root_may_be_an_object_store(tmp_path: Path, in_memory: Callable[[], Converter]) -> None:
    planned = in_memory().plan(splits=("all",), unit_size=10, limit=None)
    assert planned.images_root == "memory://refer-files/images/train2014"
    assert planned.files == plan(tmp_path).files


def test_a_root_of_no_known_protocol_is_refused() -> None:
    with pytest.raises(SetupError, match=r"^nowhere://x: no file system for this address"):
        open_converter("gres", root="nowhere://x").plan(splits=("all",), unit_size=1, limit=None)


def test_the_converter_opens_no_file_before_the_plan(tmp_path: Path) -> None:
    assert isinstance(open_converter("gres", root=str(tmp_path / "absent")), ReferringConverter)
