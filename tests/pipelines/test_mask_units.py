"""One unit of a mask source, without Ray: what its rows hold, what is rejected, what is computed together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from converters.masks.registry import open_mask_source
from converters.masks.source import MaskedImage
from pipelines.mask_units import MaskUnits
from pipelines.work import Job
from samtok_data.outputs import HIDDEN, SplitOutput, UnitEntry
from samtok_data.rejects import Reject
from samtok_data.scenes import Region, Scene
from samtok_data.storage import Folder
from tests.pipelines.conftest import FakeTokenizer
from tests.pipelines.mask_runs import (
    HEIGHT,
    WIDTH,
    Members,
    boxes,
    expected,
    fake_codes,
    found_masks,
    pair,
    picture,
    table,
    tar_of,
    text,
)

IDENTITY = {"name": "fake", "sha256": "0123456789abcdef" * 4}


def units_of(source: Any, out: Path, **changes: Any) -> MaskUnits:
    usual: dict[str, Any] = {
        "source": source,
        "output": SplitOutput(Folder(out), "sa1b", "masks", "table"),
        "limit": None,
        "measure_iou": False,
        "tokenizer": IDENTITY,
        "run": "0",
    }
    return MaskUnits(**{**usual, **changes})


def run_tar(
    folder: Path, data: bytes, tokenizer: Any = None, options: dict[str, Any] | None = None, **changes: Any
) -> tuple[UnitEntry, list[dict[str, Any]], list[Reject]]:
    """Runs a tar as the one unit of SA-1B; its entry, rows and rejects."""
    (folder / "in").mkdir(exist_ok=True)
    (folder / "in" / "sa_000000.tar").write_bytes(data)
    source: Any = open_mask_source("sa1b", root=str(folder / "in"), index=str(folder / "index"), **(options or {}))
    units = units_of(source, folder / "out", **changes)
    payload = {"records": source.records(range(1)), "origin": source.listing[0]}
    entry = units.run_job(Job("masks", 0, 1, payload), tokenizer or FakeTokenizer())
    assert entry.samples + sum(entry.rejects.values()) == entry.records
    found = [] if entry.shard is None else table(folder / "out" / "sa1b" / "masks" / entry.shard.name)
    assert len(found) == entry.samples == entry.masks
    rejects = units.output.rejects_of(0) if entry.rejects else []
    return entry, found, rejects


# --- what a row holds ------------------------------------------------------------------------------------------------


def test_every_mask_of_a_tar_is_a_row_in_its_order(tmp_path: Path) -> None:
    order = [7, 3, 12, 1, 5, 30, 2, 28, 9, 11]
    entry, found, rejects = run_tar(tmp_path, tar_of([member for number in order for member in pair(number)]))
    assert rejects == []
    assert (entry.images, entry.masks, entry.records) == (10, 30, 30)
    wanted = expected(order)
    assert list(found_masks(found).items()) == list(wanted.items())
    assert entry.origin == f"sa_000000.tar {(tmp_path / 'in' / 'sa_000000.tar').stat().st_size}"
    for row, rle in zip(found, wanted.values(), strict=True):
        assert (row["source"], row["archive"], row["frame"]) == ("sa1b", "sa_000000.tar", None)
        assert row["image"] == f"sa_000000.tar/{row['scene']}.jpg"
        assert (row["height"], row["width"], row["r_iou"]) == (HEIGHT, WIDTH, None)
        assert [row["code_0"], row["code_1"]] == fake_codes(rle)
        assert row["word"] == FakeTokenizer.vocabulary.format(fake_codes(rle))
        assert row["tokenizer"] == IDENTITY["sha256"][:16]


def test_twenty_masks_of_an_image_or_all_of_them(tmp_path: Path) -> None:
    data = tar_of(pair(1, 50) + pair(2, 7))
    _, usual, _ = run_tar(tmp_path, data)
    _, every, _ = run_tar(tmp_path, data, options={"masks_per_image": None})
    assert list(found_masks(every).items()) == [*expected([1], 50).items(), *expected([2], 7).items()]
    assert [row["scene"] for row in usual] == ["sa_1"] * 20 + ["sa_2"] * 7
    assert [row for row in every if (row["scene"], row["region"]) in found_masks(usual)] == usual


class Recording(FakeTokenizer):
    """Remembers how many masks of each image it is given at once."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[list[int]] = []

    def encode_prepared(self, prepared: Sequence[Any]) -> list[NDArray[np.int64]]:
        self.calls.append([len(rles) for _, rles in prepared])
        return super().encode_prepared(prepared)


