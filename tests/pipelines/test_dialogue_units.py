"""One unit, without Ray: what is computed how often, what is rejected, what is written."""

from __future__ import annotations

import errno
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from converters.dialogues.registry import DATASETS, open_converter
from converters.dialogues.source import Converter, DatasetInfo, Payload
from pipelines.dialogue_units import DialogueUnits, mended, run_unit, with_masks_first
from pipelines.images import ahead, load_image
from samtok_data import masks
from samtok_data.dialogues import IMAGE_MARK
from samtok_data.errors import RecordError, SetupError
from samtok_data.outputs import HIDDEN, SplitOutput, UnitEntry
from samtok_data.rejects import Reject
from samtok_data.samples import Sample
from samtok_data.scenes import Dialogue, MaskRef, Region, Scene, Turn, View
from samtok_data.shards import read_shard
from samtok_data.storage import Folder
from tests.converters.grefs import annotation, image, ref, write_gres
from tests.pipelines.conftest import FakeTokenizer


def settings_of(converter: Converter, images_root: str, out: Path, **changes: Any) -> DialogueUnits:
    usual: dict[str, Any] = {
        "converter": converter,
        "images_root": Folder(images_root),
        "output": SplitOutput(Folder(out), converter.name, "train"),
        "images": "embed",
        "measure_iou": False,
        "tokenizer": {"name": "fake", "sha256": "0"},
        "run": "0",
    }
    return DialogueUnits(**{**usual, **changes})


def run_folder(root: Path, out: Path, tokenizer: Any, **changes: Any) -> tuple[UnitEntry, DialogueUnits]:
    """Runs the one unit of a small folder."""
    converter = open_converter("gres", root=str(root))
    plan = converter.plan(splits=("train",), unit_size=1000, limit=None)
    (unit,) = plan.units
    settings = settings_of(converter, plan.images_root, out, **changes)
    entry = run_unit(unit.index, plan.payload(unit), settings, tokenizer, records=unit.records)
    assert entry.samples + sum(entry.rejects.values()) == entry.records == unit.records
    return entry, settings


def thirty_sentences(root: Path) -> Path:
    """One image with four objects that thirty sentences name, alone and together."""
    targets = [[1], [2], [3], [4], [1, 2], [3, 4, 1], [], [2, 4], [1, 2, 3, 4], [3]]
    refs = [ref(number, 9, ids, ["one", "two", "three"]) for number, ids in enumerate(targets)]
    annotations = [annotation(number, 9, (12 * number, 5, 10, 20)) for number in range(1, 5)]
    return write_gres(root, images=[image(9, width=80)], annotations=annotations, refs=refs)


def test_thirty_sentences_over_four_objects_cost_one_image_and_four_masks(
    tmp_path: Path, fake_tokenizer: FakeTokenizer
) -> None:
    entry, _ = run_folder(thirty_sentences(tmp_path / "in"), tmp_path / "out", fake_tokenizer)
    assert (fake_tokenizer.num_images, fake_tokenizer.num_masks) == (1, 4)
    assert (entry.samples, entry.images, entry.masks) == (30, 1, 4)


def test_the_network_runs_its_backbone_once_for_them(tmp_path: Path) -> None:
    from tokenizer_model import open_tokenizer

    tokenizer = open_tokenizer("small")
    passes: list[int] = []
    hook = tokenizer.model.sam2_model.image_encoder.register_forward_hook(
        lambda _module, inputs, _output: passes.append(len(inputs[0]))
    )
    encoded: list[int] = []
    second = tokenizer.model.sam2_model.sam_mask_encoder.register_forward_hook(
        lambda _module, _inputs, output: encoded.append(len(output))
    )
    entry, _ = run_folder(thirty_sentences(tmp_path / "in"), tmp_path / "out", tokenizer)
    hook.remove()
    second.remove()
    assert passes == [1]
    assert encoded == [4]
    assert entry.samples == 30


def faulty_images(folder: Path, name: str, fault: str) -> None:
    path = folder / name
    data = path.read_bytes()
    if fault == "missing":
        path.unlink()
    elif fault == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif fault == "no image":
        path.write_bytes(b"<html>404</html>")
    elif fault == "empty":
        path.write_bytes(b"")
    elif fault == "png":
        Image.open(io.BytesIO(data)).save(path, "PNG")
    elif fault == "other size":
        Image.new("RGB", (33, 44)).save(path, "JPEG")


