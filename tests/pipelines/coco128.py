"""Wraps the COCO128 photographs and their YOLO polygons in gRefCOCO's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from tests.converters.grefs import annotation, ref, write_gres


def write_coco128(source: Path, root: Path) -> tuple[int, int]:
    """Writes every image with every polygon as a ref of its own, and one ref with all polygons of the image.

    Args:
        source: the folder with ``images/train2017`` and ``labels/train2017``; a label line is a class and
            normalised x, y pairs.
        root: where ``grefcoco`` and ``images/train2014`` are written; photographs are linked, not copied.

    Returns:
        Images and polygons.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    refs: list[dict[str, Any]] = []
    photographs = root / "images" / "train2014"
    photographs.mkdir(parents=True)
    for path in sorted((source / "images" / "train2017").glob("*.jpg")):
        with Image.open(path) as opened:
            width, height = opened.size
        name = f"COCO_train2014_{path.stem}.jpg"
        (photographs / name).symlink_to(path.resolve())
        number = int(path.stem)
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        first = len(annotations) + 1
        label = source / "labels" / "train2017" / f"{path.stem}.txt"
        for line in label.read_text().splitlines() if label.exists() else []:
            kind, *numbers = line.split()
            sides = (width, height) * (len(numbers) // 2)
            polygon = [float(part) * side for part, side in zip(numbers, sides, strict=True)]
            annotations.append(annotation(len(annotations) + 1, number, segmentation=[polygon]))
            refs.append(ref(len(refs), number, [len(annotations)], [f"object {len(annotations)} of class {kind}"]))
        targets = range(first, len(annotations) + 1)
        refs.append(ref(len(refs), number, list(targets), ["everything that has a name"]))
    write_gres(root, images=images, annotations=annotations, refs=refs, image_files=None)
    return len(images), len(annotations)