def test_eight_images_go_together_each_with_all_of_its_masks(tmp_path: Path) -> None:
    data = tar_of([member for number in range(1, 11) for member in pair(number, 300 if number == 2 else 2)])
    tokenizer = Recording()
    _, found, _ = run_tar(tmp_path, data, tokenizer, {"masks_per_image": None})
    assert tokenizer.calls == [[2, 300, 2, 2, 2, 2, 2, 2], [2, 2]]
    assert len(found) == 318


class Measuring(Recording):
    """IoUs that differ from mask to mask."""

    def measure_prepared(self, prepared: Sequence[Any]) -> tuple[list[NDArray[np.int64]], list[NDArray[np.float64]]]:
        return self.encode_prepared(prepared), [
            np.array([self._codes(rle)[0] / 256 + 1e-7 for rle in rles]) for _, rles in prepared
        ]


def test_the_iou_of_each_mask_stands_in_its_row(tmp_path: Path) -> None:
    data = tar_of([member for number in range(1, 11) for member in pair(number, 6 if number == 2 else 2)])
    tokenizer = Measuring()
    _, found, _ = run_tar(tmp_path, data, tokenizer, measure_iou=True)
    assert tokenizer.calls == [[2, 6, 2, 2, 2, 2, 2, 2], [2, 2]]
    assert [row["r_iou"] for row in found] == [np.float32(round(row["code_0"] / 256, 4)) for row in found]
    assert len({row["r_iou"] for row in found}) > 10


# --- what is rejected ------------------------------------------------------------------------------------------------


def cut(members: Members) -> bytes:
    """A tar that ends in the middle of its fourth image's picture."""
    data = tar_of(members)
    return data[: data.index(members[6][1]) + 40]


def other_size(number: int) -> bytes:
    return text(number, boxes(number, 3)[:2] + boxes(number, 1, height=9, width=9))


GOOD = [member for number in (1, 2, 3, 4, 5) for member in pair(number)]


def replaced(place: int, data: bytes) -> bytes:
    return tar_of([(name, data if at == place else content) for at, (name, content) in enumerate(GOOD)])


def without(place: int) -> bytes:
    return tar_of([member for at, member in enumerate(GOOD) if at != place])


# The picture of image 4 is member 6, its JSON file member 7.
BAD: dict[str, tuple[bytes, list[int], str, str, str]] = {
    "truncated tar": (cut(GOOD), [1, 2, 3], "sa_000000.tar", "archive-damaged", "3 pairs stood before"),
    "no JPEG": (replaced(6, b"<html>gone</html>"), [1, 2, 3, 5], "sa_4", "image-unreadable", "is no image"),
    "cut JPEG": (replaced(6, picture(4)[:-300]), [1, 2, 3, 5], "sa_4", "image-unreadable", "cannot be decoded"),
    "no image": (without(6), [1, 2, 3, 5], "sa_4", "image-missing", "holds no sa_4.jpg"),
    "no JSON": (without(7), [1, 2, 3, 5], "sa_4", "annotation-missing", "holds no sa_4.json"),
    "another JSON": (replaced(7, b"{}"), [1, 2, 3, 5], "sa_4", "annotation-unreadable", "as SA-1B's"),
    "picture of another size": (
        replaced(6, picture(4, height=WIDTH, width=HEIGHT)),
        [1, 2, 3, 5],
        "sa_4",
        "image-size",
        "drawn on 64x48, the image is 48x64",
    ),
    "empty picture": (replaced(6, b""), [1, 2, 3, 5], "sa_4", "image-unreadable", "is no image (0 bytes)"),
}