@pytest.mark.parametrize(
    ("fault", "reason", "words"),
    [
        ("missing", "image-missing", "no such image under"),
        ("truncated", "image-unreadable", "cannot be decoded: "),
        ("no image", "image-unreadable", "is no image (16 bytes)"),
        ("empty", "image-unreadable", "is no image (0 bytes)"),
        ("png", "image-format", "expected a JPEG, as all of this dataset, got a PNG; convert it"),
        ("other size", "image-size", "its masks are drawn on 60x40, the image is 33x44"),
    ],
)
def test_a_bad_image_rejects_its_sentences_and_no_other(
    tmp_path: Path, fake_tokenizer: FakeTokenizer, fault: str, reason: str, words: str
) -> None:
    images = [image(1), image(2)]
    refs = [ref(1, 1, [1], ["a", "b"]), ref(2, 2, [2], ["c"]), ref(3, 1, [], ["d"])]
    root = write_gres(tmp_path / "in", images=images, annotations=[annotation(1, 1), annotation(2, 2)], refs=refs)
    faulty_images(root / "images" / "train2014", images[0]["file_name"], fault)
    entry, settings = run_folder(root, tmp_path / "out", fake_tokenizer)
    assert entry.rejects == {reason: 3}
    rejects = settings.output.rejects()
    assert [reject.key for reject in rejects] == ["gres-1-10", "gres-1-11", "gres-3-30"]
    assert all(words in reject.message and images[0]["file_name"] in reject.message for reject in rejects)
    # The list finds the record in the source, and tells a later run whether the image was mended.
    path = root / "images" / "train2014" / images[0]["file_name"]
    assert {reject.record["bytes"] for reject in rejects} == {path.stat().st_size if path.exists() else None}
    sentences = [reject.record["record"]["ref"]["sentences"] for reject in rejects]
    assert [sentence["sent"] for (sentence,) in sentences] == ["a", "b", "d"]
    assert entry.shard is not None
    assert [sample.key for sample in read_shard(settings.output.folder, entry.shard.name)] == ["gres-2-20"]


@pytest.mark.parametrize(
    ("segmentation", "reason", "words"),
    [
        ([[1, 1, 9, 1, 9]], "mask-invalid", "annotation 1: polygon: expected x, y pairs, got an odd number (5)"),
        ([[1, 1, 9, 9]], "mask-invalid", "annotation 1: polygon: expected 6 numbers or more, got 4"),
        ([[70, 70, 75, 70, 75, 75]], "mask-empty", "annotation 1: segmentation: no foreground pixel on 60x40"),
        ({"size": [4, 4], "counts": [16]}, "mask-size", "annotation 1: RLE: expected size [40, 60], got [4, 4]"),
        ([], "mask-empty", "annotation 1: segmentation: expected polygons or an RLE, got an empty list"),
    ],
)
def test_a_bad_mask_rejects_every_sentence_that_needs_it(
    tmp_path: Path, fake_tokenizer: FakeTokenizer, segmentation: Any, reason: str, words: str
) -> None:
    refs = [ref(1, 1, [1]), ref(2, 1, [1, 2]), ref(3, 1, [2])]
    bad = annotation(1, 1, segmentation=segmentation)
    root = write_gres(tmp_path / "in", images=[image(1)], annotations=[bad, annotation(2, 1)], refs=refs)
    entry, settings = run_folder(root, tmp_path / "out", fake_tokenizer)
    assert entry.rejects == {reason: 2}
    assert [reject.message for reject in settings.output.rejects()] == [words, words]
    assert (entry.samples, entry.masks) == (1, 1)


def test_a_unit_of_rejects_alone_has_an_entry_and_no_shard(tmp_path: Path, fake_tokenizer: FakeTokenizer) -> None:
    root = write_gres(tmp_path / "in", images=[image(1)], annotations=[annotation(2, 1)], refs=[ref(1, 1, [1])])
    entry, settings = run_folder(root, tmp_path / "out", fake_tokenizer)
    assert entry.shard is None
    assert settings.output.folder.names(".tar") == []
    assert settings.output.manifest() is None
    assert [json.loads(data)["records"] for data in (settings.output.folder / HIDDEN / "units").read_all(".json")] == [
        1
    ]


