"""Writes small mask sources from tables of a few words, and reads a source to its end. Used by tests and benchmarks."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from converters.masks.source import MaskedImage, MaskSource
from samtok_data import masks
from samtok_data.rejects import Reject

HEIGHT, WIDTH = 40, 60


def read_all(source: MaskSource) -> tuple[list[MaskedImage], list[Reject]]:
    """Everything of every unit; holds what every source promises against it."""
    images: list[MaskedImage] = []
    rejects: list[Reject] = []
    assert source.num_units >= 1
    for unit in range(source.num_units):
        assert source.unit_name(unit)
        for found in source.read(unit):
            if isinstance(found, Reject):
                json.dumps(found.record)
                rejects.append(found)
                continue
            assert found.scene.regions
            assert found.scene.dialogues == ()
            for region in found.scene.regions:
                assert (region.rle.height, region.rle.width) == (found.scene.height, found.scene.width)
                assert masks.area(region.rle) > 0
            images.append(found)
    ids = [(image.scene.id, region.id) for image in images for region in image.scene.regions]
    assert len(set(ids)) == len(ids)
    return images, rejects


def peak_mib() -> float:
    """Peak memory of this process since it was started; ``ru_maxrss`` would begin with its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def printed_by(program: str, *arguments: object) -> list[float]:
    """The numbers that a Python program prints, run in a process of its own."""
    command = [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)]
    return [float(word) for word in subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()]


def areas(image: MaskedImage) -> dict[str, int]:
    """Pixels of every region, by id."""
    return {region.id: masks.area(region.rle) for region in image.scene.regions}


def reasons(rejects: Iterable[Reject]) -> list[tuple[str, str]]:
    """Key and reason of each."""
    return [(reject.key, reject.reason) for reject in rejects]


def photograph(path: Path, *, height: int = HEIGHT, width: int = WIDTH) -> Path:
    """A picture file, in the format of its ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (200, 30, 40)).save(path)
    return path


def jpeg(*, height: int = HEIGHT, width: int = WIDTH, red: int = 200) -> bytes:
    """The bytes of a JPEG file of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (red, 30, 40)).save(buffer, "JPEG")
    return buffer.getvalue()


def columns(*labels: int, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint32]:
    """A label map of upright stripes of nearly one width, from left to right."""
    row = np.asarray(labels, np.uint32)[np.arange(width) * len(labels) // width]
    return np.tile(row, (height, 1))


def label_map(path: Path, labels_HW: NDArray[Any]) -> Path:
    """Writes labels as 8-bit grey, or 16-bit where they do not fit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels_HW.astype(np.uint8 if labels_HW.max() < 256 else np.uint16)).save(path)
    return path


def colour_map(path: Path, labels_HW: NDArray[Any]) -> Path:
    """Writes labels as RGB by COCO panoptic's rule."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.stack([labels_HW >> shift & 255 for shift in (0, 8, 16)], axis=2).astype(np.uint8)).save(path)
    return path


def coco_image(number: int, **fields: Any) -> dict[str, Any]:
    """An entry of ``images``; further fields replace the usual ones."""
    return {"id": number, "file_name": f"{number:012d}.jpg", "height": HEIGHT, "width": WIDTH, "license": 1, **fields}


def box_polygon(left: int, top: int, width: int, height: int) -> list[float]:
    """A polygon of exactly these pixels."""
    right, bottom = left + width, top + height
    return [float(number) for number in (left, top, right, top, right, bottom, left, bottom)]


def coco_annotation(number: int, image_id: Any, **fields: Any) -> dict[str, Any]:
    """An entry of ``annotations``: 100 pixels; further fields replace the usual ones."""
    usual = {"segmentation": [box_polygon(5, 5, 10, 10)], "iscrowd": 0, "bbox": [0, 0, 1, 1], "area": 7.5}
    return {"id": number, "image_id": image_id, "category_id": 3, **usual, **fields}


def write_coco(root: Path, images: Iterable[Mapping[str, Any]], annotations: Iterable[Any], **more: Any) -> Path:
    """``instances.json``, and in ``images`` a picture for every entry whose name allows one."""
    root.mkdir(parents=True, exist_ok=True)
    listed = list(images)
    value = {"info": {}, "images": listed, "annotations": list(annotations), "categories": [], **more}
    (root / "instances.json").write_text(json.dumps(value))
    (root / "images").mkdir(exist_ok=True)
    for image in listed:
        if isinstance(image.get("file_name"), str) and image["file_name"].endswith(".jpg"):
            photograph(root / "images" / Path(image["file_name"]).name)
    return root
