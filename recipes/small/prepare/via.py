"""Projects of the VGG Image Annotator: polygons, circles and ellipses in ``*region*.json`` beside the images.

``paths``: ``folders`` to look in, ``prefix`` of the written names. An image with a polygon that reaches out of it by
more than 2 % was annotated at another size and is left out.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from recipes.small.prepare.collection import Found, open_image
from recipes.small.prepare.repositories import Repository
from recipes.small.prepare.table import Part, Source
from samtok_data.masks import Mask

MIN_CORNERS = 6
SLACK = 1.02


def find_via(source: Source, part: Part, repository: Repository) -> Iterator[Found]:
    """The annotated images, in the order of the files."""
    for folder in part.paths["folders"]:
        for path in repository.below(folder, ".json"):
            if "region" not in path:
                continue
            content = json.loads(repository.read(path))
            for entry in content.get("_via_img_metadata", content).values():
                regions = entry["regions"]
                listed = regions.values() if isinstance(regions, dict) else regions
                shapes = [region["shape_attributes"] for region in listed]
                image = f"{folder}/{entry['filename']}"
                if shapes and image in repository.files:
                    name = f"{part.paths['prefix']}_{posixpath.basename(folder)}_{posixpath.basename(image)}"
                    yield Found(name, partial(_read, repository, image, shapes))


def _read(repository: Repository, path: str, shapes: list[Mapping[str, Any]]) -> tuple[Image.Image, list[Mask]]:
    image = open_image(repository.read(path))
    polygons = [shape for shape in shapes if len(shape.get("all_points_x", ())) >= MIN_CORNERS]
    reach = image.width * SLACK, image.height * SLACK
    if any(max(each["all_points_x"]) > reach[0] or max(each["all_points_y"]) > reach[1] for each in polygons):
        return image, []
    drawn = [_mask(shape, image.size) for shape in shapes]
    return image, [mask for mask in drawn if mask is not None]


def _mask(shape: Mapping[str, Any], size: tuple[int, int]) -> Mask | None:
    canvas = Image.new("L", size)
    draw = ImageDraw.Draw(canvas)
    if "all_points_x" in shape:
        if len(shape["all_points_x"]) < MIN_CORNERS:
            return None
        draw.polygon(list(zip(shape["all_points_x"], shape["all_points_y"], strict=True)), fill=1)
    elif shape.get("name") in ("circle", "ellipse"):
        x, y = shape["cx"], shape["cy"]
        across, down = (shape[radius] for radius in (("r", "r") if shape["name"] == "circle" else ("rx", "ry")))
        draw.ellipse([x - across, y - down, x + across, y + down], fill=1)
    else:
        return None
    return np.asarray(canvas).astype(np.bool_)
