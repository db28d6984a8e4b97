"""Writes folders in the layouts of gRefCOCO and REFER from tables of a few words. Used by tests and benchmarks."""

from __future__ import annotations

import json
import pickle
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# (left, top, width, height) in pixels
Box = tuple[int, int, int, int]

FULL_SIZE_SPLITS = {"train": 209_344, "val": 16_870, "testA": 18_712, "testB": 14_933}


def image(number: int, *, height: int = 40, width: int = 60, **fields: Any) -> dict[str, Any]:
    """An entry of ``images``; further fields replace the usual ones."""
    name = f"COCO_train2014_{number:012d}.jpg"
    return {"id": number, "file_name": name, "height": height, "width": width, "license": 1, **fields}


def annotation(number: int, image_id: int, box: Box = (5, 5, 10, 10), **fields: Any) -> dict[str, Any]:
    """An entry of ``annotations``: a rectangle of exactly these pixels; further fields replace the usual ones."""
    left, top, width, height = box
    right, bottom = left + width, top + height
    polygon = [float(number) for number in (left, top, right, top, right, bottom, left, bottom)]
    usual = {"segmentation": [polygon], "area": float(width * height), "iscrowd": 0, "bbox": [float(n) for n in box]}
    return {"id": number, "image_id": image_id, "category_id": 1, **usual, **fields}


def ref(
    number: int,
    image_id: int,
    targets: Sequence[int] | int,
    sentences: Sequence[str] = ("the red one",),
    *,
    split: str = "train",
    **fields: Any,
) -> dict[str, Any]:
    """A ref in gRefCOCO's form; no targets stand as ``[-1]``. Sentence ids are ``10 * number`` and the next ones.

    With an int as ``targets`` it is a ref in RefCOCO's form: a bare id, no ``no_target``.
    """
    bare = isinstance(targets, int)
    entries = [
        {"tokens": sent.split(), "raw": sent.upper(), "sent_id": 10 * number + place, "sent": sent}
        for place, sent in enumerate(sentences)
    ]
    usual: dict[str, Any] = {
        "sent_ids": [entry["sent_id"] for entry in entries],
        "file_name": f"COCO_train2014_{image_id:012d}_{number}.jpg",
        "ann_id": targets if bare else list(targets) or [-1],
        "ref_id": number,
        "image_id": image_id,
        "split": split,
        "sentences": entries,
        "category_id": 1 if bare else [1] * len(targets) or [-1],
    }
    return {**usual, **({} if bare else {"no_target": not targets}), **fields}


def write_gres(
    root: Path,
    *,
    images: Sequence[dict[str, Any]],
    annotations: Sequence[Any],
    refs: Any,
    image_files: str | None = "images/train2014",
) -> Path:
    """Writes ``grefcoco/grefs(unc).json``, ``grefcoco/instances.json`` and small JPEGs.

    Args:
        root: is made if need be.
        images: as ``image`` makes them; a JPEG of that size is written for each.
        annotations: as ``annotation`` makes them.
        refs: as ``ref`` makes them, or whatever a broken file should hold.
        image_files: the folder of the JPEGs under the root; None: no images.

    Returns:
        The root.
    """
    _write_instances(root / "grefcoco", images, annotations)
    (root / "grefcoco" / "grefs(unc).json").write_text(json.dumps(refs), encoding="utf-8")
    if image_files is not None:
        write_images(root / image_files, images)
    return root


def write_refer(
    root: Path,
    folder: str,
    partition: str,
    *,
    images: Sequence[dict[str, Any]],
    annotations: Sequence[Any],
    refs: Any,
    protocol: int = 2,
    image_files: str | None = "images/train2014",
) -> Path:
    """As ``write_gres`` for the pickled sets: ``FOLDER/refs(PARTITION).p`` and ``FOLDER/instances.json``."""
    _write_instances(root / folder, images, annotations)
    (root / folder / f"refs({partition}).p").write_bytes(pickle.dumps(refs, protocol))
    if image_files is not None:
        write_images(root / image_files, images)
    return root


def write_images(folder: Path, images: Sequence[dict[str, Any]]) -> None:
    """JPEGs of the listed sizes: a gradient with a shade of its own for each image."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, entry in enumerate(images):
        pixels_HWC = np.zeros((entry["height"], entry["width"], 3), dtype=np.uint8)
        pixels_HWC[..., 0] = np.linspace(0, 255, entry["width"], dtype=np.uint8)
        pixels_HWC[..., 1] = np.linspace(0, 255, entry["height"], dtype=np.uint8)[:, None]
        pixels_HWC[..., 2] = 40 * number % 256
        Image.fromarray(pixels_HWC).save(folder / entry["file_name"], quality=90)


def _write_instances(folder: Path, images: Sequence[dict[str, Any]], annotations: Sequence[Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    categories = [{"supercategory": "thing", "id": 1, "name": "thing"}]
    instances = {"info": {}, "images": images, "licenses": [], "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(instances), encoding="utf-8")


def write_full_size(root: Path, *, num_images: int = 20_000, seed: int = 0) -> Path:
    """A gRefCOCO folder of the real one's size, without image files; the empty image folder is there.

    259,859 sentences over the four splits as in the dataset's table (9 % without target, 33 % with several), 8
    annotations an image, polygons of 40 numbers on 640x480. With fewer images everything shrinks in proportion.
    """
    random_numbers = np.random.default_rng(seed)
    draw = random.Random(seed)
    images = [image(number, height=480, width=640) for number in range(1, num_images + 1)]
    annotations = _full_size_annotations(random_numbers, num_images)
    refs = []
    scale = num_images / 20_000
    total = sum(FULL_SIZE_SPLITS.values())
    first_image, num_sentences = 0, 0
    for split, table in FULL_SIZE_SPLITS.items():
        images_of_split = max(1, round(num_images * table / total))
        left = round(table * scale)
        while left:
            image_id = min(num_images, first_image + 1 + draw.randrange(images_of_split))
            several = draw.choices((0, 1, 2, 3), weights=(9, 58, 25, 8))[0]
            targets = draw.sample(range(8 * image_id - 7, 8 * image_id + 1), several)
            count = min(left, draw.choice((1, 2)))
            sentences = [f"the number {num_sentences + place} person on the left of it" for place in range(count)]
            refs.append(ref(len(refs), image_id, targets, sentences, split=split))
            for place, sentence in enumerate(refs[-1]["sentences"]):
                sentence["sent_id"] = num_sentences + place
            refs[-1]["sent_ids"] = [sentence["sent_id"] for sentence in refs[-1]["sentences"]]
            num_sentences += count
            left -= count
        first_image += images_of_split
    (root / "images" / "train2014").mkdir(parents=True, exist_ok=True)
    return write_gres(root, images=images, annotations=annotations, refs=refs, image_files=None)


def _full_size_annotations(random_numbers: np.random.Generator, num_images: int) -> list[dict[str, Any]]:
    angles_P = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    count = 8 * num_images
    centres_N2 = random_numbers.uniform((100, 100), (540, 380), (count, 2))
    radii_NP = random_numbers.uniform(20, 90, (count, 20))
    x_NP = centres_N2[:, :1] + radii_NP * np.cos(angles_P)
    y_NP = centres_N2[:, 1:] + radii_NP * np.sin(angles_P)
    polygons = np.round(np.stack([x_NP, y_NP], axis=-1), 2).reshape(count, 40)
    return [
        annotation(number, (number + 7) // 8, segmentation=[polygon.tolist()])
        for number, polygon in enumerate(polygons, start=1)
    ]