@pytest.mark.parametrize(("data", "sound", "key", "reason", "words"), BAD.values(), ids=BAD)
def test_bad_input_is_one_reject_and_the_rest_is_complete(
    tmp_path: Path, data: bytes, sound: list[int], key: str, reason: str, words: str
) -> None:
    entry, found, (reject,) = run_tar(tmp_path, data)
    assert found_masks(found) == expected(sound)
    assert (entry.rejects, entry.images) == ({reason: 1}, len(sound))
    assert (reject.key, reject.reason) == (key, reason)
    assert words in reject.message
    if reason in ("image-unreadable", "image-size"):
        assert reject.record == {
            "image": "sa_000000.tar/sa_4.jpg",
            "archive": "sa_000000.tar",
            "frame": None,
            "masks": 3,
        }


def test_an_rle_of_another_size_costs_one_mask(tmp_path: Path) -> None:
    entry, found, (reject,) = run_tar(tmp_path, replaced(7, other_size(4)))
    wanted = expected([1, 2, 3, 4, 5])
    del wanted["sa_4", "4002"]
    assert found_masks(found) == wanted
    assert (entry.rejects, entry.images, reject.key) == ({"mask-size": 1}, 5, "sa_4/4002")
    assert "expected size [48, 64]" in reject.message


def test_a_unit_of_rejects_writes_no_table_and_removes_an_older_one(tmp_path: Path) -> None:
    before, _, _ = run_tar(tmp_path, tar_of(pair(1)))
    assert before.shard is not None
    entry, found, _ = run_tar(tmp_path, tar_of(pair(1)[:1]))
    assert (entry.shard, entry.images, found) == (None, 0, [])
    assert entry.rejects == {"annotation-missing": 1}
    folder = tmp_path / "out" / "sa1b" / "masks"
    assert sorted(path.name for path in folder.iterdir() if path.name != ".tmp") == [HIDDEN]
    run_tar(tmp_path, tar_of(pair(1)))  # and back: the list of rejects goes
    assert not list((folder / HIDDEN / "rejects").iterdir())


def test_rejects_stand_in_one_order(tmp_path: Path) -> None:
    """They come from the reader and from the threads; which one is ahead must not matter."""
    members: Members = []
    for number in range(1, 60):
        jpg, json = pair(number)
        members += [(jpg[0], b"none" if number % 3 == 0 else jpg[1])] + ([] if number % 5 == 0 else [json])
    lists = [run_tar(tmp_path, tar_of(members))[2] for _ in range(3)]
    assert len(lists[0]) == 27
    assert lists[0] == lists[1] == lists[2]


@dataclass(frozen=True)
class Twice:
    """A source that gives a scene's id to two images, as COCO's ids 1 and "1" do."""

    name: str = "twice"
    settings: tuple[()] = ()
    num_units: int = 1
    listing: None = None

    def unit_name(self, _unit: int) -> str:
        return "all"

    def records(self, units: range) -> list[int]:
        return list(units)

    def read(self, unit: int) -> Iterator[MaskedImage | Reject]:
        return self.read_record(unit)

    def read_record(self, _record: Any) -> Iterator[MaskedImage | Reject]:
        for image, scene in (("a.jpg", "1"), ("b.jpg", "2"), ("c.jpg", "1")):
            regions = tuple(Region(str(place), rle) for place, rle in enumerate(boxes(1, 2)))
            yield MaskedImage(Scene(scene, image, HEIGHT, WIDTH, regions, ()), lambda: Image.new("RGB", (64, 48)))


def test_a_second_image_of_one_id_is_a_reject(tmp_path: Path) -> None:
    units = units_of(Twice(), tmp_path)
    entry = units.run_job(Job("masks", 0, 1, {"records": [0], "origin": None}), FakeTokenizer())
    assert (entry.images, entry.masks, entry.rejects) == (2, 4, {"record-duplicate": 1})
    (reject,) = units.output.rejects_of(0)
    assert (reject.key, reject.message) == ("1", "c.jpg: a second image of the id 1")


# --- a limit ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 4, 10, 11])
def test_a_limit_takes_the_first_images(tmp_path: Path, limit: int) -> None:
    data = tar_of([member for number in range(1, 11) for member in pair(number)])
    entry, found, _ = run_tar(tmp_path, data, limit=limit)
    assert found_masks(found) == expected(range(1, 1 + min(limit, 10)))
    assert entry.images == min(limit, 10)


def test_what_lies_behind_the_limit_is_not_read(tmp_path: Path) -> None:
    entry, _, rejects = run_tar(tmp_path, cut(GOOD), limit=3)
    assert (entry.images, rejects) == (3, [])