def test_referenced_images_stay_out_of_the_shard(tmp_path: Path, fake_tokenizer: FakeTokenizer) -> None:
    root = thirty_sentences(tmp_path / "in")
    entry, settings = run_folder(root, tmp_path / "out", fake_tokenizer, images="reference")
    assert entry.shard is not None
    samples = list(read_shard(settings.output.folder, entry.shard.name))
    assert len(samples) == 30
    assert all(not sample.images for sample in samples)
    assert {name for sample in samples for name in sample.record["image"]} == {"COCO_train2014_000000000009.jpg"}


def test_embedded_images_are_the_bytes_on_disk(tmp_path: Path, fake_tokenizer: FakeTokenizer) -> None:
    root = thirty_sentences(tmp_path / "in")
    entry, settings = run_folder(root, tmp_path / "out", fake_tokenizer)
    assert entry.shard is not None
    samples = list(read_shard(settings.output.folder, entry.shard.name))
    on_disk = (root / "images" / "train2014" / "COCO_train2014_000000000009.jpg").read_bytes()
    assert [dict(sample.images) for sample in samples] == [{"jpg": on_disk}] * 30


def test_measured_ious_are_stored(tmp_path: Path, fake_tokenizer: FakeTokenizer) -> None:
    entry, settings = run_folder(thirty_sentences(tmp_path / "in"), tmp_path / "out", fake_tokenizer, measure_iou=True)
    assert entry.shard is not None
    samples = read_shard(settings.output.folder, entry.shard.name)
    ious = [mask["iou"] for sample in samples for mask in sample.record["masks"]]
    assert ious
    assert set(ious) == {0.0}  # what the fake measures


def test_an_output_that_cannot_be_written_is_a_setup_error_and_leaves_nothing(
    tmp_path: Path, fake_tokenizer: FakeTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    root = thirty_sentences(tmp_path / "in")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SetupError, match=r"gres-train-000000\.tar could not be written: No space left on device"):
        run_folder(root, tmp_path / "out", fake_tokenizer)
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


@dataclass(frozen=True)
class CropConverter:
    """Yields one scene that zooms in: the fake at the converter's boundary."""

    name: str = "zoom"
    info: DatasetInfo = DATASETS["gres"].info

    def scenes(self, payload: Payload) -> Iterator[Scene | Reject]:
        mask_HW = np.zeros((40, 60), np.bool_)
        mask_HW[10:20, 30:40] = True
        corner_HW = np.zeros((40, 60), np.bool_)
        corner_HW[0, 0] = True
        for entry in payload:
            turns = (
                Turn("human", (f"{IMAGE_MARK}\n{IMAGE_MARK}\nWhat is ", MaskRef("a"), "?")),
                Turn("gpt", (MaskRef("a", "zoom"), " is it.")),
            )
            good = Dialogue("zoom-1", "captions", turns, ("image", "zoom"))
            outside = Dialogue("zoom-2", "captions", (Turn("human", (MaskRef("b", "zoom"),)),), ("zoom",))
            yield Scene(
                id="1",
                image=entry["image"],
                height=40,
                width=60,
                regions=(Region("a", masks.encode(mask_HW)), Region("b", masks.encode(corner_HW))),
                dialogues=(good, outside),
                views=(View(), View("zoom", (25, 5, 45, 25), (40, 40))),
            )


def test_a_crop_is_tokenised_and_shown_in_its_own_frame(tmp_path: Path, fake_tokenizer: FakeTokenizer) -> None:
    Image.new("RGB", (60, 40), "red").save(tmp_path / "photo.jpg")
    converter: Any = CropConverter()
    settings = settings_of(converter, str(tmp_path), tmp_path / "out")
    entry = run_unit(0, [{"image": "photo.jpg"}], settings, fake_tokenizer, records=2)
    assert (fake_tokenizer.num_images, fake_tokenizer.num_masks) == (2, 2)
    assert entry.rejects == {"mask-empty": 1}
    assert entry.shard is not None
    (sample,) = read_shard(settings.output.folder, entry.shard.name)
    assert [(mask["view"], mask["bbox"]) for mask in sample.record["masks"]] == [
        ("image", [30, 10, 10, 10]),
        ("zoom", [10, 10, 20, 20]),
    ]
    assert sorted(sample.images) == ["1.png", "jpg"]
    assert Image.open(io.BytesIO(sample.images["1.png"])).size == (40, 40)
    assert sample.record["image"] == ["photo.jpg", "photo.jpg"]


def test_the_first_sample_of_a_shard_has_a_mask() -> None:
    samples = [Sample(str(number), {"masks": ["m"] * (number in (2, 3))}, {}) for number in range(5)]
    assert [sample.key for sample in with_masks_first(samples)] == ["2", "0", "1", "3", "4"]
    assert [sample.key for sample in with_masks_first(samples[:2])] == ["0", "1"]


