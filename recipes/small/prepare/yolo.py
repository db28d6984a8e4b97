"""COCO128: photographs as they are; YOLO's polygons as COCO's, cut into train.json and heldout.json.

A label line is ``class x1 y1 x2 y2 ...`` in fractions of width and height. ``paths``: ``images`` and ``labels``,
folders. ``options``: ``held_out_every``: images whose id it divides are not for training.
"""

from __future__ import annotations

import posixpath
from typing import Any

from PIL import Image

from recipes.small.prepare.collection import Collection, open_image
from recipes.small.prepare.repositories import Repository
from recipes.small.prepare.table import Part, Source

NUM_CLASSES = 80
_SHORTEST = 7  # the class and three corners


def read_yolo(source: Source, part: Part, repository: Repository) -> Collection:
    """images/<id>.jpg, train.json and heldout.json; category = class + 1."""
    collection = Collection(source.folder)
    categories = [{"id": number + 1, "name": f"class{number}"} for number in range(NUM_CLASSES)]
    cuts = {name: {"images": [], "annotations": [], "categories": categories} for name in ("train", "heldout")}
    for path in repository.below(part.paths["images"], ".jpg"):
        data = repository.read(path)
        name = posixpath.basename(path)
        stem = posixpath.splitext(name)[0]
        is_test = int(stem) % source.options["held_out_every"] == 0
        image = open_image(data)
        collection.add_image(f"images/{name}", data, image, is_test=is_test)
        cut = cuts["heldout" if is_test else "train"]
        size = {"width": image.width, "height": image.height}
        cut["images"].append({"id": int(stem), "file_name": name, **size})
        label = f"{part.paths['labels']}/{stem}.txt"
        lines = repository.read(label).decode().splitlines() if label in repository.files else []
        for line in lines:
            numbers = line.split()
            if len(numbers) >= _SHORTEST:
                collection.num_masks += 1
                cut["annotations"].append(_annotation(numbers, collection.num_masks, int(stem), image))
    for name, content in cuts.items():
        collection.add_json(f"{name}.json", content)
    return collection


def _annotation(numbers: list[str], number: int, image_id: int, image: Image.Image) -> dict[str, Any]:
    category, *corners = numbers
    polygon = [round(float(each) * image.size[place % 2], 3) for place, each in enumerate(corners)]
    xs, ys = polygon[::2], polygon[1::2]
    after = [*xs[1:], xs[0]], [*ys[1:], ys[0]]
    twice = sum(x * next_y - next_x * y for x, y, next_x, next_y in zip(xs, ys, *after, strict=True))
    return {
        "id": number,
        "image_id": image_id,
        "category_id": int(category) + 1,
        "segmentation": [polygon],
        "bbox": [min(xs), min(ys), round(max(xs) - min(xs), 3), round(max(ys) - min(ys), 3)],
        "area": round(abs(twice) / 2, 2),
        "iscrowd": 0,
    }
