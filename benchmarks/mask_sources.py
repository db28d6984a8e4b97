"""Mask sources: label maps, one unit of each kind, and the index of a COCO file of 300 MB.

    python -m benchmarks.mask_sources [--megabytes 300] [--out benchmarks/results/mask_sources.json]

Pictures are not decoded. Milliseconds are CPU time of one process, so that other work on the machine counts little; the
index is built in a process of its own, with its wall time and peak memory. Goals: 15 ms for an image of BSDS500's size
with five maps of 20 segments, 1 ms for a row of a COCO file without its polygons.
"""

from __future__ import annotations

import io
import json
import math
import platform
import random
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from converters.masks.indexed_source import IndexedSource
from converters.masks.registry import open_mask_source
from converters.masks.source import MaskedImage, MaskSource
from samtok_data import masks
from samtok_data.label_maps import encode_labels
from tests.converters.mask_sources import jpeg, label_map, photograph

INDEX = """
import sys, time
from converters.masks.registry import open_mask_source
from tests.converters.mask_sources import peak_mib
start, cpu = time.perf_counter(), time.process_time()
open_mask_source("coco-instances", root=sys.argv[1], index=sys.argv[2], json="instances.json", images=".")
print(time.perf_counter() - start, time.process_time() - cpu, peak_mib())
"""


def patches(height: int, width: int, number: int, seed: int) -> NDArray[np.uint32]:
    """Labels 1 to ``number``: wavy patches around random points."""
    points = np.random.default_rng(seed).uniform(size=(number, 2)) * [height, width]
    y_HW, x_HW = np.mgrid[:height, :width].astype(np.float32)
    waves_HW = 200 * np.sin(x_HW / 5) * np.sin(y_HW / 7)
    nearest_HW, labels_HW = np.full((height, width), np.inf), np.zeros((height, width), np.uint32)
    for place, (y, x) in enumerate(points, start=1):
        distance_HW = (y_HW - y) ** 2 + (x_HW - x) ** 2 + waves_HW * (place % 5)
        labels_HW[distance_HW < nearest_HW] = place
        nearest_HW = np.minimum(nearest_HW, distance_HW)
    return labels_HW


def milliseconds(call: Callable[[], Any], times: int) -> float:
    """CPU time of one call, the mean of so many."""
    call()
    start = time.process_time()
    for _ in range(times):
        call()
    return round((time.process_time() - start) / times * 1000, 3)


def write_bsds(root: Path) -> MaskSource:
    for image in range(4):
        photograph(root / "images" / f"{image}.jpg", height=321, width=481)
        for annotator in range(5):
            label_map(root / "maps" / f"{image}_a{annotator}.png", patches(321, 481, 20, 9 * image + annotator))
    return open_mask_source("index-png", root=str(root), index=str(root), images="images", masks="maps")


def write_sa1b(root: Path) -> MaskSource:
    """A tar of four images of 2250x1500 with 100 masks each."""
    encoded = encode_labels(patches(1500, 2250, 100, 0))
    annotations = [{"id": label, "segmentation": rle.json} for label, rle in encoded.items()]
    text = json.dumps({"image": {"height": 1500, "width": 2250}, "annotations": annotations}).encode()
    root.mkdir()
    with tarfile.open(root / "sa_000000.tar", "w") as tar:
        for number in range(4):
            for name, data in ((f"sa_{number}.jpg", jpeg(height=1500, width=2250)), (f"sa_{number}.json", text)):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return open_mask_source("sa1b", root=str(root), index=str(root), masks_per_image=None)


def write_coco(path: Path, megabytes: int) -> None:
    """COCO instances in COCO's proportions: polygons of 25 corners, annotations in no order."""
    generator, num_images, size, number = random.Random(0), 260 * megabytes, 0, 0
    with path.open("w") as file:
        file.write('{"images": [')
        for image in range(num_images):
            entry = {"id": 5 * image, "file_name": f"{image:012d}.jpg", "height": 480, "width": 640}
            file.write((", " if image else "") + json.dumps(entry))
        file.write('], "annotations": [')
        while size < megabytes * 1_000_000:
            corners = max(4, int(generator.lognormvariate(3.2, 0.8)))
            x, y = generator.uniform(50, 590), generator.uniform(50, 430)
            polygon = []
            for corner in range(corners):
                angle, reach = 2 * math.pi * corner / corners, generator.uniform(10, 50)
                polygon += [round(x + reach * math.cos(angle), 2), round(y + reach * math.sin(angle), 2)]
            entry = {"segmentation": [polygon], "area": 1.5, "iscrowd": 0, "bbox": [1.1, 2.2, 3.3, 4.4], "id": number}
            text = json.dumps({**entry, "image_id": 5 * generator.randrange(num_images), "category_id": 18})
            size += file.write((", " if number else "") + text)
            number += 1
        file.write("]}")


def read_units(source: MaskSource, units: int) -> None:
    for unit in range(units):
        for found in source.read(unit):
            if not isinstance(found, MaskedImage):
                raise ValueError(f"expected no reject, got {found}")


def coco_figures(root: Path, megabytes: int) -> dict[str, Any]:
    """The index of a large file, and what its rows cost."""
    root.mkdir()
    write_coco(root / "instances.json", megabytes)
    command = [sys.executable, "-c", INDEX, str(root), str(root / "index")]
    seconds, cpu, peak = map(float, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    options = {"root": str(root), "index": str(root / "index"), "json": "instances.json", "images": "."}
    start = time.perf_counter()
    source = open_mask_source("coco-instances", **options)
    again = time.perf_counter() - start
    if not isinstance(source, IndexedSource):
        raise TypeError("expected a source with an index")
    rows, index = 1000, source.index
    return {
        "coco_bytes": (root / "instances.json").stat().st_size,
        "coco_index_bytes": Path(index.path).stat().st_size,
        "coco_index_seconds": round(seconds, 1),
        "coco_index_cpu_seconds": round(cpu, 1),
        "coco_index_peak_mib": round(peak),
        "coco_open_again_seconds": round(again, 2),
        "coco_row_ms": round(milliseconds(lambda: [index.read(unit) for unit in range(rows)], 3) / rows, 3),
        "coco_image_with_masks_ms": round(milliseconds(lambda: read_units(source, rows), 1) / rows, 3),
    }


@click.command()
@click.option("--megabytes", default=300, show_default=True, help="Size of the COCO file.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Also write the figures as JSON.")
def main(megabytes: int, out: Path | None) -> None:
    """Measures every kind on generated files."""
    small, large = patches(321, 481, 20, 0), patches(480, 640, 20, 0)
    figures: dict[str, Any] = {
        "command": f"python -m benchmarks.mask_sources --megabytes {megabytes}",
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "labels_481x321_ms": milliseconds(lambda: encode_labels(small), 50),
        "labels_640x480_ms": milliseconds(lambda: encode_labels(large), 50),
        "one_by_one_640x480_ms": milliseconds(lambda: [masks.encode(large == label) for label in range(1, 21)], 20),
    }
    with tempfile.TemporaryDirectory() as name:
        bsds, sa1b = write_bsds(Path(name) / "bsds"), write_sa1b(Path(name) / "sa1b")
        figures["bsds_image_five_maps_ms"] = round(milliseconds(lambda: read_units(bsds, 4), 10) / 4, 2)
        figures["sa1b_image_100_masks_ms"] = round(milliseconds(lambda: read_units(sa1b, 1), 10) / 4, 2)
        figures |= coco_figures(Path(name) / "coco", megabytes)
    for label, value in figures.items():
        print(f"{label:>26}  {value}")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
