"""What the tests of tables share: small sets in the layout of SA-1B, their rows, and runs in this process."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import pickle
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines import run
from pipelines.config import RunConfig
from pipelines.verify import find_outputs, verify
from pipelines.work import Job, UnitWork
from samtok_data import masks
from samtok_data.masks import RLE
from samtok_data.outputs import UnitEntry
from tests.converters.mask_sources import coco_annotation, coco_image, columns, label_map, write_coco
from tests.pipelines.conftest import FakeTokenizer
from tokenizer_model import identify_tokenizer

HEIGHT, WIDTH = 48, 64
TARS = {0: (3, 1, 2), 1: (5, 4), 2: (8, 6, 7)}
"""Images of the tars of ``write_set``."""
IN_ORDER = [number for tar in TARS.values() for number in tar]
SPLIT = Path("sa1b") / "masks"
"""Where a run over SA-1B writes."""
PLACES = {"images": "images", "masks": "masks"}
"""Options for ``write_pictures``."""
Members = list[tuple[str, bytes]]


def picture(number: int, *, height: int = HEIGHT, width: int = WIDTH) -> bytes:
    """A JPEG file of coarse noise, another one for every number."""
    coarse = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def boxes(number: int, of_it: int, *, height: int = HEIGHT, width: int = WIDTH) -> list[RLE]:
    """Rectangles in seeded places."""
    generator = np.random.default_rng(1000 + number)
    found = []
    for _ in range(of_it):
        top, left = int(generator.integers(0, height - 8)), int(generator.integers(0, width - 8))
        mask_HW = np.zeros((height, width), np.bool_)
        mask_HW[top : top + int(generator.integers(4, height)), left : left + int(generator.integers(4, width))] = True
        found.append(masks.encode(mask_HW))
    return found


def text(number: int, rles: Iterable[RLE], *, height: int = HEIGHT, width: int = WIDTH) -> bytes:
    """A JSON file of SA-1B. Boxes and areas are wrong on purpose: those of a row come from its mask."""
    annotations = [
        {"id": 1000 * number + place, "segmentation": rle.json, "bbox": [0, 0, 1, 1], "area": 1, "predicted_iou": 0.9}
        for place, rle in enumerate(rles)
    ]
    image = {"image_id": number, "width": width, "height": height, "file_name": f"sa_{number}.jpg"}
    return json.dumps({"image": image, "annotations": annotations}).encode()


def pair(number: int, of_it: int = 3) -> Members:
    """Picture and JSON file of an image with so many masks."""
    return [(f"sa_{number}.jpg", picture(number)), (f"sa_{number}.json", text(number, boxes(number, of_it)))]


def tar_of(members: Members) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def write_tar(root: Path, tar: int, numbers: Iterable[int], of_it: int = 3) -> Path:
    """``sa_00000N.tar`` with these images."""
    root.mkdir(parents=True, exist_ok=True)
    path = root / f"sa_{tar:06d}.tar"
    path.write_bytes(tar_of([member for number in numbers for member in pair(number, of_it)]))
    return path


def write_set(root: Path, tars: tuple[int, ...] = (0, 1, 2)) -> Path:
    for tar in tars:
        write_tar(root, tar, TARS[tar])
    return root


def write_pictures(root: Path, number: int) -> Path:
    """Images with a label map each, one of two masks, for index-png."""
    for at in range(number):
        (root / "images").mkdir(parents=True, exist_ok=True)
        (root / "images" / f"{at:03d}.jpg").write_bytes(picture(at))
        label_map(root / "masks" / f"{at:03d}.png", columns(1, 2, height=48, width=64))
    return root


def write_coco_splits(root: Path) -> Path:
    """COCO's two splits, of two images and of one."""
    for split, numbers in (("train", (1, 2)), ("val", (3,))):
        images = [coco_image(number) for number in numbers]
        annotations = [coco_annotation(10 * number, number) for number in numbers]
        part = write_coco(root / f"{split}2017", images, annotations)
        (part / "instances.json").rename(root / f"instances_{split}2017.json")
        for path in (part / "images").iterdir():
            path.rename(part / path.name)
        (part / "images").rmdir()
    return root