def test_results_come_in_order_and_only_some_ahead() -> None:
    drawn: list[int] = []

    def items() -> Iterator[int]:
        for number in range(20):
            drawn.append(number)
            yield number

    taken = 0
    for taken, result in enumerate(ahead(lambda number: -number, items(), threads=2, limit=3), start=1):
        assert result == 1 - taken
        assert len(drawn) <= taken + 3
    assert taken == 20


def test_the_settings_say_where_bookkeeping_goes(tmp_path: Path, fake_tokenizer: FakeTokenizer) -> None:
    _, settings = run_folder(thirty_sentences(tmp_path / "in"), tmp_path / "out", fake_tokenizer)
    folder = tmp_path / "out" / "gres" / "train"
    assert settings.output.folder.address == str(folder)
    assert sorted(path.name for path in folder.iterdir()) == [".samtok", ".tmp", "gres-train-000000.tar"]
    assert [path.name for path in (folder / HIDDEN / "units").iterdir()] == ["000000.json"]


def test_a_unit_that_loses_a_record_is_not_committed(tmp_path: Path, fake_tokenizer: FakeTokenizer) -> None:
    converter = open_converter("gres", root=str(thirty_sentences(tmp_path / "in")))
    plan = converter.plan(splits=("train",), unit_size=1000, limit=None)
    (unit,) = plan.units
    settings = settings_of(converter, plan.images_root, tmp_path / "out")
    with pytest.raises(RuntimeError, match="unit 0: 30 samples and 0 rejects from 31 records"):
        run_unit(unit.index, plan.payload(unit), settings, fake_tokenizer, records=31)
    assert not (tmp_path / "out").exists()


def test_an_image_with_further_pictures_is_a_jpeg(tmp_path: Path) -> None:
    picture = Image.new("RGB", (60, 40), "red")
    picture.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[picture])
    with Image.open(tmp_path / "a.jpg") as opened:
        assert opened.format == "MPO"
    assert load_image(Folder(tmp_path), "a.jpg", 40, 60, "jpg").suffix == "jpg"


@pytest.mark.parametrize("name", ["a" * 300 + ".jpg", "a.jpg/b.jpg", "folder"])
def test_a_name_that_no_file_has_is_a_missing_image(tmp_path: Path, name: str) -> None:
    Image.new("RGB", (60, 40)).save(tmp_path / "a.jpg")
    (tmp_path / "folder").mkdir()
    with pytest.raises(RecordError) as caught:
        load_image(Folder(tmp_path), name, 40, 60, "jpg")
    assert caught.value.reason == "image-missing"


def test_a_file_system_that_fails_is_no_fault_of_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_self: Folder, _name: str) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Folder, "read", fail)
    with pytest.raises(SetupError, match=r"a\.jpg cannot be read: Input/output error\. What was finished stays"):
        load_image(Folder(tmp_path), "a.jpg", 40, 60, "jpg")


def test_only_a_changed_image_counts_as_mended(tmp_path: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes(b"123")
    rejects = [
        Reject("1", "image-missing", "", {"image": "lost.jpg", "bytes": None}),
        Reject("2", "image-unreadable", "", {"image": "cut.jpg", "bytes": 3}),
        Reject("3", "sentence-empty", "", {"ref": {}}),
    ]
    folder = Folder(tmp_path)
    assert not mended(rejects, folder)
    (tmp_path / "lost.jpg").write_bytes(b"1")
    assert mended(rejects, folder)
    assert not mended(rejects[1:], folder)
    (tmp_path / "cut.jpg").write_bytes(b"1234")
    assert mended(rejects[1:], folder)


def test_sixteen_bits_are_not_squeezed_into_eight(tmp_path: Path) -> None:
    Image.fromarray(np.full((40, 60), 40_000, np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(RecordError, match="expected 8 bits a channel, got mode I;16; convert it"):
        load_image(Folder(tmp_path), "a.png", 40, 60, "png")


def test_a_large_image_of_another_size_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (60, 40)).save(tmp_path / "a.jpg")
    monkeypatch.setattr(Image.Image, "load", lambda _self: pytest.fail("decoded"))
    with pytest.raises(RecordError, match="its masks are drawn on 9x9, the image is 60x40"):
        load_image(Folder(tmp_path), "a.jpg", 9, 9, "jpg")
