"""COCO instances, or a cut of them.

``paths``: ``annotations``, one or more JSON files, and ``images``, folders that are looked through in turn.
``options``: ``min_share`` of the image that a mask covers; ``max_border``: a mask that covers more of each of the four
borders is a background and left out.
"""

from __future__ import annotations

import json
import posixpath
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from recipes.small.prepare.collection import Collection, Found, jpeg_bytes, open_image, smaller_size
from recipes.small.prepare.repositories import Repository
from recipes.small.prepare.table import Part, Source
from samtok_data import masks
from samtok_data.errors import RecordError
from samtok_data.masks import MIN_POLYGON_NUMBERS, Mask


def find_coco(source: Source, part: Part, repository: Repository) -> Iterator[Found]:
    """Every listed image that is there, with its masks but for crowds; each mask is drawn on the image's own size."""
    for path in part.paths["annotations"]:
        content = json.loads(repository.read(path))
        belonging = defaultdict(list)
        for annotation in content["annotations"]:
            if not annotation.get("iscrowd"):
                belonging[annotation["image_id"]].append(annotation["segmentation"])
        for image in content["images"]:
            places = [f"{folder}/{image['file_name']}" for folder in part.paths["images"]]
            there = [place for place in places if place in repository.files]
            if there:
                segments = belonging[image["id"]]
                read = partial(_read, source.options, repository, there[0], image, segments)
                yield Found(posixpath.basename(image["file_name"]), read)


def _read(
    options: Mapping[str, Any], repository: Repository, path: str, listed: Mapping[str, Any], segments: list[Any]
) -> tuple[Image.Image, list[Mask]]:
    image = open_image(repository.read(path))
    scale = image.width / listed["width"], image.height / listed["height"]
    drawn = []
    for segment in segments:
        try:
            drawn.append(_mask(segment, image, scale))
        except RecordError:
            continue  # a broken polygon: the image's other masks are good
    return image, [mask for mask in drawn if _is_kept(mask, options)]


def _mask(segment: Any, image: Image.Image, scale: tuple[float, float]) -> Mask:
    if isinstance(segment, Mapping):
        return masks.decode(masks.read_segmentation(segment, *segment["size"]))
    polygons = [
        [number * scale[place % 2] for place, number in enumerate(polygon)]
        for polygon in segment
        if len(polygon) >= MIN_POLYGON_NUMBERS
    ]
    return masks.decode(masks.read_segmentation(polygons, image.height, image.width))


def _is_kept(mask: Mask, options: Mapping[str, Any]) -> bool:
    borders = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
    is_background = all(np.mean(border) > options.get("max_border", 1.0) for border in borders)
    return not is_background and mask.mean() >= options.get("min_share", 0.0)


def read_polygons(source: Source, part: Part, repository: Repository) -> Collection:
    """As ``find_coco``'s files, but polygons and categories stay: only their numbers are scaled with the image."""
    collection = Collection(source.folder)
    content = json.loads(repository.read(part.paths["annotations"][0]))
    scales = {}
    for listed in content["images"]:
        name = listed["file_name"]
        image = open_image(repository.read(f"{part.paths['images'][0]}/{name}"))
        size = smaller_size(image, source.longest_side)
        small = image.resize(size, Image.Resampling.LANCZOS)
        collection.add_image(f"images/{name}", jpeg_bytes(small, source.jpeg_quality), image)
        scales[listed["id"]] = size[0] / image.width
        listed |= {"width": size[0], "height": size[1]}
    for annotation in content["annotations"]:
        scale = scales[annotation["image_id"]]
        annotation["segmentation"] = [_scaled(polygon, scale) for polygon in annotation["segmentation"]]
        annotation["area"] = round(annotation["area"] * scale**2, 2)
        annotation["bbox"] = _scaled(annotation["bbox"], scale)
    collection.num_masks = len(content["annotations"])
    kept = ("images", "categories", "annotations")
    collection.add_json(f"{source.name}.json", {name: content[name] for name in kept})
    return collection


def _scaled(numbers: list[float], scale: float) -> list[float]:
    return [round(number * scale, 2) for number in numbers]