def expected(numbers: Iterable[int], of_it: int = 3) -> dict[tuple[str, str], RLE]:
    """The masks of ``pair`` by scene and region, in order."""
    return {
        (f"sa_{number}", str(1000 * number + place)): rle
        for number in numbers
        for place, rle in enumerate(boxes(number, of_it))
    }


def table(path: Path) -> list[dict[str, Any]]:
    """The rows of one file."""
    with pq.ParquetFile(path) as file:
        return file.read().to_pylist()


def rows(split: Path) -> list[dict[str, Any]]:
    """The rows of every table of a split, by unit."""
    return [row for path in sorted(split.glob("*.parquet")) for row in table(path)]


def found_masks(some: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], RLE]:
    """Masks of rows by scene and region, in order; each row's area, box and size are held against its mask."""
    found = {}
    for row in some:
        rle = RLE(row["height"], row["width"], row["counts"].decode())
        mask_HW = masks.decode(rle)
        ys, xs = np.nonzero(mask_HW)
        assert row["area"] == len(ys) == mask_HW.sum()
        left, top = int(xs.min()), int(ys.min())
        assert row["box"] == [left, top, int(xs.max()) - left + 1, int(ys.max()) - top + 1]
        assert (row["scene"], row["region"]) not in found
        found[row["scene"], row["region"]] = rle
    return found


def fake_codes(rle: RLE) -> list[int]:
    """What ``FakeTokenizer`` makes of a mask."""
    checksum = zlib.crc32(rle.counts.encode())
    return [checksum % 256, checksum // 256 % 256]


def mask_config(root: Path | str, out: Path | str, **changes: Any) -> RunConfig:
    usual: dict[str, Any] = {
        "dataset": "sa1b",
        "root": str(root),
        "out": str(out),
        "tokenizer": "small",
        "num_gpus_per_actor": 0,
        "actors": 1,
    }
    return RunConfig(**{**usual, **changes})


def problems(out: Path) -> list[str]:
    return [problem for verdict in verify(find_outputs(str(out))) for problem in verdict.problems]


@dataclass
class Here:
    """Runs units in this process, one after the other; remembers which. ``stop_before`` ends a run there."""

    tokenizer: Any = field(default_factory=FakeTokenizer)
    units: list[tuple[str, int]] = field(default_factory=list)
    stop_before: int | None = None
    settings: Mapping[str, UnitWork] = field(default_factory=dict)

    @contextlib.contextmanager
    def crews(self, _order: object, settings: Mapping[str, UnitWork], _layout: object) -> Iterator[Here]:
        self.settings = pickle.loads(pickle.dumps(settings))
        yield self

    def usage(self) -> list[dict[str, float]]:
        return []

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[str, UnitEntry]]:
        for job in jobs:
            if self.stop_before == len(self.units):
                raise KeyboardInterrupt
            self.units.append((job.split, job.index))
            arrived = Job(job.split, job.index, job.records, json.loads(json.dumps(job.payload)))
            yield job.split, self.settings[job.split].run_job(arrived, self.tokenizer)


_identify = functools.cache(identify_tokenizer)


def run_here(monkeypatch: pytest.MonkeyPatch) -> Here:
    """Has runs go without Ray and without a network: the same code up to the queue of units."""
    made = Here()
    monkeypatch.setattr(run, "ray_session", contextlib.nullcontext)
    monkeypatch.setattr(run, "start_cluster", lambda *_: None)
    monkeypatch.setattr(run, "plan_crews", lambda *_: None)
    monkeypatch.setattr(run, "Crews", made.crews)
    monkeypatch.setattr(run, "_identified", _identify)  # the weights are checked once, not in every run
    return made
